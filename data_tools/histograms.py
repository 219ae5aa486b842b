"""Counts as bars of block characters, for a terminal of 80 columns."""

from collections.abc import Iterator, Sequence

import numpy as np

WIDTH = 80  # columns
LABEL = 24  # of a longer label the end is cut off
EIGHTHS = " ▏▎▍▌▋▊▉"
BLOCK = "█"


def bars(rows: Sequence[tuple[str, float]]) -> Iterator[str]:
    """A line for each (label, count): its bar, the count, its share of all; the most is full."""
    if not rows:
        return
    whole = sum(count for _, count in rows) or 1
    labels = [_short(label) for label, _ in rows]
    counts = [f"{count:,.0f}" for _, count in rows]
    left, right = max(map(len, labels)), max(map(len, counts))
    room = WIDTH - left - right - len("  " * 3 + "100.0 %")
    most = max(count for _, count in rows) or 1
    for label, shown, (_, count) in zip(labels, counts, rows, strict=True):
        share = f"{count / whole:.1%}".replace("%", " %")
        bar = _bar(count / most * room).ljust(room)
        yield f"{label.rjust(left)}  {bar}  {shown.rjust(right)}  {share.rjust(7)}"


def _short(label: str) -> str:
    return label if len(label) <= LABEL else f"{label[: LABEL - 1]}…"


def _bar(columns: float) -> str:
    """At least an eighth of a column for what is not nothing."""
    eighths = max(round(columns * 8), int(columns > 0))
    return (BLOCK * (eighths // 8) + EIGHTHS[eighths % 8]).rstrip()


def lengths(values: np.ndarray) -> list[tuple[str, float]]:
    """How many of some whole numbers are 0, 1, 2 to 3, 4 to 7, ..., without the empty ends."""
    bits = np.ceil(np.log2(values.astype(np.float64) + 1)).astype(np.int64)
    counts = np.bincount(bits) if len(bits) else np.zeros(1, np.int64)
    rows = []
    for bit in range(int(bits.min(initial=len(counts))), len(counts)):
        low, high = (0, 0) if not bit else (2 ** (bit - 1), 2**bit - 1)
        label = f"{low:,}" if low == high else f"{low:,} to {high:,}"
        rows.append((label, float(counts[bit])))
    return rows
