"""Whether one system is better than another, or only luckier: paired bootstrap resampling."""

from dataclasses import dataclass
from types import ModuleType

import numpy as np

from januslm.config import Refused


@dataclass(frozen=True)
class Difference:
    """first minus second, with the interval in which `level` percent of resampled ones lie."""

    name: str
    first: float
    second: float
    low: float
    high: float
    level: float

    @property
    def real(self) -> bool:
        """Zero lies outside the interval."""
        return self.low > 0 or self.high < 0

    def __str__(self) -> str:
        verdict = "a real difference" if self.real else "could be chance"
        return (
            f"{self.name} {self.first:.2f} - {self.second:.2f} = {self.first - self.second:+.2f}, "
            f"{self.level:g} % interval {self.low:+.2f} to {self.high:+.2f}: {verdict}"
        )


def compare(
    metric: ModuleType,
    first: list[str],
    second: list[str],
    references: list[list[str]],
    *,
    options: dict | None = None,
    draws: int = 2000,
    level: float = 95.0,
    seed: int = 0,
) -> list[Difference]:
    """Both systems scored on the same `draws` test sets, each drawn with replacement from this one.

    A metric takes part if it has `each`; with `total` it says how summed statistics make a score,
    without it the score is the mean over lines.
    """
    if not hasattr(metric, "each"):
        raise Refused(f"{metric.__name__.rpartition('.')[2]}: has no values per line to resample")
    options = options or {}
    ours = metric.each(first, references, **options)
    theirs = metric.each(second, references, **options)
    tails = [(100 - level) / 2, (100 + level) / 2]
    found = []
    for name in ours:
        a = resampled(metric, ours[name], options, draws, seed)
        b = resampled(metric, theirs[name], options, draws, seed)
        low, high = np.percentile(a[1:] - b[1:], tails)
        found.append(Difference(name, a[0], b[0], float(low), float(high), level))
    return found


def resampled(
    metric: ModuleType, statistics: np.ndarray, options: dict, draws: int, seed: int
) -> np.ndarray:
    """Scores float64 [1 + draws] of the test set itself, then of resampled ones.

    The draw depends on the seed and the number of lines only, so two systems get the same ones.
    """
    lines = len(statistics)
    table = statistics.reshape(lines, -1)
    rng = np.random.Generator(np.random.Philox(seed))
    even = np.full(lines, 1 / lines)
    sums = [table.sum(axis=0)]
    sums += [rng.multinomial(lines, even) @ table for _ in range(draws)]
    stacked = np.array(sums)
    if hasattr(metric, "total"):
        return metric.total(stacked, **options)
    return stacked[:, 0] / lines
