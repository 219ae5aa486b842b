"""Learning rates: a pure function of the update's number, so a resumed run needs no state."""

import math
from dataclasses import dataclass
from typing import Literal

from januslm.config import Refused, setting


@dataclass(frozen=True)
class ScheduleSettings:
    """How the learning rate rises to its peak ([optimizer] lr) and what follows."""

    # what follows the peak
    name: Literal["inverse_sqrt", "polynomial", "cosine", "constant"] = "inverse_sqrt"
    warmup: int = setting(4000, low=0)  # updates until the peak
    start: float = setting(1e-7, above=0)  # rate of the first update, where there is a warmup
    end: float = setting(0.0, low=0, high=1)  # what is left of the peak after the last update
    power: float = setting(1.0, above=0)  # of the polynomial; 1 is a straight line


def check(schedule: ScheduleSettings, steps: int, where: str) -> None:
    """Refuse a decay that would begin after the run has ended; where: the run file."""
    if schedule.name in ("polynomial", "cosine") and schedule.warmup >= steps:
        raise Refused(
            f"{where}: schedule.warmup must be less than train.steps = {steps} for "
            f"{schedule.name!r}, got {schedule.warmup}"
        )


def rate(schedule: ScheduleSettings, peak: float, step: int, steps: int) -> float:
    """The learning rate of update `step` (the first is 1) of `steps`; never 0.

    Rises in a straight line from `start` and reaches the peak at update warmup + 1, as fairseq
    counts; DeepSpeed's own warmup gives the first update a rate of 0 and wastes it.
    """
    done = step - 1  # updates before this one, fairseq's num_updates
    if done < schedule.warmup:
        start = min(schedule.start, peak)
        return start + (peak - start) * done / schedule.warmup
    if schedule.name == "inverse_sqrt":
        return peak * math.sqrt(max(schedule.warmup, 1) / max(done, 1))
    if schedule.name == "constant":
        return peak
    left = 1 - (done - schedule.warmup) / max(steps - schedule.warmup, 1)
    left = max(left, 1e-9)  # a run that was made longer goes on at the end, not beyond it
    shape = left**schedule.power if schedule.name == "polynomial" else _cosine(left)
    return peak * (schedule.end + (1 - schedule.end) * shape)


def _cosine(left: float) -> float:
    return math.sin(math.pi * left / 2) ** 2  # (1 - cos(pi left)) / 2 without its rounding to 0
