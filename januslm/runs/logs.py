"""The numbers that a run has logged, as curves over its updates."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from januslm.data import sealed

Point = tuple[int, float | None]  # update, value; None: it was not finite
LOSSES = ("ce/ar", "ce/nar", "ce/aux")


@dataclass(frozen=True)
class Log:
    """One of a run's logs, train.jsonl or valid.jsonl.  problems: what could not be read."""

    records: list[dict]
    problems: list[str]

    @property
    def names(self) -> list[str]:
        """What was logged, in the order in which it first came; not the updates themselves."""
        every = dict.fromkeys(name for record in self.records for name in record)
        return [name for name in every if name not in ("step", "samples")]

    def curve(self, name: str) -> list[Point]:
        """One of them over the updates; a value that was logged twice is that of the last line."""
        found = {one["step"]: _number(one[name]) for one in self.records if name in one}
        return sorted(found.items())

    def last(self, name: str) -> float | None:
        """The newest value that is finite."""
        return next((v for _, v in reversed(self.curve(name)) if v is not None), None)

    def middle(self, name: str) -> float | None:
        """The median: of speeds, what a pause does not change."""
        values = [value for _, value in self.curve(name) if value is not None]
        return median(values) if values else None

    def most(self, name: str) -> float | None:
        """The largest value."""
        return max((value for _, value in self.curve(name) if value is not None), default=None)


def read(folder: Path, name: str) -> Log:
    """RUN/NAME.jsonl; damaged lines, and a file that cannot be read, are among its problems."""
    path = folder / f"{name}.jsonl"
    try:
        found = list(sealed.lines(path))
    except FileNotFoundError:
        return Log([], [f"{path}: is not there"])
    except OSError as error:
        return Log([], [f"{path}: cannot be read ({error.strerror})"])
    records = [table for _, table in found if table and isinstance(table.get("step"), int)]
    damaged = len(found) - len(records)
    return Log(records, [f"{path}: damaged lines left out: {damaged}"] if damaged else [])


def thinned(points: Sequence[Point], most: int) -> list[Point]:
    """At most `most` points: of each of equal stretches the lowest and the highest stay.

    Values that are not finite go where there is something to thin.
    """
    if len(points) <= most:
        return list(points)
    size = -(-len(points) * 2 // most)
    kept: list[Point] = []
    for start in range(0, len(points), size):
        stretch = [(v, step) for step, v in points[start : start + size] if v is not None]
        ends = {min(stretch), max(stretch)} if stretch else set()
        kept += sorted((step, value) for value, step in ends)
    return kept


def _number(value) -> float | None:
    fine = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    return value if fine else None
