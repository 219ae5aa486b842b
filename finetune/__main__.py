"""Fine-tune a model on a task: `python -m finetune RUN.toml [key=value ...]`."""

import argparse
import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Literal

import torch

from januslm import config, registry
from januslm.config import Refused, setting
from januslm.data.token_pairs import Limits, Pairs, prepare, summary
from januslm.data.tokenizer import Tokenizer
from januslm.interop import native
from januslm.model.transformer import ModelConfig, Seq2Seq, configure
from januslm.objective import LossSettings, ModelWithLoss, resolve_objective
from januslm.training import process
from januslm.training.checkpoint import on_rank0
from januslm.training.engine import OptimizerSettings, World
from januslm.training.job import Job, PackingSettings
from januslm.training.lr_schedule import ScheduleSettings
from januslm.training.trainer import RunPlan, TrainSettings

# What may not change while a run goes on: the same ids would mean other words, or other pairs.
IDENTITY = ("task", "tokenizer_sha256", "model", "objective", "data")
CHANGEABLE = ("dropout", "attention_dropout", "activation_checkpointing")  # of a finished model


@dataclass(frozen=True)
class FinetuneData:
    """[data]: where the task's files lie and how much of each text is read, in tokens."""

    root: str = ""  # "": what --data says; launch.sh gives $JANUSLM_DATA, else ../shared/data
    max_source: int = setting(512, low=4)
    max_target: int = setting(128, low=4)
    longer: Literal["cut", "refuse"] = "cut"
    valid_samples: int = setting(512, low=1)


@dataclass(frozen=True)
class FinetuneSettings(TrainSettings):
    """[train] of a fine-tuning run: that of any run, and a length in passes over the pairs."""

    steps: int = setting(0, low=0)  # 0: as many as `epochs` make
    epochs: float = setting(0.0, low=0)  # 0: no limit but `steps`; the first that is reached counts

    def __post_init__(self):
        if not self.steps and not self.epochs:
            raise Refused("steps is missing, or epochs")

    def until(self, pairs: int) -> "FinetuneSettings":
        """The same for a training set of so many pairs: `steps` says how long it is."""
        limits = [self.steps, math.ceil(self.epochs * pairs / self.batch)]
        return replace(self, steps=min(limit for limit in limits if limit))


