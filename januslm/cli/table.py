"""Rows of text as a table for people, and sizes as they read them."""

from collections.abc import Sequence


def drawn(rows: Sequence[Sequence[str]], left: int = 1, heading: bool = True) -> str:
    """Columns of equal width; the first `left` to the left, the others to the right.

    heading: rows[0] is one, above a line; a column with nothing but "-" below it is left out.
    """
    columns = list(zip(*rows, strict=True))
    if heading:
        columns = [c for i, c in enumerate(columns) if i == 0 or any(x != "-" for x in c[1:])]
    sizes = [max(map(len, column)) for column in columns]
    lines = []
    for row in zip(*columns, strict=True):
        cells = [
            cell.ljust(size) if place < left else cell.rjust(size)
            for place, (cell, size) in enumerate(zip(row, sizes, strict=True))
        ]
        lines.append("  ".join(cells).rstrip())
    if heading:
        lines.insert(1, "  ".join("-" * size for size in sizes))
    return "\n".join(lines)


def shown_bytes(count: float) -> str:
    """1.5 GB."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"
