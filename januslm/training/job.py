"""What a run trains on: examples by global id, packed; validation, decoded samples, export."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import nn

from januslm.config import Refused, setting
from januslm.data.tokenizer import Tokenizer
from januslm.decoding import greedy, mask_predict
from januslm.inference.incremental import IncrementalDecoder
from januslm.interop import native
from januslm.layout import NONE
from januslm.model.packing import Batch, Example, Packer
from januslm.model.transformer import ModelConfig
from januslm.objective import ModelWithLoss, Objective, batch_of

Read = Callable[[np.ndarray], list]
VALID_IDS = 1 << 62  # validation's noise comes from sample ids that no training step reaches


@dataclass(frozen=True)
class PackingSettings:
    """[packing]: how examples share rows."""

    encoder_passes: int = setting(1, low=1, high=2)  # 2: the reference's, one per block of streams
    row: int = setting(8192, low=0)  # slots per row for FlexAttention; 0: dense plans on GPUs too
    valid_micro: int = setting(32, low=1)  # validation examples per batch
    samples: int = setting(4, low=0)  # validation texts that are decoded for TensorBoard


@dataclass
class Job:
    """januslm.training.trainer.Work: texts and an objective around one model."""

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
    weights: dict[str, float] = field(init=False)
    normalize: str = field(init=False)

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
        if config.positions == "rotary" and _starts_from_masks_alone(self.objective):
            other = ", or objective.ends true" if "ends" in self.objective.options else ""
            raise Refused(
                f"model.positions must be learned or sinusoidal{other} for "
                f"{self.objective.name!r}: it writes from masks alone, which rotary positions "
                "cannot tell apart"
            )
        self._pack = Packer(self.weights, self.packing.encoder_passes, row or None)

    @property
    def config(self) -> ModelConfig:
        """The model's."""
        return self.module.model.config

    def batches(self, ids: np.ndarray) -> Batch:
        """One micro batch of these training samples."""
        pairs = self.read(ids)
        return batch_of(self._pack, self.objective, pairs, ids, self.seed, self.config)

    def weights_at(self, step: int) -> dict[str, float]:
        """See LossSettings.at."""
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
        return batch_of(self._pack, self.objective, pairs, VALID_IDS + ids, 0, self.config)

    def samples(self, module: nn.Module) -> str | None:
        """Validation texts beside what the model writes for them, AR and NAR, as a table."""
        count = min(self.packing.samples, self.valid_size)
        if not count:
            return None
        ids = np.arange(count)
        examples = [
            self.objective.example(*pair, np.random.default_rng(int(i)))
            for pair, i in zip(self.read_valid(ids), ids, strict=True)
        ]
        decoder = IncrementalDecoder(module.model, self.objective)
        columns = {"source": [e.source for e in examples], "target": [e.target for e in examples]}
        for title, outputs in self._written(decoder, examples):
            columns[title] = [out.tokens for out in outputs]
        return self._table(columns)

    def _written(self, decoder: IncrementalDecoder, examples: list[Example]):
        """What each way of writing makes of the sources that this objective has taught."""
        sources, special = [e.source for e in examples], self.objective.special
        if {"next", "past"} & set(self.objective.plugin.STREAMS):
            longest = max(len(e.target) for e in examples)
            yield "AR (greedy)", greedy.decode(decoder, sources, special, max_length=longest)
        if self.objective.template is None:
            return
        for passes in (1, 4):
            if "ce/length" in self.weights:
                outputs = mask_predict.decode(decoder, sources, special, iterations=passes)
                yield f"NAR (iterations: {passes})", outputs
                continue
            # Nobody has taught this model to tell lengths, as the pretraining preset does not.
            known = torch.tensor([[len(e.target)] for e in examples], device=self.device)
            hide = mask_predict.schedule(passes)
            with torch.inference_mode():
                state = decoder.start(sources)
                outputs = mask_predict.write(decoder, state, special, known, hide, True)
            yield f"NAR (iterations: {passes}, length given)", outputs

    def _table(self, columns: dict[str, list]) -> str:
        lines = ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
        for row in zip(*columns.values(), strict=True):
            cells = (self.tokenizer.decode(tokens).replace("|", "\\|") for tokens in row)
            lines.append("| " + " | ".join(" ".join(c.split()) for c in cells) + " |")
        return "\n".join(lines)

    def export(self, module: nn.Module, target: Path) -> None:
        """The model in januslm's own format (interop/native.py)."""
        native.write(
            target, module.model, self.tokenizer_file, self.objective.name,
            self.objective.options, self.about,
        )  # fmt: skip


def _starts_from_masks_alone(objective: Objective) -> bool:
    template = objective.template
    return template is not None and bool((template(9).goal != NONE).all())
