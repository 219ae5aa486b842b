"""A run file of finetune/runs/ as checked values, and all that it names, found: without torch."""

import inspect
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Literal

from finetune.evaluation import validation
from finetune.evaluation.validation import Scoring, ValidateSettings
from januslm import config, registry
from januslm.config import Refused, setting
from januslm.data import tasks
from januslm.data.tasks import Task
from januslm.data.token_pairs import Limits
from januslm.data.tokenizer import Tokenizer
from januslm.interop.export_folder import ExportFacts, read_start
from januslm.model.config import ModelConfig, configure
from januslm.objective import LossSettings, Objective, resolve_objective
from januslm.training import boards, goals, run_dir
from januslm.training.ds_config import OptimizerSettings, check_batch, check_spread
from januslm.training.fingerprint import fingerprint
from januslm.training.lr_schedule import ScheduleSettings, check
from januslm.training.settings import PackingSettings, TrainSettings

CHANGEABLE = ("dropout", "attention_dropout", "activation_checkpointing")  # of a finished model


@dataclass(frozen=True)
class FinetuneData:
    """[data]: where the task's files lie and how much of each text is read, in tokens."""

    root: str = ""  # "": what --data says; launch.sh gives $JANUSLM_DATA, else ../shared/data
    max_source: int = setting(512, low=4)  # tokens of a source with BOS and EOS
    max_target: int = setting(128, low=4)  # tokens of a target with BOS and EOS
    # what is done with longer texts: cut (and count) them, or refuse the run
    longer: Literal["cut", "refuse"] = "cut"
    valid_samples: int = setting(512, low=1)  # pairs that are validated on


@dataclass(frozen=True)
class FinetuneSettings(TrainSettings):
    """[train] of a fine-tuning run: that of any run, and a length in passes over the pairs."""

    steps: int = setting(0, low=0)  # 0: as many as `epochs` make
    # 0: no limit but `steps`; the first that is reached counts
    epochs: float = setting(0.0, low=0, high=1e6)

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
    train: FinetuneSettings  # how long, in which portions
    task_options: dict = field(default_factory=dict)  # of a task that has some, as `pairs`
    plugins: str = ""  # a folder of your own with objectives/, tasks/, metrics/ and so on
    published: bool = False  # true: the task's FINETUNE holds where this file says nothing
    # where the texts lie, how much is read of each
    data: FinetuneData = field(default_factory=FinetuneData)
    # a run's folder or its export/, or hf:FOLDER, Hugging Face's (docs/interop.md); "": from
    # scratch, with [model] and tokenizer
    start: str = ""
    # of a start that is an encoder alone: random weights, or the encoder's
    start_decoder: Literal["random", "encoder"] = "random"
    tokenizer: str = ""  # the words of a model from scratch; a start brings its own
    # preset, and what differs; with a start only what may change: dropout and the like
    model: dict = field(default_factory=dict)
    # name, preset and its own options: a file of januslm/objectives/
    objective: dict = field(default_factory=lambda: {"name": "janus"})
    noise: dict = field(default_factory=dict)  # name and options: a file of januslm/noise/
    loss: LossSettings = field(default_factory=LossSettings)  # how its terms become one number
    optimizer: OptimizerSettings = field(default_factory=OptimizerSettings)  # Adam
    schedule: ScheduleSettings = field(default_factory=ScheduleSettings)  # of the learning rate
    packing: PackingSettings = field(default_factory=PackingSettings)  # how examples share rows
    # scores of texts that the model writes during training
    validate: ValidateSettings = field(default_factory=ValidateSettings)
    ds: str = ""  # a file of ds_configs/; "": cpu_fp32 on a CPU, zero1_bf16 on a GPU


@dataclass(frozen=True)
class ResolvedFinetuneRun:
    """A run with all that it names, found and checked; its texts and weights are not read yet."""

    run: FinetuneRun
    task: Task
    root: Path
    limits: Limits
    tokenizer_file: Path
    tokenizer: Tokenizer
    model: ModelConfig
    objective: Objective
    start: ExportFacts | None
    scoring: Scoring | None  # of [validate]
    about: dict  # what config.json and the export say of the run

    @property
    def fingerprint(self) -> dict:
        """See januslm.training.fingerprint."""
        return fingerprint(self.about, self.tokenizer.sha256, self.about["ds"])

    def check_folder(self, start: run_dir.Start) -> dict:
        """See januslm.training.run_dir; the pairs themselves are not known yet."""
        run_dir.check_spread_kept(Path(self.run.out), self.about["ds"], start)
        return run_dir.check_folder(Path(self.run.out), self.about, start)


