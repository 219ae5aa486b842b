"""What validations are compared by: which weights are the best so far, when a run ends early."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from januslm.config import Refused, suggest
from januslm.training.settings import TrainSettings

DIRECTIONS = ("higher", "lower")


@dataclass
class Best:
    """The best value of a name in valid.jsonl: a low one of a loss, a high one of a score."""

    name: str  # "bleu", "ce/ar"
    lower: bool
    value: float | None = None
    step: int = 0  # at which it was met
    since: int = 0  # validations after that

    @classmethod
    def of(cls, text: str, key: str) -> "Best":
        """From a run file: NAME, NAME:higher or NAME:lower.  Refused for another end."""
        name, colon, direction = text.partition(":")
        if colon and direction not in DIRECTIONS:
            raise Refused(f"{key} must be NAME, NAME:higher or NAME:lower, got {text!r}")
        return cls(name, direction == "lower" if colon else _is_loss(name))

    def met(self, step: int, found: Mapping[str, float]) -> bool:
        """Whether this validation is better than all before it; one without the name is none."""
        if self.name not in found:
            return False
        value = found[self.name]
        ahead = self.value is None or (value < self.value if self.lower else value > self.value)
        if ahead and math.isfinite(value):
            self.value, self.step, self.since = value, step, 0
            return True
        self.since += 1
        return False

    @property
    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps of it."""
        return {key: getattr(self, key) for key in ("name", "lower", "value", "step", "since")}

    def resume(self, state: Mapping) -> None:
        """Go on from there, where it is of the same name and end."""
        if (state.get("name"), state.get("lower")) == (self.name, self.lower):
            self.value, self.step, self.since = state["value"], state["step"], state["since"]


@dataclass
class Goals:
    """train.keep_best, train.stop_by and train.patience, and how far they are."""

    keep: Best | None = None
    stop: Best | None = None
    patience: int = 0
    better: bool = field(default=False, init=False)  # the last validation was keep's best

    @classmethod
    def of(cls, train: TrainSettings, state: Mapping | None = None) -> "Goals":
        """state: of the checkpoint that the run goes on from."""
        keep = Best.of(train.keep_best, "train.keep_best") if train.keep_best else None
        stop = None
        if train.patience:
            stop = Best.of(train.stop_by or train.keep_best or "loss", "train.stop_by")
        goals = cls(keep, stop, train.patience)
        for key, best in (("keep", keep), ("stop", stop)):
            if best and (before := (state or {}).get(key)):
                best.resume(before)
        return goals

    def met(self, step: int, found: Mapping[str, float]) -> None:
        """Compare a validation with those before it."""
        self.better = bool(self.keep and self.keep.met(step, found))
        if self.stop:
            self.stop.met(step, found)

    @property
    def over(self) -> str:
        """Why the run ends early, in words; "" where it does not."""
        if not self.stop or self.stop.since < self.patience:
            return ""
        it, often = self.stop, self.stop.since
        value = "" if it.value is None else f", {it.value:.4f} at step {it.step:,}"
        return f"{it.name} has not been better for {often:,} validation{'s' * (often > 1)}{value}"

    @property
    def early(self) -> dict[str, Any]:
        """What a run that has ended early ended by; another start with other goals goes on."""
        return {"stop_by": self.stop.name, "patience": self.patience} if self.stop else {}

    @property
    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps."""
        both = {"keep": self.keep, "stop": self.stop}
        return {key: best.state for key, best in both.items() if best}


def check(train: TrainSettings, names: Iterable[str], where: str) -> None:
    """Refused, naming the key, for a name that no validation of this run will have."""
    goals = Goals.of(train)
    known = ["loss", *names]
    for key, best in (("keep_best", goals.keep), ("stop_by", goals.stop)):
        if best and best.name not in known:
            hint = suggest(best.name, known)
            raise Refused(f"{where}: train.{key}: no {best.name!r} is validated{hint}")
    if train.stop_by and not train.patience:
        raise Refused(f"{where}: train.stop_by needs train.patience, a number of validations")


def _is_loss(name: str) -> bool:
    return name == "loss" or name.startswith(("ce/", "kl/"))
