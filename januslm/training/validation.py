"""A look at the validation set between two updates: losses, scores, samples, the best weights."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

import torch
from torch import nn

from januslm.config import Refused, suggest
from januslm.training import run_dir
from januslm.training.boards import VALID, Board
from januslm.training.checkpoint import on_rank0, rng_state, set_rng_state
from januslm.training.engine import Engine
from januslm.training.goals import Goals
from januslm.training.log import Log
from januslm.training.trainable import Trainable, TrainBatch
from januslm.training.watchdog import Watchdog

M = TypeVar("M", bound=nn.Module)


@dataclass(frozen=True)
class _Watched:
    """A batch of a long validation, each of which is progress."""

    batch: TrainBatch
    touch: Callable[[], None]

    @property
    def counts(self) -> Mapping[str, int]:
        return self.batch.counts

    def to(self, device: torch.device) -> TrainBatch:
        self.touch()
        return self.batch.to(device)


@dataclass
class Validation(Generic[M]):
    """look(step) may be called on all ranks at once; training's random state is left alone.

    Losses are computed by all ranks, each its share.  Texts are decoded by rank 0 alone, from a
    copy of the weights that all ranks gather: so it works at every ZeRO stage.
    """

    job: Trainable[M]
    engine: Engine[M]
    goals: Goals
    seed: int
    log: Log
    board: Board
    watchdog: Watchdog

    def look(self, step: int) -> dict[str, float]:
        """What was found, by its name in valid.jsonl; {} where there is nothing to validate on."""
        before = rng_state()
        torch.manual_seed(self.seed)
        found = self._losses(step)
        texts, waits = self.job.scored(step), self.goals.keep is not None
        samples = self.job.shows_samples and step > 0  # an untrained model's would say nothing
        if texts or samples:
            with self.engine.gathered_copy() as module:
                if texts:
                    found |= self._scores(module, step, texts)
                self._compare(step, found)
                self._export(module, step)
                if samples:
                    self.watchdog.enter("decoding samples", step)
                    on_rank0(lambda: self._samples(module, step))
        else:
            self._compare(step, found)
            if waits and self.goals.better:
                with self.engine.gathered_copy() as module:
                    self._export(module, step)
        if found:
            self.log.record("valid", step=step, **found)
            self.board.numbers(step, **{f"{VALID}{name}": one for name, one in found.items()})
            shown = " | ".join(f"{name} {value:.4f}" for name, value in found.items())
            best = " | best so far" if self.goals.better else ""
            self.log.line(f"validation at step {step:,} | {shown}{best}")
        set_rng_state(before)
        return found

    def _losses(self, step: int) -> dict[str, float]:
        """The loss and every term on the same batches each time."""
        items, world = list(self.job.validation), self.engine.world
        if not items:
            return {}
        mine = items[world.rank :: world.size]
        company = [items[0]] * (-(-len(items) // world.size) - len(mine))
        self.watchdog.enter("packing what it validates on", step, len(mine) + len(company))
        made = []
        for item in mine + company:
            made.append(item() if callable(item) else item)
            self.watchdog.touch()
        self.watchdog.enter("validating", step, len(made))
        watched: list = [_Watched(batch, self.watchdog.touch) for batch in made]
        terms = self.job.weights | self.job.measured
        return self.engine.evaluate(watched, terms, self.job.normalize, len(mine))

    def _scores(self, module: M | None, step: int, texts: int) -> dict[str, float]:
        self.watchdog.enter("decoding what it validates on", step, texts)

        def tick() -> None:
            self.watchdog.touch()

        def scores() -> dict[str, float]:
            assert module is not None, "rank 0 has the copy"
            return self.job.scores(module, tick)

        return on_rank0(scores)

    def _compare(self, step: int, found: Mapping[str, float]) -> None:
        for key, best in (("keep_best", self.goals.keep), ("stop_by", self.goals.stop)):
            if step and best and best.name not in found:
                hint = suggest(best.name, found)
                raise Refused(f"train.{key}: no {best.name!r} was validated{hint}")
        self.goals.met(step, found)

    def _export(self, module: M | None, step: int) -> None:
        """The weights that are the best so far, beside the last."""
        best = self.goals.keep
        if best is None or not self.goals.better:
            return
        self.watchdog.enter("exporting the best weights", step)

        def write() -> None:
            run_dir.exported_best(self.log.folder, best.state, module, self.job.export)

        on_rank0(lambda: self.log.borne(run_dir.BEST, write))

    def _samples(self, module: M | None, step: int) -> None:
        assert module is not None, "rank 0 has the copy"
        self.board.text(step, "samples", self.job.samples(module))
