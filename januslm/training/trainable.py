"""What the loop asks of what it trains."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Protocol, TypeVar

import torch
from numpy import ndarray
from torch import nn

M = TypeVar("M", bound=nn.Module)


class TrainBatch(Protocol):
    """What module(batch, coefficients) reads; counts: how many items each term sums over."""

    @property
    def counts(self) -> Mapping[str, int]: ...
    @property
    def tokens(self) -> int: ...
    @property
    def flops(self) -> float: ...

    def to(self, device: torch.device) -> "TrainBatch": ...


class Trainable(Protocol[M]):
    """What is trained, and on what.

    module(batch, coefficients) -> (loss, sums), loss = sum of coefficients[name] * sums[name].
    validation: batches or functions that return one; the same list on every rank.
    """

    module: M
    weights: dict[str, float]
    normalize: str
    measured: dict[str, float]  # what validations measure beside: each with the weight 0

    @property
    def validation(self) -> Sequence[TrainBatch | Callable[[], TrainBatch]]: ...

    def weights_at(self, step: int) -> dict[str, float]: ...  # an update; the first is 1

    def batches(self, ids: ndarray) -> TrainBatch:
        """One micro batch of samples (int64), in a thread or a process: no global generator."""

    @property
    def score_names(self) -> Sequence[str]: ...  # of scores()

    def scored(self, step: int) -> int:
        """How many texts are decoded and scored at this validation; 0: scores() is not asked."""

    def scores(self, module: M, tick: Callable[[], None]) -> dict[str, float]:
        """Scores of them by name; rank 0 only, from a copy on the CPU.  tick: a text is done."""

    @property
    def shows_samples(self) -> bool: ...  # else samples() is not asked

    def samples(self, module: M) -> str:
        """Decoded validation text as markdown; rank 0 only, from a copy on the CPU."""

    def export(self, module: M, folder: Path) -> None:
        """Write model.safetensors and what is needed to use it; rank 0 only."""
