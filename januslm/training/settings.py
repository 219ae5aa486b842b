"""[train] and [packing] of a run file: read and checked without torch."""

from dataclasses import dataclass, field
from typing import Literal

from januslm.config import Refused, setting
from januslm.model.config import ModelConfig


@dataclass(frozen=True)
class TrainSettings:
    """How long, in which portions, and how often to look and to save; steps are updates."""

    steps: int = setting(low=1)  # updates
    batch: int = setting(256, low=1)  # examples per update, over all processes
    accumulate: int = setting(1, low=1)  # micro batches per update and process
    clip: float = setting(1.0, low=0)  # largest norm of the gradient; 0 does not clip
    seed: int = setting(1, low=0)  # of weights, order and noise: the same seed is the same run
    log_every: int = setting(10, low=1)  # updates between two lines of the log
    validate_every: int = setting(1000, low=1)  # updates between two looks at the validation set
    save_every: int = setting(1000, low=1)  # updates between two checkpoints
    # async: training goes on while a copy in host memory is written; sync: it waits, and needs none
    save: Literal["async", "sync"] = "async"
    keep: int = setting(2, low=1)  # checkpoints that stay on the disk
    keep_every: int = setting(0, low=0)  # and those at a multiple of so many updates; 0: none
    export: Literal["end", "save"] = "end"  # when to write export/model.safetensors
    exports: int = setting(0, low=0)  # more than 0: at each save, and so many stay, for averaging
    # a name of valid.jsonl, e.g. "bleu": weights of its best validation are in best/; losses are
    # best when low, scores when high, unless NAME:lower or NAME:higher says it
    keep_best: str = ""
    # validations without a better value until the run ends early; 0: it does not
    patience: int = setting(0, low=0)
    stop_by: str = ""  # of this name, written as keep_best, which holds if it is ""; else "loss"
    # where curves are drawn: tensorboard, wandb, trackio (the latter are extras to be installed)
    boards: list[str] = field(default_factory=lambda: ["tensorboard"])
    # processes that pack, per rank; 0: a thread; GPUs: 1
    workers: int | None = setting(None, low=0, high=1024)
    bad_steps: int = setting(10, low=1)  # updates in a row that may be skipped as not finite
    timeout: float = setting(1800.0, above=0)  # seconds without progress until a run ends itself
    # per process, for the utilisation; else measured
    peak_flops: float | None = setting(None, above=0)


@dataclass(frozen=True)
class PackingSettings:
    """[packing]: how examples share rows."""

    encoder_passes: int = setting(1, low=1, high=2)  # 2: the reference's, one per block of streams
    row: int = setting(8192, low=0)  # slots per row for FlexAttention; 0: dense plans on GPUs too
    valid_micro: int = setting(32, low=1)  # validation examples per batch
    samples: int = setting(4, low=0)  # validation texts that are decoded for TensorBoard

    def check(self, model: ModelConfig, where: str) -> None:
        """Refuse what has no effect on such a model."""
        if self.encoder_passes > 1 and not model.has_encoder:
            raise Refused(
                f"{where}: packing.encoder_passes = {self.encoder_passes} needs an encoder, and "
                "model.encoder_layers is 0; take it out"
            )
