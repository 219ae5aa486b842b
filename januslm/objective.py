"""What is trained: examples become layouts, batches become loss terms, on one backbone."""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from types import ModuleType
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from januslm import registry
from januslm.config import Refused, setting
from januslm.data.sampler import sample_rng
from januslm.data.tokenizer import Special
from januslm.layout import Layout, Slots
from januslm.model import losses
from januslm.model.packing import Batch, Example, Packer
from januslm.model.transformer import Seq2Seq, flops


@dataclass(frozen=True)
class LossSettings:
    """How the terms become one number; what is left out is the objective's own preset."""

    weights: dict[str, float] | None = None
    smoothing: float | None = setting(None, low=0, below=1)
    normalize: Literal["term", "tokens", "microbatch"] | None = None
    detach: Literal["none", "first"] = "none"
    rise: tuple[int, ...] = setting(
        (0, 0), low=0
    )  # updates up to which KL is off, and when it is full
    chunk: int = setting(0, low=0)  # rows of logits at once; 0: as many as suit the device

    def __post_init__(self):
        if len(self.rise) != 2 or self.rise[0] > self.rise[1]:
            raise Refused(f"rise must be two updates, the first not later, got {list(self.rise)}")

    def at(self, step: int) -> dict[str, float]:
        """The weights of update `step` (the first is 1): KL terms grow in a straight line.

        Streams that have not learnt to predict have nothing to teach each other, and a strong KL
        holds them at each other's beginnings.
        """
        off, full = self.rise
        grown = min(1.0, max(0.0, (step - off) / max(full - off, 1)))
        return {n: w * grown if n.startswith("kl/") else w for n, w in self.weights.items()}


@dataclass(frozen=True)
class Objective:
    """An objective with its options resolved: how an example is made and what it is scored by."""

    name: str
    plugin: ModuleType
    options: dict
    noise: str
    hide: Callable
    noise_options: dict
    loss: LossSettings  # complete: no None
    special: Special

    def example(self, source, target: np.ndarray, rng: np.random.Generator) -> Example:
        """One training example from int64 [N] source (None: plain text) and int64 [T] target."""
        source, hidden = self.hide(source, target, self.special, rng, **self.noise_options)
        return Example(source, target, self.layout(target, hidden))

    def layout(self, target: np.ndarray, hidden: np.ndarray) -> Layout:
        """The slots of one target; `hidden` bool [T]."""
        return self.plugin.layout(target, hidden, self.special, **self.options)

    @property
    def template(self) -> Callable[[int], Slots] | None:
        """What mask-predict starts from, by its length; None for what writes word by word alone."""
        if (made := getattr(self.plugin, "template", None)) is None:
            return None
        known = inspect.signature(made).parameters
        options = {key: value for key, value in self.options.items() if key in known}
        return partial(made, special=self.special, **options)


def resolve_objective(
    table: Mapping,
    noise_table: Mapping,
    loss: LossSettings,
    preset: str,
    special: Special,
    where: str,
) -> Objective:
    """An Objective from the tables [objective], [noise] and [loss] of a run file.

    preset: "nmt" (pairs) or "pretrain" (plain text).  Raises Refused, naming key and choices.
    """
    table, noise_table = dict(table), dict(noise_table)
    if "name" not in table:
        raise Refused(f"{where}: objective.name is missing")
    name = table.pop("name")
    preset = table.pop("preset", preset)
    plugin = registry.find("januslm.objectives", name)
    if preset not in plugin.NOISE:
        raise Refused(f"{where}: objective.preset must be one of {', '.join(plugin.NOISE)}")
    options = registry.options(plugin.layout, table, f"{where}: objective")
    usual, usual_options = plugin.NOISE[preset]
    noise_name = noise_table.pop("name", usual)
    hide = registry.find("januslm.noise", noise_name).hide
    given = (usual_options if noise_name == usual else {}) | noise_table
    noise_options = registry.options(hide, given, f"{where}: noise")
    weights = plugin.weights(preset) if loss.weights is None else loss.weights
    losses.check(weights, plugin.RULE.distributions, f"{where}: loss.weights")
    loss = replace(
        loss,
        weights={k: w for k, w in weights.items() if w},
        smoothing=plugin.SMOOTHING[preset] if loss.smoothing is None else loss.smoothing,
        normalize=plugin.NORMALIZE[preset] if loss.normalize is None else loss.normalize,
    )
    return Objective(name, plugin, options, noise_name, hide, noise_options, loss, special)


class ModelWithLoss(nn.Module):
    """The module that is trained: `learner(batch, coefficients) -> (loss, sums of terms)`."""

    def __init__(self, model: Seq2Seq, loss: LossSettings):
        super().__init__()
        self.model, self.loss = model, loss

    def forward(
        self, batch: Batch, coefficients: Mapping[str, float]
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """loss = sum of coefficients[name] * sums[name]; the sums carry no gradient."""
        hidden, length_logits = self.model(batch)
        loss, sums = losses.fused(
            hidden, self.model.vocabulary_weight(), batch.loss_groups, dict(coefficients),
            smoothing=self.loss.smoothing, detach=self.loss.detach, chunk=self.loss.chunk,
        )  # fmt: skip
        if "ce/length" in coefficients:
            last = length_logits.shape[-1] - 1
            wide = torch.promote_types(length_logits.dtype, torch.float32)
            term = cross_entropy(
                length_logits.to(wide), batch.lengths.clamp(max=last), reduction="sum"
            )
            loss = loss + coefficients["ce/length"] * term
            sums["ce/length"] = term.detach()
        return loss, sums


def batch_of(
    packer: Packer, objective: Objective, pairs: list, ids: np.ndarray, seed: int, model_config
) -> Batch:
    """Pack (source, target) pairs with the global sample ids `ids`: noise comes from (seed, id)."""
    examples = [
        objective.example(source, target, sample_rng(seed, int(i)))
        for (source, target), i in zip(pairs, ids, strict=True)
    ]
    batch = packer(examples)
    return replace(batch, flops=flops(model_config, batch.sizes))
