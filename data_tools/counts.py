"""What became of every document: the numbers of a manifest, and the table that shows them."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from data_tools.filtering import CHANGED, EDITED
from januslm.cli.table import drawn
from januslm.config import Refused, build

KEPT = ("train", "valid")
DROP = "dropped: "
LANGUAGE = "language: "  # of documents that passed the filters, where one of them found it out
DUPLICATE = "duplicate ({})"  # the reason of a deduplicator


def total(counts: Counter) -> dict:
    """Raw counts as {"read", "repaired", "train", "valid", "dropped": {reason: number}}.

    Where filters changed documents, also {"changed": {filter: documents}, "edited": {filter: {what:
    number}}}; such a document may have been dropped by another filter after that.

    And "languages": {code: documents}, where a filter found them out.

    Raises Refused unless everything that was read is accounted for.
    """
    dropped = _after(DROP, counts)
    report: dict = {key: counts[key] for key in ("read", "repaired", *KEPT)} | {"dropped": dropped}
    if report["read"] != report["train"] + report["valid"] + sum(dropped.values()):
        raise Refused(f"documents were lost without a reason, a bug in a source: {report}")
    if changed := _after(CHANGED, counts):
        report["changed"] = changed
    for name, number in _after(EDITED, counts).items():
        rule, _, what = name.partition(": ")
        report.setdefault("edited", {}).setdefault(rule, {})[what] = number
    if languages := _after(LANGUAGE, counts):
        report["languages"] = languages
    return report


def _after(begin: str, counts: Counter) -> dict[str, int]:
    """The counts whose names begin so, without the beginning, in order."""
    found = {k.removeprefix(begin): n for k, n in counts.items() if k.startswith(begin) and n}
    return dict(sorted(found.items()))


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
    changed: dict[str, int] = field(default_factory=dict)
    edited: dict[str, dict[str, int]] = field(default_factory=dict)
    languages: dict[str, int] = field(default_factory=dict)


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
        for name, number in report.get("changed", {}).items():
            rows.append(("", f"  of the read ones, changed by {name}", number))
            edits = report.get("edited", {}).get(name, {})
            rows += [("", f"    {what}", count) for what, count in edits.items()]
    cells = [(name, what, f"{number:,}") for name, what, number in rows]
    return drawn(cells, left=2, heading=False)
