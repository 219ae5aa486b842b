"""The one training loop, for pretraining and fine-tuning: step, log, validate, save, go on."""

import json
import math
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import fmean
from typing import Any, Generic, Protocol, TypeVar

import torch
from numpy import ndarray
from torch import nn

from januslm.cli.progress import duration
from januslm.config import Refused
from januslm.data.prefetch import ahead
from januslm.data.sampler import portions
from januslm.training.checkpoint import newest, on_rank0, rng_state, set_rng_state
from januslm.training.engine import RESUME, Engine, OptimizerSettings, Values, World, read
from januslm.training.log import Log
from januslm.training.lr_schedule import ScheduleSettings, check, rate
from januslm.training.machine import asked_to_stop, memory, peak_flops
from januslm.training.run_dir import IDENTITY, exported, mark, opened
from januslm.training.settings import TrainSettings
from januslm.training.tensorboard import TensorBoard

REPORT_EVERY = 5.0  # seconds between two lines for people

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

    @property
    def validation(self) -> Sequence[TrainBatch | Callable[[], TrainBatch]]: ...

    def weights_at(self, step: int) -> dict[str, float]: ...  # an update; the first is 1

    def batches(self, ids: ndarray) -> TrainBatch:
        """One micro batch of samples (int64), in a thread or a process: no global generator."""

    def samples(self, module: M) -> str | None:
        """Decoded validation text as markdown; rank 0 only."""

    def export(self, module: M, folder: Path) -> None:
        """Write model.safetensors and what is needed to use it; rank 0 only."""


@dataclass(frozen=True)
class RunPlan:
    """A run: its folder, its settings, and the tables of `config` that may never change in it."""

    folder: Path
    train: TrainSettings
    optimizer: OptimizerSettings
    schedule: ScheduleSettings
    ds: Path
    config: dict
    identity: tuple[str, ...] = IDENTITY


@dataclass
class Outcome:
    """How it ended: `code` is the process' exit code, 0 or RESUME."""

    code: int = 0
    step: int = 0
    loss: float = math.nan
    validation: dict[str, float] = field(default_factory=dict)


def train(plan: RunPlan, job: Trainable[M], world: World) -> Outcome:
    """Train until plan.train.steps, from the newest complete checkpoint if there is one."""
    log, settings = Log(plan.folder, world.first), plan.train
    check(plan.schedule, settings.steps, str(plan.folder))
    identity = plan.identity
    if finished := on_rank0(lambda: opened(plan.folder, plan.config, identity, settings.steps)):
        log.line(f"{plan.folder} is done: step {finished['step']:,}, loss {finished['loss']:.4f}")
        return Outcome(0, finished["step"], finished["loss"], finished["validation"])
    found, skipped = newest(plan.folder / "checkpoints")
    for line in skipped:
        log.line(f"skipped: {line}")
    step = found.step if found else 0
    # Dropout differs by rank; after a checkpoint of as many ranks, Engine restores the states.
    torch.manual_seed(((settings.seed << 20) + step) * 4096 + world.rank)
    values = Values(settings.batch, settings.accumulate, settings.clip, plan.optimizer)
    engine = Engine(job.module, values, read(plan.ds), world, str(plan.ds), found)
    for file in ("train", "valid"):
        on_rank0(lambda file=file: log.rewind(file, step))
    board = TensorBoard(plan.folder / "board", world.first, step)
    board.text(step, "config", f"```json\n{json.dumps(plan.config, indent=1)}\n```")
    if found:
        log.line(f"going on from {found.folder.name}, after {found.manifest['samples']:,} samples")
        if found.manifest["world"] != world.size:
            log.line(f"it was written by {found.manifest['world']} processes, now: {world.size}")
    try:
        outcome = Trainer(plan, job, engine, log, board, found.manifest if found else {}).go()
        engine.close()
        return outcome
    finally:
        board.close()


