"""Looks at what the filters of a finished corpus dropped: how much, by which number, what."""

import heapq
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from xxhash import xxh3_64_intdigest

from data_tools.counts import table
from data_tools.inspect_corpus import folders
from data_tools.rejected import rows
from januslm.cli.table import drawn
from januslm.config import Refused, suggest
from januslm.data.shards import MANIFEST, read_manifest

HEADING = ("source", "rule", "reason", "documents", "of those read", "least", "most", "kept")
SHOWN = 300  # characters of an example


@dataclass
class Kept:
    """The rejected documents of one source and reason that were kept, and a sample of them."""

    rule: str = "-"
    count: int = 0
    numbers: tuple[float, float] | None = None  # the least and the most that decided
    examples: list[tuple[int, int, dict]] = field(default_factory=list)

    def add(self, row: dict, amount: int) -> None:
        """Count a row; it is in the sample if its hash is among the `amount` smallest."""
        self.rule, self.count = row["rule"], self.count + 1
        if (number := row["number"]) is not None:
            low, high = self.numbers or (number, number)
            self.numbers = min(low, number), max(high, number)
        rank = xxh3_64_intdigest(row["text"].encode("utf-8", "surrogatepass"))
        heapq.heappush(self.examples, (-rank, -self.count, row))
        if len(self.examples) > amount:
            heapq.heappop(self.examples)


def inspect(path: str, wanted: str, amount: int, report: Callable[[str], None]) -> None:
    """A table of what was dropped, then examples of each reason with the number that decided.

    wanted: a filter's name or the beginning of a reason; "": all.  amount: examples of each reason.
    Raises Refused where nothing was dropped so, and for counts that the kept documents contradict.
    """
    folder = folders(path)[0]
    counters = read_manifest(folder).get("counters", {})
    table(counters, f"{folder / MANIFEST}: counters")  # refuses what is none
    kept: dict[tuple[str, str], Kept] = {}
    for row in rows(folder.parent):
        kept.setdefault((row["source"], row["reason"]), Kept()).add(row, amount)
    _agree(counters, kept, folder.parent)
    cells, chosen = [HEADING], []
    for source, counted in counters.items():
        for reason, count in counted["dropped"].items():
            one = kept.get((source, reason), Kept())
            if wanted and wanted != one.rule and not reason.startswith(wanted):
                continue
            chosen.append((reason, one))
            cells.append((source, one.rule, reason, f"{count:,}", *_columns(one, counted, count)))
    if not chosen:
        raise Refused(_nothing(path, counters, kept, wanted))
    report(drawn(cells, left=3))
    for what, edits in _edits(counters, wanted):
        report(f"{what}: {edits}")
    if not kept:
        report("no texts to show: `rejected = true` in the corpus file keeps them")
    for reason, one in chosen:
        for _, _, row in sorted(one.examples, reverse=True, key=lambda held: held[:2]):
            report(f"--- {reason}{_number(row)}\n{row['text'][:SHOWN]}")


def _columns(one: Kept, counted: dict, count: int) -> Iterator[str]:
    yield f"{100 * count / counted['read']:.2f} %"
    yield from (f"{number:.4g}" for number in one.numbers or ()) if one.numbers else ("-", "-")
    yield f"{one.count:,}" if one.count else "-"


def _number(row: dict) -> str:
    """The number that decided, and the words."""
    number = f": {row['number']:.4g}" if row["number"] is not None else ""
    return number + (f" ({row['words']})" if row["words"] else "")


def _edits(counters: dict, wanted: str) -> Iterator[tuple[str, str]]:
    """(filter of a source, what it changed in documents that it let pass)."""
    for source, counted in counters.items():
        for name, count in counted.get("changed", {}).items():
            if not wanted or name == wanted:
                edits = counted.get("edited", {}).get(name, {})
                rest = "".join(f", {what} {number:,}" for what, number in edits.items())
                yield f"{source}: {name} changed", f"{count:,} documents{rest}"


def _agree(counters: dict, kept: dict[tuple[str, str], Kept], out: Path) -> None:
    """Refused where more was kept than was dropped, or some of a reason and not all."""
    for (source, reason), one in kept.items():
        count = counters.get(source, {}).get("dropped", {}).get(reason, 0)
        if count < one.count:
            raise Refused(
                f"{out}: {one.count:,} documents of {source} were kept as {reason!r}, and "
                f"{count:,} are counted: not files of one build"
            )


def _nothing(path: str, counters: dict, kept: dict, wanted: str) -> str:
    there = {reason for counted in counters.values() for reason in counted["dropped"]}
    if not there:
        return f"{path}: nothing was dropped"
    rules = {one.rule for one in kept.values()} or there
    return f"{path}: nothing was dropped by {wanted!r}{suggest(wanted, rules)}"
