"""What a run trains on: examples by global id, packed; validation, decoded samples, export."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Protocol

import numpy as np
import torch

from januslm.config import Refused
from januslm.data.sampler import sample_rng
from januslm.data.tokenizer import Tokenizer
from januslm.inference.incremental import IncrementalDecoder
from januslm.interop import native
from januslm.model.config import ModelConfig
from januslm.model.joint_loss import ModelWithLoss
from januslm.model.packing import Batch, Packer
from januslm.model.transformer import Seq2Seq, flops
from januslm.objective import Objective
from januslm.training.samples import Samples
from januslm.training.settings import PackingSettings

Read = Callable[[np.ndarray], list]
Tick = Callable[[], None]
VALID_IDS = 1 << 62  # validation's noise comes from sample ids that no training step reaches


class Scorer(Protocol):
    """Validation texts that a model decodes, and what they are scored by."""

    @property
    def names(self) -> Sequence[str]: ...  # of the scores

    def texts(self, step: int) -> int:
        """How many are decoded at this validation."""

    def scores(self, model: Seq2Seq, tick: Tick) -> dict[str, float]:
        """Decode and score them on the model's device; tick: called for each text."""


@dataclass
class Job:
    """januslm.training.trainer.Trainable: texts and an objective around one model."""

    module: ModelWithLoss
    objective: Objective
    tokenizer_file: Path
    tokenizer: Tokenizer
    read: Read
    read_valid: Read
    valid_size: int
    seed: int
    packing: PackingSettings
    device: torch.device
    about: dict
    scorer: Scorer | None = None
    weights: dict[str, float] = field(init=False)
    normalize: str = field(init=False)
    measured: dict[str, float] = field(init=False)

    def __post_init__(self):
        self.weights = self.objective.loss.weights
        self.normalize = self.objective.loss.normalize
        config, cuda = self.config, self.device.type == "cuda"
        row = self.packing.row if cuda else 0
        if row and config.attention_dropout:
            raise Refused(
                "model.attention_dropout must be 0 with FlexAttention, which has none, got "
                f"{config.attention_dropout}; or set packing.row = 0 for dense attention"
            )
        token = config.length == "token"
        self._pack = Packer(self.weights, self.packing.encoder_passes, row or None, token)
        self.measured = dict.fromkeys(self.objective.measured, 0.0)
        self._pack_valid = replace(self._pack, weights=self.weights | self.measured)

    @property
    def config(self) -> ModelConfig:
        """The model's."""
        return self.module.model.config

    def batches(self, ids: np.ndarray) -> Batch:
        """One micro batch of these training samples."""
        pairs = self.read(ids)
        return batch_of(self._pack, self.objective, pairs, ids, self.seed, self.config)

    def weights_at(self, step: int) -> dict[str, float]:
        """See januslm.objective.Loss.at."""
        return self.objective.loss.at(step)

    @property
    def validation(self) -> list[Callable[[], Batch]]:
        """The same batches each time: the first `valid_size` validation samples, fixed noise."""
        size, micro = self.valid_size, self.packing.valid_micro
        return [
            partial(self._valid_batch, np.arange(start, min(start + micro, size)))
            for start in range(0, size, micro)
        ]

    def _valid_batch(self, ids: np.ndarray) -> Batch:
        pairs = self.read_valid(ids)
        # The noise is the same whatever the run's seed, so that runs can be compared.
        return batch_of(self._pack_valid, self.objective, pairs, VALID_IDS + ids, 0, self.config)

    @property
    def score_names(self) -> Sequence[str]:
        """The names of what is scored at validations."""
        return self.scorer.names if self.scorer else ()

    def scored(self, step: int) -> int:
        """How many texts are decoded and scored at a validation."""
        return self.scorer.texts(step) if self.scorer else 0

    def scores(self, module: ModelWithLoss, tick: Tick) -> dict[str, float]:
        """The scores of these texts, decoded where training happens."""
        assert self.scorer, "scored() says that there is one"
        try:
            return self.scorer.scores(module.model.to(self.device), tick)
        finally:
            module.model.to("cpu")

    @property
    def shows_samples(self) -> bool:
        """Whether there are validation texts to be decoded."""
        return bool(min(self.packing.samples, self.valid_size))

    def samples(self, module: ModelWithLoss) -> str:
        """Validation texts beside what the model writes for them, pass by pass, as markdown."""
        pairs = self.read_valid(np.arange(min(self.packing.samples, self.valid_size)))
        examples = [
            self.objective.example(source, target, np.random.default_rng(number))
            for number, (source, target) in enumerate(pairs)
        ]
        knows_lengths = "ce/length" in self.weights
        decoder = IncrementalDecoder(module.model, self.objective)
        return Samples(decoder, self.tokenizer, knows_lengths).page(examples)

    def export(self, module: ModelWithLoss, target: Path) -> None:
        """The model in januslm's own format (interop/native.py)."""
        native.write(
            target,
            module.model,
            self.tokenizer_file,
            self.objective.name,
            self.objective.options,
            self.about,
        )


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