class Trainer(Generic[M]):
    """The state of a run between two updates."""

    def __init__(
        self, plan: RunPlan, job: Trainable[M], engine: Engine[M], log: Log, board, manifest: dict
    ):
        self.plan, self.job, self.engine, self.log, self.board = plan, job, engine, log, board
        self.settings, self.world = plan.train, engine.world
        self.step = manifest.get("step", 0)
        self.samples = manifest.get("samples", 0)
        self.skipped, self.bad = manifest.get("skipped", 0), 0  # in all, in a row
        self.result: dict[str, Any] = {"loss": math.nan, "terms": {}}
        self.validation: dict[str, float] = manifest.get("validation", {})
        self.saved = self.step if manifest else None
        self.peak = plan.train.peak_flops or peak_flops(engine.device, engine.products)
        self.since: list[dict] = []  # results since the last record
        self.recorded = self.began = time.monotonic()
        self.reported = 0.0
        self.first_step, self.tokens = self.step, 0  # of this process

    def go(self) -> Outcome:
        steps = self.settings.steps
        if not self.step:
            self.validate()
        with asked_to_stop() as asked, self.batches() as batches:
            while self.step < steps:
                self.update(batches)
                stop = self.engine.reduce({"stop": len(asked)}, largest=True)["stop"] > 0
                last = self.step == steps
                if last or self.step % self.settings.validate_every == 0:
                    self.validate()
                if last or stop or self.step % self.settings.save_every == 0:
                    self.save()
                if stop and not last:
                    why = signal.Signals(asked[0]).name if asked else "a signal to another rank"
                    self.log.line(f"stopped by {why} and saved; start the same command to go on")
                    return self.outcome(RESUME)
        if self.saved != steps:  # the last checkpoint was there, the mark that it is done was not
            self.save()
        self.export()
        outcome = self.outcome(0)
        on_rank0(lambda: mark(self.plan.folder, asdict(outcome)))
        self.log.line(f"done: step {steps:,}, loss {outcome.loss:.4f}")
        return outcome

    def outcome(self, code: int) -> Outcome:
        return Outcome(code, self.step, self.result["loss"], self.validation)

    def batches(self) -> AbstractContextManager[Iterator[list[TrainBatch]]]:
        """The micro batches of this rank for each update to come, packed while others train."""
        workers = self.settings.workers
        if workers is None:  # a GPU waits for each kernel this interpreter launches
            workers = int(self.engine.device.type == "cuda")
        s, world = self.settings, self.world
        left = s.steps - self.step
        mine = portions(self.samples, left, s.batch, s.accumulate, world.rank, world.size)
        return ahead(lambda ids: [self.job.batches(part) for part in ids], mine, workers)

    def update(self, batches: Iterator[list[TrainBatch]]) -> None:
        began = time.monotonic()
        batch = next(batches)
        waited = time.monotonic() - began
        self.step += 1
        lr = rate(self.plan.schedule, self.plan.optimizer.lr, self.step, self.settings.steps)
        result = self.engine.step(batch, self.job.weights_at(self.step), self.job.normalize, lr)
        self.result = result | {"lr": lr, "wait": waited}
        self.since.append(self.result)
        self.samples += self.settings.batch
        self.tokens += self.result["tokens"]
        self.skipped += self.result["skipped"]
        self.bad = self.bad + 1 if self.result["skipped"] else 0
        last = self.step == self.settings.steps
        if self.step % self.settings.log_every == 0 or last or self.bad == self.settings.bad_steps:
            self.record()
        if (
            last
            or self.step == self.first_step + 1
            or time.monotonic() - self.reported > REPORT_EVERY
        ):
            self.report()
        if self.bad == self.settings.bad_steps:
            raise Refused(
                f"{self.plan.folder}: the loss or its gradient was not finite {self.bad} times in "
                f"a row, up to step {self.step}: lower optimizer.lr, lengthen schedule.warmup or "
                "lower train.clip; the checkpoints before it are untouched"
            )

    def record(self) -> None:
        """One line in train.jsonl and one point on each curve: means since the last record."""
        now, good = time.monotonic(), [r for r in self.since if not r["skipped"]]
        seconds = max(now - self.recorded, 1e-9)
        flops = sum(r["flops"] for r in self.since)
        numbers = {"loss": fmean([r["loss"] for r in good] or [math.nan])}
        for name in self.job.weights:
            if values := [r["terms"][name] for r in good if name in r["terms"]]:
                numbers[name] = fmean(values)
        numbers |= {
            "grad_norm": fmean([r["grad_norm"] for r in good] or [math.nan]),
            "lr": self.result["lr"],
            "tokens_per_second": sum(r["tokens"] for r in self.since) / seconds,
            "mfu": flops / seconds / (self.peak * self.world.size),
            "data_wait": sum(r["wait"] for r in self.since) / seconds,
            "seconds_per_step": seconds / len(self.since),
            "memory_gb": memory(self.engine.device),
            "skipped": self.skipped,
        }
        self.log.record("train", step=self.step, samples=self.samples, **numbers)
        self.board.numbers(self.step, **{k: v for k, v in numbers.items() if math.isfinite(v)})
        self.since, self.recorded = [], now

    def report(self) -> None:
        self.reported = now = time.monotonic()
        made = self.step - self.first_step
        left = (now - self.began) / made * (self.settings.steps - self.step)
        r = self.result
        terms = " ".join(f"{name} {value:.3f}" for name, value in r["terms"].items())
        self.log.line(
            f"step {self.step:,}/{self.settings.steps:,} | loss {r['loss']:.4f} | {terms} | "
            f"lr {r['lr']:.2e} | {self.tokens / (now - self.began):,.0f} tok/s | "
            f"{f'{self.skipped} skipped | ' if self.skipped else ''}eta {duration(left)}"
        )

    def validate(self) -> None:
        """Every term on the same batches each time; training's random state is left alone."""
        before, paused, job = rng_state(), time.monotonic(), self.job
        torch.manual_seed(self.settings.seed)
        items, size, rank = list(job.validation), self.world.size, self.world.rank
        if items:
            mine = items[rank::size]
            company = [items[0]] * (-(-len(items) // size) - len(mine))
            made = [item() if callable(item) else item for item in mine + company]
            self.validation = self.engine.evaluate(made, job.weights, job.normalize, len(mine))
            self.log.record("valid", step=self.step, **self.validation)
            self.board.numbers(self.step, **{f"valid/{k}": v for k, v in self.validation.items()})
            shown = " | ".join(f"{name} {value:.4f}" for name, value in self.validation.items())
            self.log.line(f"validation at step {self.step:,} | {shown}")
        with self.engine.gathered_copy() as module:
            on_rank0(lambda: self._samples(module))
        set_rng_state(before)
        self._pause(time.monotonic() - paused)

    def _samples(self, module: M | None) -> None:
        assert module is not None, "rank 0 has the copy"
        if text := self.job.samples(module):
            self.board.text(self.step, "samples", text)
            self.board.flush()

    def save(self) -> None:
        began = time.monotonic()
        facts = {
            "samples": self.samples,
            "skipped": self.skipped,
            "validation": self.validation,
            "config": self.plan.config,
            "torch": torch.__version__,
        }
        root = self.plan.folder / "checkpoints"
        folder = self.engine.save(root, self.step, facts, self.settings.keep)
        self.saved = self.step
        self.log.line(f"saved {folder}")
        if self.settings.export == "save" or self.settings.exports:
            self.export()
        self._pause(time.monotonic() - began)

    def export(self) -> None:
        folder, keep = self.plan.folder, self.settings.exports
        with self.engine.gathered_copy() as module:
            on_rank0(lambda: exported(folder, self.step, keep, module, self.job.export))

    def _pause(self, seconds: float) -> None:
        """Keep time that was not training out of the speeds."""
        self.recorded += seconds
        self.began += seconds
