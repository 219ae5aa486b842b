"""The one training loop, for pretraining and fine-tuning: step, log, validate, save, go on."""

import math
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import fmean
from typing import Any, Generic, TypeVar

import torch
from torch import nn

from januslm.config import Refused
from januslm.data.prefetch import ahead
from januslm.data.sampler import portions
from januslm.training import history, run_dir
from januslm.training.boards import Board, Boards, charts
from januslm.training.checkpoint import Saving, Shelf, newest, on_rank0
from januslm.training.engine import RESUME, Engine, OptimizerSettings, Values, World, read
from januslm.training.goals import Goals
from januslm.training.hosted import Hosted
from januslm.training.log import Log
from januslm.training.lr_schedule import ScheduleSettings, check, rate
from januslm.training.machine import StopRequest, memory, peak_flops
from januslm.training.manifest import Found, Keep
from januslm.training.pace import Pace
from januslm.training.pulse import Pulse
from januslm.training.run_lock import RunLock
from januslm.training.settings import TrainSettings
from januslm.training.status import Status
from januslm.training.tensorboard import TensorBoard
from januslm.training.trainable import Trainable, TrainBatch
from januslm.training.validation import Validation
from januslm.training.watchdog import Watchdog

M = TypeVar("M", bound=nn.Module)


@dataclass(frozen=True)
class RunPlan:
    """A run: its folder, its settings, and all that it is known by when it goes on."""

    folder: Path
    train: TrainSettings
    optimizer: OptimizerSettings
    schedule: ScheduleSettings
    ds: Path
    config: dict


@dataclass
class Guards:
    """What watches over a process that trains.  facts: of its start, for the run's history."""

    stop: StopRequest
    watchdog: Watchdog
    status: Status
    lock: RunLock | None = None
    start: run_dir.Start = field(default_factory=run_dir.Start)
    facts: dict = field(default_factory=dict)


@dataclass
class Outcome:
    """How it ended: `code` is the process' exit code, 0 or RESUME; reason "": it was done."""

    code: int = 0
    reason: str = ""
    step: int = 0
    loss: float = math.nan
    validation: dict[str, float] = field(default_factory=dict)
    early: dict[str, Any] = field(default_factory=dict)  # goals.early, where it ended by them


def train(plan: RunPlan, job: Trainable[M], world: World, guards: Guards | None = None) -> Outcome:
    """Train until plan.train.steps, from the newest complete checkpoint if there is one."""
    settings = plan.train
    if guards is None:
        watchdog = Watchdog(plan.folder, world.rank, world.size, settings.timeout)
        guards = Guards(StopRequest(), watchdog, Status(world.first))
    log = Log(plan.folder, world.first, guards.status.line)
    check(plan.schedule, settings.steps, str(plan.folder))
    start, early = guards.start, Goals.of(settings).early
    there = on_rank0(lambda: run_dir.opened(plan.folder, plan.config, settings.steps, start, early))
    for note in there.notes:
        log.line(note)
    if finished := there.done:
        log.line(f"{plan.folder} is done: step {finished['step']:,}, loss {finished['loss']:.4f}")
        return Outcome(0, "", finished["step"], finished["loss"], finished["validation"])
    guards.watchdog.enter("looking for a checkpoint", 0)
    found = _found(plan.folder, log)
    step = found.step if found else 0
    # Dropout differs by rank; after a checkpoint of as many ranks, Engine restores the states.
    torch.manual_seed(((settings.seed << 20) + step) * 4096 + world.rank)
    values = Values(settings.batch, settings.accumulate, settings.clip, plan.optimizer)
    guards.watchdog.enter("starting DeepSpeed", step)
    engine = Engine(job.module, values, read(plan.ds), world, str(plan.ds), found)
    guards.watchdog.enter("opening its logs", step)
    for file in ("train", "valid"):
        on_rank0(lambda file=file: _rewound(log, file, step))
    if world.first:
        facts = {"step": step, "world": world.size, "saved": bool(found)} | guards.facts
        facts["changes"] = there.changes
        log.borne(history.HISTORY, lambda: history.add(plan.folder, "start", **facts))
    board = on_boards(plan, job, world, step, log)
    if found:
        log.line(f"going on from {found.folder.name}, after {found.manifest['samples']:,} samples")
        if found.manifest["world"] != world.size:
            log.line(f"it was written by {found.manifest['world']} processes, now: {world.size}")
    done = False
    try:
        with guards.stop.listening():
            outcome = Trainer(plan, job, engine, log, board, found, guards).go()
        engine.close()
        done = not outcome.code
        return outcome
    finally:
        guards.watchdog.enter("closing its logs", guards.watchdog.step)
        board.end(done)
        guards.status.end()