def load(path: str | Path, changes: Sequence[str] = ()) -> FinetuneRun:
    """A run file, over the published settings of its task if it asks for them.

    Raises Refused, naming the file and the key.
    """
    tables, where = config.tree(path, changes), str(path)
    if tables.get("published"):
        registry.extend(str(tables.get("plugins", "")))
        name = str(tables.get("task"))
        usual = getattr(registry.find("finetune.tasks", name), "FINETUNE", {})
        if not usual:
            raise Refused(f"{where}: published = true, but task {name!r} has no FINETUNE")
        tables = config.over(tables, usual)
    run = config.build(FinetuneRun, tables, where)
    return replace(run, out=run.out.replace("{task}", run.task))


def resolve(run: FinetuneRun, where: str, data: str, ds: str = "") -> ResolvedFinetuneRun:
    """All that can be refused is looked at here, before the ranks meet.

    data: where tasks look for their files, unless the run says so.  Raises Refused, naming the
    file and the key.
    """
    plugins = registry.extend(run.plugins)
    task = tasks.find(run.task, run.task_options, where)
    root = Path(run.data.root or getattr(task, "ROOT", data))
    if run.train.steps:
        check(run.schedule, run.train.steps, where)
    check_spread(ds or run.ds, run.optimizer, run.train.clip)
    start, tokenizer_file = _start(run, where)
    tokenizer = start.tokenizer if start else Tokenizer.load(tokenizer_file)
    table = _inherit(run.objective, start) if start else run.objective
    objective = resolve_objective(table, run.noise, run.loss, "nmt", tokenizer.special, where)
    if start:
        sizes = start.sizes(objective.extra_vectors)
        model = config.build(ModelConfig, asdict(sizes) | run.model, f"{where}: model")
    else:
        model = configure(run.model, tokenizer.size, f"{where}: model", objective.extra_vectors)
    _fits(run.data, model, objective, where)
    objective.check_fit(model, where)
    objective.check_data(True, where)
    limits = Limits(run.data.max_source, run.data.max_target, run.data.longer)
    scoring = validation.resolve(run.validate, task, objective, where)
    boards.check(run.train.boards, where)
    names = [*objective.loss.weights, *objective.measured, *(scoring.names if scoring else ())]
    goals.check(run.train, names, where)
    about = asdict(run) | {
        "objective": {"name": objective.name, **objective.options},
        "noise": {"name": objective.noise, **objective.noise_options},
        "loss": asdict(objective.loss),
        "model": asdict(model),
        "data": asdict(run.data) | {"root": str(root.resolve())},
        "tokenizer_sha256": tokenizer.sha256,
        "ds": ds or run.ds,
        "plugins": plugins,
        **tasks.texts_of(task),
    }
    return ResolvedFinetuneRun(
        run,
        task,
        root,
        limits,
        tokenizer_file,
        tokenizer,
        model,
        objective,
        start,
        scoring,
        about,
    )


def _start(run: FinetuneRun, where: str) -> tuple[ExportFacts | None, Path]:
    """The model to start from, if there is one, and the file of the tokenizer."""
    if not run.start:
        if not run.tokenizer:
            raise Refused(
                f"{where}: start or tokenizer is missing: a model, or words to start with"
            )
        return None, Path(run.tokenizer)
    if run.tokenizer:
        raise Refused(f"{where}: tokenizer comes with start = {run.start!r}, take it out")
    if unknown := set(run.model) - set(CHANGEABLE):
        raise Refused(
            f"{where}: model.{min(unknown)} is given by start = {run.start!r}; what can be "
            f"changed: {', '.join(CHANGEABLE)}"
        )
    start = read_start(run.start, run.start_decoder)
    return start, start.tokenizer_file


def _inherit(table: dict, start: ExportFacts) -> dict:
    """A model goes on reading as it learnt to: options that both objectives have, unless set."""
    name = str(table.get("name"))
    if "name" not in table or name not in registry.names("januslm.objectives"):
        return table  # refused where the objective is resolved
    plugin = registry.find("januslm.objectives", name)
    known = inspect.signature(plugin.ar_read).parameters if hasattr(plugin, "ar_read") else {}
    return {key: value for key, value in start.options.items() if key in known} | table


def _fits(data: FinetuneData, model: ModelConfig, objective: Objective, where: str) -> None:
    # One place more than the target: with query_position "target" an EOS comes first.
    most = objective.positions(data.max_target + 1)
    for key, need in (("max_source", data.max_source), ("max_target", most)):
        if need > model.max_positions:
            raise Refused(
                f"{where}: data.{key} = {getattr(data, key)} does not fit model.max_positions = "
                f"{model.max_positions}"
            )


def check_start(resolved: ResolvedFinetuneRun, processes: int, start: run_dir.Start) -> dict:
    """Refuse what only a start would find: no data, a folder of another run, too many processes.

    Returns, for the launcher, the run's folder and its fingerprint on this host.
    """
    train = resolved.run.train
    check_batch(train.batch, train.accumulate, processes)
    resolved.check_folder(start)
    for split in ("train", "valid"):
        next(iter(resolved.task.read(resolved.root, split, skipped=Counter())), None)
    return {"folder": resolved.run.out, "fingerprint": resolved.fingerprint}
