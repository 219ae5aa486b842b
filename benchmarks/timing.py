"""How systems are timed: taking turns in one process, so that a ratio is one of neighbours in time.

On the CPU the measure is CPU time of the process, which other programs on the machine hardly move;
on a GPU it is wall time between two synchronisations.
"""

import statistics
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Spent:
    """Seconds of one call."""

    cpu: float  # of all threads of the process
    wall: float

    def counted(self, device: torch.device) -> float:
        """The one that ratios are made of."""
        return self.wall if device.type == "cuda" else self.cpu


@dataclass(frozen=True)
class Ratio:
    """How many times as long the base took: the median of the paired rounds, and their range."""

    median: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.median:.2f}x ({self.low:.2f} to {self.high:.2f})"


def spent(run: Callable, device: torch.device) -> tuple[Spent, object]:
    """What one call takes and what it returns."""
    _settle(device)
    wall, cpu = time.perf_counter(), time.process_time()
    result = run()
    _settle(device)
    return Spent(time.process_time() - cpu, time.perf_counter() - wall), result


def turns(
    runs: Mapping[str, Callable], rounds: int, warm: int, device: torch.device
) -> dict[str, list[Spent]]:
    """Each system once a round, every other round in reverse; the first `warm` do not count."""
    times: dict[str, list[Spent]] = {name: [] for name in runs}
    for turn in range(warm + rounds):
        for name in runs if turn % 2 == 0 else reversed(runs):
            times[name].append(spent(runs[name], device)[0])
        said = f"round {turn + 1 - warm} of {rounds}" if turn >= warm else "warming up"
        print(f"\r  {said:20}", end="", file=sys.stderr, flush=True)
    print("\r" + 24 * " ", end="\r", file=sys.stderr, flush=True)
    return {name: each[warm:] for name, each in times.items()}


def ratio(base: list[float], system: list[float]) -> Ratio:
    """base / system, round by round."""
    pairs = [a / b for a, b in zip(base, system, strict=True)]
    return Ratio(statistics.median(pairs), min(pairs), max(pairs))


def measure(device: torch.device) -> str:
    """What `Spent.counted` is, in words."""
    return "wall" if device.type == "cuda" else "CPU"


def _settle(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()