def on_boards(plan: RunPlan, job: Trainable, world: World, step: int, log: Log) -> Boards:
    """The boards of train.boards, with what the run is.  Refused, on all ranks, by one of them."""
    terms, place = list(job.weights), plan.folder / "board"
    made: list[Board] = []
    for name in plan.train.boards if world.first else ():
        if name == "tensorboard":
            made.append(TensorBoard(place, True, step, log.borne))
        else:
            made.append(Hosted(name, plan.folder, log.borne))
    boards = Boards(made)
    compared = [*job.score_names, "loss", *terms]
    on_rank0(
        lambda: boards.begin(plan.config, charts(terms, [*job.measured], job.score_names), compared)
    )
    return boards


def _found(folder: Path, log: Log) -> Found | None:
    """The newest whole checkpoint, once what a kill left half done is out of the way."""
    found, skipped = newest(folder / "checkpoints")
    for line in skipped:
        log.line(f"skipped: {line}")
    if not found:
        on_rank0(lambda: run_dir.check_checkpoints(folder, skipped))
    if removed := on_rank0(lambda: run_dir.cleared(folder)):
        log.line(f"removed what was left half done: {', '.join(removed)}")
    return found


def _rewound(log: Log, file: str, step: int) -> None:
    later, damaged = log.rewind(file, step)
    if damaged:
        log.line(f"{file}.jsonl: {damaged:,} damaged lines dropped")
    if later and not step:
        log.line(f"{file}.jsonl: {later:,} lines of updates that no checkpoint has, dropped")


