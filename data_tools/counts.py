"""What became of every document: the numbers of a manifest, and the table that shows them."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from januslm.cli.table import drawn
from januslm.config import Refused, build

KEPT = ("train", "valid")
DROP = "dropped: "
CHANGED, EDITED = "changed: ", "edited: "
DUPLICATE = "duplicate ({})"  # the reason of a deduplicator


def total(counts: Counter) -> dict:
    """Raw counts as {"read", "repaired", "train", "valid", "dropped": {reason: number}}.

    Raises Refused unless everything that was read is accounted for.
    """
    dropped = {
        key.removeprefix(DROP): value
        for key, value in sorted(counts.items())
        if key.startswith(DROP) and value
    }
    report: dict = {key: counts[key] for key in ("read", "repaired", *KEPT)} | {"dropped": dropped}
    if report["read"] != report["train"] + report["valid"] + sum(dropped.values()):
        raise Refused(f"documents were lost without a reason, a bug in a source: {report}")
    return report


def duplicate_rates(counters: dict[str, dict], ways: Iterable[str]) -> dict[str, dict]:
    """Of each deduplicator, in order: the "documents" it saw, those "dropped", their "share"."""
    reports = counters.values()
    left = sum(report["read"] - sum(report["dropped"].values()) for report in reports)
    rates = {}
    for name in reversed([*ways]):
        lost = sum(report["dropped"].get(DUPLICATE.format(name), 0) for report in reports)
        left += lost
        rates[name] = {"documents": left, "dropped": lost, "share": lost / left if left else 0.0}
    return dict(reversed(rates.items()))


@dataclass(frozen=True)
class _Counts:
    read: int
    repaired: int
    train: int
    valid: int
    dropped: dict[str, int]


def table(counters: dict[str, dict], where: str = "counters") -> str:
    """The counters of all sources as lines for people; Refused where they are no such counters."""
    if not isinstance(counters, dict):
        raise Refused(f"{where} must be a table, got {counters!r}")
    rows = []
    for source, report in counters.items():
        build(_Counts, report, f"{where}.{source}")
        rows.append((source, "read", report["read"]))
        rows += [("", f"  dropped: {why}", number) for why, number in report["dropped"].items()]
        rows += [("", f"  kept for {split}", report[split]) for split in KEPT]
        if report["repaired"]:
            rows.append(("", "  of the read ones, repaired (invalid UTF-8)", report["repaired"]))
    cells = [(name, what, f"{number:,}") for name, what, number in rows]
    return drawn(cells, left=2, heading=False)