@dataclass(frozen=True)
class FinetuneRun:
    """A run file of finetune/runs/."""

    out: str  # the run's folder, with logs, export/, predictions/; {task} in it is the task's name
    task: str  # a file of finetune/tasks/
    train: FinetuneSettings
    published: bool = False  # true: the task's FINETUNE holds where this file says nothing
    data: FinetuneData = field(default_factory=FinetuneData)
    start: str = ""  # a run's folder or its export/; "": from scratch, with [model] and tokenizer
    tokenizer: str = ""
    model: dict = field(default_factory=dict)
    objective: dict = field(default_factory=lambda: {"name": "janus"})
    noise: dict = field(default_factory=dict)
    loss: LossSettings = field(default_factory=LossSettings)
    optimizer: OptimizerSettings = field(default_factory=OptimizerSettings)
    schedule: ScheduleSettings = field(default_factory=ScheduleSettings)
    packing: PackingSettings = field(default_factory=PackingSettings)
    ds: str = ""


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m finetune", description=__doc__)
    parser.add_argument("run", help="a file of finetune/runs/")
    parser.add_argument("changes", nargs="*", metavar="key=value", help="e.g. train.steps=100")
    parser.add_argument("--ds", default="", help="a file of ds_configs/: how the run is spread")
    parser.add_argument("--data", default="../shared/data", help="where tasks look for their files")
    parser.add_argument("--report", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--local_rank", help=argparse.SUPPRESS)  # DeepSpeed's launcher adds it
    options = parser.parse_intermixed_args()

    def ready():
        return resolve(load(options.run, options.changes), options)

    return process.run(ready, lambda text: print(f"error: {text}", file=sys.stderr), options.report)


def load(path: str | Path, changes: Sequence[str] = ()) -> FinetuneRun:
    """A run file, over the published settings of its task if it asks for them.

    Raises Refused, naming the file and the key.
    """
    tables, where = config.tree(path, changes), str(path)
    if tables.get("published"):
        name = str(tables.get("task"))
        usual = getattr(registry.find("finetune.tasks", name), "FINETUNE", {})
        if not usual:
            raise Refused(f"{where}: published = true, but task {name!r} has no FINETUNE")
        tables = config.over(tables, usual)
    run = config.build(FinetuneRun, tables, where)
    return replace(run, out=run.out.replace("{task}", run.task))


def resolve(
    run: FinetuneRun, options: argparse.Namespace
) -> Callable[[World], tuple[RunPlan, Job]]:
    """All that can be refused is looked at here, before the ranks meet; gives what makes the rest.

    Raises Refused, naming the file and the key.
    """
    where, root = options.run, Path(run.data.root or options.data)
    task = registry.find("finetune.tasks", run.task)
    torch.manual_seed(run.train.seed)
    model, tokenizer_file, inherited, before = _model(run, where)
    tokenizer = Tokenizer.load(tokenizer_file)
    _fits(run.data, model.config, where)
    table = _inherit(run.objective, inherited)
    objective = resolve_objective(table, run.noise, run.loss, "nmt", tokenizer.special, where)
    limits = Limits(run.data.max_source, run.data.max_target, run.data.longer)
    about = asdict(run) | {
        "objective": {"name": objective.name, **objective.options},
        "noise": {"name": objective.noise, **objective.noise_options},
        "loss": asdict(objective.loss), "model": asdict(model.config),
        "data": asdict(run.data) | {"root": str(root.resolve())},
        "tokenizer_sha256": tokenizer.sha256, "ds": options.ds or run.ds,
    }  # fmt: skip

    def texts(split: str, first: bool) -> Pairs:
        place = Path(run.out) / "data" / split
        counts = on_rank0(lambda: prepare(task, root, split, tokenizer, limits, place))
        if first:
            print(f"{split}: {summary(counts)}", flush=True)
        return Pairs(place, run.train.seed if split == "train" else 0)

    def make(world: World) -> tuple[RunPlan, Job]:
        train, valid = (texts(split, world.first) for split in ("train", "valid"))
        work = Job(
            ModelWithLoss(model, objective.loss), objective, tokenizer_file, tokenizer,
            train.read, valid.read, min(run.data.valid_samples, len(valid)), run.train.seed,
            run.packing, world.device, about,
        )  # fmt: skip
        how = process.spread(about["ds"], world)
        length = run.train.until(len(train))
        if world.first:
            passes = f"{length.steps * length.batch / len(train):.1f} epochs"
            print(f"{length.steps:,} updates of {length.batch:,} pairs: {passes}{before}")
        settings = (length, run.optimizer, run.schedule, how, about, IDENTITY)
        return RunPlan(Path(run.out), *settings), work

    return make


def _model(run: FinetuneRun, where: str) -> tuple[Seq2Seq, Path, dict, str]:
    """The model to train, its tokenizer's file, the options of the objective it comes with.

    And a note, should it have learnt another task before.
    """
    if not run.start:
        if not run.tokenizer:
            raise Refused(
                f"{where}: start or tokenizer is missing: a model, or words to start with"
            )
        size = Tokenizer.load(run.tokenizer).size
        model = Seq2Seq(configure(run.model, size, f"{where}: model"))
        return model, Path(run.tokenizer), {}, ""
    if run.tokenizer:
        raise Refused(f"{where}: tokenizer comes with start = {run.start!r}, take it out")
    if unknown := set(run.model) - set(CHANGEABLE):
        raise Refused(
            f"{where}: model.{min(unknown)} is given by start = {run.start!r}; what can be "
            f"changed: {', '.join(CHANGEABLE)}"
        )
    saved = native.read(run.start)
    wanted = config.build(ModelConfig, asdict(saved.model.config) | run.model, f"{where}: model")
    model = Seq2Seq(wanted)
    native.fill(model, saved.model.state_dict(), saved.folder)
    learnt = saved.about.get("task", run.task)
    note = f", from a model of task {learnt!r}" if learnt != run.task else ""
    return model, saved.folder / native.FILES[2], {"name": saved.objective, **saved.options}, note


def _inherit(table: dict, inherited: dict) -> dict:
    """A model goes on reading as it learnt to: `read` and `query_position`, unless they are set."""
    left_to_right = {"ar", "janus"}
    if table.get("name") not in left_to_right or inherited.get("name") not in left_to_right:
        return table
    return {k: v for k, v in inherited.items() if k != "name"} | table


def _fits(data: FinetuneData, model: ModelConfig, where: str) -> None:
    # One place more than the target: with query_position "target" an EOS comes first.
    for key, need in (("max_source", data.max_source), ("max_target", data.max_target + 1)):
        if need > model.max_positions:
            raise Refused(
                f"{where}: data.{key} = {getattr(data, key)} does not fit model.max_positions = "
                f"{model.max_positions}"
            )


if __name__ == "__main__":
    sys.exit(main())