class Trainer(Generic[M]):
    """The state of a run between two updates."""

    def __init__(
        self,
        plan: RunPlan,
        job: Trainable[M],
        engine: Engine[M],
        log: Log,
        board: Board,
        found: Found | None,
        guards: Guards,
    ):
        manifest = found.manifest if found else {}
        self.plan, self.job, self.engine, self.log, self.board = plan, job, engine, log, board
        self.stop, self.watchdog, self.lock = guards.stop, guards.watchdog, guards.lock
        self.pulse, self.status = Pulse(), guards.status
        self.settings, self.world = plan.train, engine.world
        self.step = manifest.get("step", 0)
        self.samples = manifest.get("samples", 0)
        # in all, and in a row until now
        self.skipped, self.bad = manifest.get("skipped", 0), manifest.get("skipping", 0)
        loss = manifest.get("loss")
        self.result: dict[str, Any] = {"loss": math.nan if loss is None else loss, "terms": {}}
        self.running: dict[str, float] = {}  # of the update whose result is still to come
        self.validation: dict[str, float] = manifest.get("validation", {})
        self.saved = self.step if found else None
        self.noted_saved = False  # of this start, in the history
        keep = Keep(plan.train.keep, plan.train.keep_every)
        self.shelf = Shelf(plan.folder / "checkpoints", keep, found)
        self.saving: Saving | None = None  # is being written while training goes on
        self.peak = plan.train.peak_flops or peak_flops(engine.device, engine.products)
        self.since: list[dict] = []  # results since the last record
        self.recorded = time.monotonic()
        self.first_step = self.step  # of this process
        self.status.pace = Pace(self.recorded)
        self.goals = Goals.of(plan.train, manifest.get("goals"))
        self.look = Validation(
            job, engine, self.goals, plan.train.seed, log, board, self.watchdog
        ).look

    def go(self) -> Outcome:
        steps = self.settings.steps
        if not self.step:
            self.validate()
        self._make_up()
        with self.batches() as batches:
            while self.step < steps and not self.goals.over:
                if not self.update(batches, bool(self.stop)):
                    if self.saved != self.step:
                        self.save()
                    self.publish()
                    why = self.stop.reason or "a signal to another rank"
                    self.log.line(f"stopped by {why} and saved; start the same command to go on")
                    return self.outcome(RESUME, why)
                last = self.step == steps
                validate = last or self.step % self.settings.validate_every == 0
                save = last or self.step % self.settings.save_every == 0
                if validate or save:
                    self.take(self.engine.finish())
                if validate:
                    self.validate()
                if save or self.goals.over:
                    self.save()
        if self.saved != self.step:  # else the mark that it is done was missing alone
            self.save()
        self.publish()
        if self.bad:
            raise Refused(f"{self._not_finite()}; a run does not end as done with them")
        self.export(must=True)
        outcome = self.outcome(0, "done")
        if (why := self.goals.over) and self.step < steps:
            self.log.line(f"ends early: {why}")
            outcome.early = self.goals.early
        done = {k: v for k, v in asdict(outcome).items() if k != "reason"}
        on_rank0(lambda: run_dir.mark(self.plan.folder, done))
        self.log.line(f"done: step {self.step:,}, loss {outcome.loss:.4f}")
        return outcome

    def outcome(self, code: int, reason: str) -> Outcome:
        return Outcome(code, reason, self.step, self.result["loss"], self.validation)

    def _make_up(self) -> None:
        """Write the export that a kill between a checkpoint and its export has left out."""
        wanted = self.settings.export == "save" or self.settings.exports
        if self.saved is None or not wanted:
            return
        folder = self.plan.folder
        if on_rank0(lambda: run_dir.exported_step(folder)) != self.step:
            self.log.line(f"the export of step {self.step:,} is missing, it is made up for")
            self.export()

    def batches(self) -> AbstractContextManager[Iterator[list[TrainBatch]]]:
        """The micro batches of this rank for each update to come, packed while others train."""
        workers = self.settings.workers
        if workers is None:  # a GPU waits for each kernel this interpreter launches
            workers = int(self.engine.device.type == "cuda")
        s, world = self.settings, self.world
        left = s.steps - self.step
        mine = portions(self.samples, left, s.batch, s.accumulate, world.rank, world.size)
        return ahead(lambda ids: [self.job.batches(part) for part in ids], mine, workers)

    def update(self, batches: Iterator[list[TrainBatch]], stop: bool) -> bool:
        """One update; False, and nothing done, where a rank was asked to stop."""
        began = time.monotonic()
        self.watchdog.enter("waiting for its data", self.step + 1)
        batch = next(batches)
        waited = time.monotonic() - began
        self.watchdog.enter("updating", self.step + 1)
        weights = self.job.weights_at(self.step + 1)
        written = bool(self.saving and self.saving.written)
        agreed = self.engine.agree(batch, weights, {"stop": stop, "written": written})
        self.take(agreed.finished)
        if agreed.asked["written"] == self.world.size:
            self.publish(wait=False)
        if agreed.asked["stop"] and self.step:
            return False
        self.step += 1
        lr = rate(self.plan.schedule, self.plan.optimizer.lr, self.step, self.settings.steps)
        self.engine.step(batch, agreed.counts, weights, self.job.normalize, lr)
        self.running = {"lr": lr, "wait": waited}
        return True

    def take(self, result: dict | None) -> None:
        """What came of update `step`, known with the next one, or before a save; None: is known."""
        if result is None:
            return
        self.result = result | self.running
        self.since.append(self.result)
        if result["skipped"]:
            self._note_skipped()
        self.samples += self.settings.batch
        self.status.pace.updated(self.result["tokens"], time.monotonic())
        self.skipped += self.result["skipped"]
        self.bad = self.bad + 1 if self.result["skipped"] else 0
        self.watchdog.updated()
        self.pulse.beat(self.step)
        if self.lock:
            self.lock.note(self.step)
        last = self.step == self.settings.steps
        if self.step % self.settings.log_every == 0 or last or self.bad == self.settings.bad_steps:
            self.record()
        self.report(last or self.step == self.first_step + 1)
        if self.bad >= self.settings.bad_steps:
            self.publish()
            raise Refused(self._not_finite())

    def _note_skipped(self) -> None:
        """Which samples, by rank, were in an update that changed nothing: `januslm replay`."""
        s, world = self.settings, self.world
        ranks = []
        for rank in range(world.size):
            parts = next(portions(self.samples, 1, s.batch, s.accumulate, rank, world.size))
            ranks.append([[int(part[0]), int(part[-1])] for part in parts if len(part)])
        # A term without a slot in the batch is not among them.
        terms = [name for name, value in self.result["terms"].items() if not math.isfinite(value)]
        facts = {
            "step": self.step,
            "samples": [self.samples, self.samples + s.batch - 1],
            "ranks": ranks,
            "terms": terms or ["the gradient"],
        }
        if self.world.first:
            folder = self.plan.folder
            self.log.borne(history.HISTORY, lambda: history.add(folder, "skipped", **facts))

    def _not_finite(self) -> str:
        """The line for a run that diverges; all ranks look for a checkpoint from before that."""
        good, _ = newest(self.plan.folder / "checkpoints", good=True)
        kept = "no whole checkpoint was written before that"
        if good:
            kept = f"the newest checkpoint from before that is {good.folder}, checked now and whole"
        return (
            f"{self.plan.folder}: the loss or its gradient was not finite {self.bad} times in "
            f"a row, up to step {self.step:,}: lower optimizer.lr, lengthen schedule.warmup or "
            f"lower train.clip; {kept}; januslm replay {self.plan.folder} {self.step} shows which "
            "examples are not finite"
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

    def report(self, say: bool) -> None:
        """How far it is, for people.  say: in a line, whenever the last one was."""
        steps, every = self.settings.steps, self.settings.validate_every
        looks = -(-steps // every) - self.step // every
        self.status.trained(self.step, steps, looks, self.result, self.skipped, say)

    def validate(self) -> None:
        began = time.monotonic()
        self.validation = self.look(self.step) or self.validation
        self._pause(time.monotonic() - began, validation=True)

    def save(self) -> None:
        self.watchdog.enter("saving", self.step)
        began, loss = time.monotonic(), self.result["loss"]
        facts = {
            "samples": self.samples,
            "skipped": self.skipped,
            "skipping": self.bad,  # updates in a row, until now, that were skipped
            "loss": loss if math.isfinite(loss) else None,
            "validation": self.validation,
            "goals": self.goals.state,
            "config": self.plan.config,
            "torch": torch.__version__,
        }
        self.publish()  # the one before, if it is still being written
        beside = self.settings.save == "async"
        # While updates are skipped the weights may be spoilt: nothing makes room for them.
        prune = not self.bad
        self.saving = self.engine.save(self.shelf, self.step, facts, beside, prune)
        self.saved = self.step
        if not beside:
            self.publish()
        if self.settings.export == "save" or self.settings.exports:
            self.export()
        self._pause(time.monotonic() - began)

    def publish(self, wait: bool = True) -> None:
        """Wait for the checkpoint that is being written, if there is one, and make it count.

        wait: also until what was pruned is off the disk.
        """
        if not (saving := self.saving):
            if wait:
                self.shelf.finish()
            return
        self.saving = None
        self.watchdog.enter("saving", self.step)
        folder, notes = saving.publish(wait)
        if self.world.first and not self.noted_saved:
            facts = {"step": saving.step}
            self.log.borne(history.HISTORY, lambda: history.add(self.plan.folder, "saved", **facts))
        self.noted_saved = True
        for line in [f"saved {folder}", *notes]:
            self.log.line(line)

    def export(self, must: bool = False) -> None:
        """Write export/.  must: refuse where the disk does not take it, else say and go on."""
        self.watchdog.enter("exporting", self.step)
        folder, keep = self.plan.folder, self.settings.exports
        with self.engine.gathered_copy() as module:

            def write() -> None:
                run_dir.exported(folder, self.step, keep, module, self.job.export)

            on_rank0(write if must else lambda: self.log.borne("export", write))

    def _pause(self, seconds: float, validation: bool = False) -> None:
        """Keep time that was not training out of the speeds."""
        self.recorded += seconds
        self.status.pace.paused(seconds, validation)
