"""What became of every document: the numbers of a manifest, and the table that shows them."""

from collections import Counter

from januslm.cli.table import drawn
from januslm.config import Refused

KEPT = ("train", "valid")
DROP = "dropped: "


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


def table(counters: dict[str, dict]) -> str:
    """The counters of all sources as lines for people."""
    rows = []
    for source, report in counters.items():
        rows.append((source, "read", report["read"]))
        rows += [("", f"  dropped: {why}", number) for why, number in report["dropped"].items()]
        rows += [("", f"  kept for {split}", report[split]) for split in KEPT]
        if report["repaired"]:
            rows.append(("", "  of the read ones, repaired (invalid UTF-8)", report["repaired"]))
    cells = [(name, what, f"{number:,}") for name, what, number in rows]
    return drawn(cells, left=2, heading=False)
