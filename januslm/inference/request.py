"""What a trained model is asked for: its run, task and algorithm, checked before torch is there."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path

from januslm import registry
from januslm.config import Refused, build, setting
from januslm.data import tasks
from januslm.data.tasks import Task
from januslm.data.token_pairs import Limits
from januslm.interop.export_folder import FILES, ExportFacts, read_facts
from januslm.objective import LossSettings, Objective, resolve_objective

ALGORITHMS = "januslm.decoding"
TASKS = "finetune.tasks"
PRECISIONS = {"fp32": "float32", "bf16": "bfloat16"}  # as users and as torch call them


@dataclass(frozen=True)
class TrainedRun:
    """An exported model with its task and where the task's data lies; no weight is read yet."""

    facts: ExportFacts
    task: Task
    root: Path
    own: bool = True  # the task is the one it was trained on

    @property
    def limits(self) -> Limits:
        """How long texts may be."""
        return limits(self.facts)

    @property
    def task_name(self) -> str:
        return tasks.name_of(self.task)

    @property
    def task_options(self) -> dict:
        """[task_options] of its run file."""
        return _trained_on(self.facts).task_options if self.own else {}


@dataclass(frozen=True)
class _Data:
    root: str = ""
    max_source: int = setting(0, low=0)
    max_target: int = setting(0, low=0)


@dataclass(frozen=True)
class _Loss:
    weights: dict[str, float] | None = None


@dataclass(frozen=True)
class _TrainedOn:
    """What an export says of its training, as far as writing needs it."""

    task: str = ""
    task_options: dict = field(default_factory=dict)
    data: _Data = field(default_factory=_Data)
    loss: _Loss = field(default_factory=_Loss)


def _trained_on(facts: ExportFacts) -> _TrainedOn:
    about = {}
    for key, kind in (("task", None), ("task_options", None), ("data", _Data), ("loss", _Loss)):
        value = facts.about.get(key)
        if kind and isinstance(value, dict):  # it says more than is asked
            keys = {one.name for one in fields(kind)}
            value = {name: one for name, one in value.items() if name in keys}
        if value is not None:
            about[key] = value
    return build(_TrainedOn, about, f"{facts.folder / FILES[1]}: about")


def find(run: str | Path, task: str | None = None, data: str | None = None) -> TrainedRun:
    """What lies in a run's folder.  task, data: others than the run was trained with.

    Refused for what is not an exported model, and where the task or its data is not known.
    """
    facts = read_facts(run)
    learnt = _trained_on(facts)
    name, root = task or learnt.task, data or learnt.data.root
    if not name:
        raise Refused(f"{facts.folder}: was not trained on a task; name one with --task")
    if not root:
        raise Refused(f"{facts.folder}: does not say where the data lies; name it with --data")
    own = name == learnt.task
    options = learnt.task_options if own else {}
    return TrainedRun(facts, tasks.find(name, options, str(facts.folder)), Path(root), own)


def settings(facts: ExportFacts, algorithm: str, given: Mapping, usual: Mapping) -> dict:
    """All options of the algorithm: those given, else the usual ones it has, else the defaults.

    Refused for an option that no algorithm has, and for an algorithm that the model never learnt to
    write by; what only others have is left out (`useless` names it).
    """
    options = options_of(algorithm, given, usual)
    check_ways(objective(facts), registry.constant(ALGORITHMS, algorithm, "NEEDS", ()))
    return options


def options_of(algorithm: str, given: Mapping, usual: Mapping) -> dict:
    """The same, whatever the model has learnt."""
    known = registry.declared(ALGORITHMS, algorithm, "decode")
    left_out = useless(algorithm, given)
    asked = {key: value for key, value in given.items() if key not in left_out}
    has = {key: value for key, value in usual.items() if key in known.parameters}
    options = registry.options(known, has | asked, algorithm)
    for name, most in registry.constant(ALGORITHMS, algorithm, "AT_MOST", {}).items():
        if options[name] > options[most]:
            raise Refused(
                f"{algorithm}: {name} {options[name]} is more than {most} {options[most]} can give"
            )
    return options


def useless(algorithm: str, given: Iterable[str]) -> list[str]:
    """What is given and only other algorithms have: so one set of options does for all of them."""
    registry.check(ALGORITHMS, algorithm)
    has = {
        name: registry.declared(ALGORITHMS, name, "decode").parameters
        for name in registry.names(ALGORITHMS)
    }
    return [
        key
        for key in given
        if key not in has[algorithm] and any(key in options for options in has.values())
    ]


def notes(facts: ExportFacts, algorithm: str, given: Iterable[str]) -> list[str]:
    """What is to be said before texts are written so: what is left out, what is not to be had."""
    lines = []
    if unused := useless(algorithm, given):
        lines.append(f"{algorithm} has no use for {', '.join(unused)}: left out")
    needs = registry.constant(ALGORITHMS, algorithm, "NEEDS", ())
    if needs in (("all at once",), ("any order",)) and not knows_lengths(facts):
        lines.append(f"{algorithm}: the checkpoint has not been taught how long texts are")
    return lines


def knows_lengths(facts: ExportFacts) -> bool:
    """Whether lengths were among what was learnt, as they are not in pretraining's preset."""
    weights = _trained_on(facts).loss.weights
    return not weights or "ce/length" in weights


def usual(facts: ExportFacts) -> dict:
    """Decoding options of the task that a model was trained on, where that task is here."""
    learnt = _trained_on(facts)
    if learnt.task not in registry.names(TASKS):
        return {}
    return tasks.find(learnt.task, learnt.task_options, str(facts.folder)).DECODE


def limits(facts: ExportFacts) -> Limits:
    """How long texts may be: as in training, else as many tokens as there are positions.

    Refused for a model that reads no source at all.
    """
    data, most = _trained_on(facts).data, facts.config.max_positions
    if not (facts.config.has_encoder or data.max_source):
        raise Refused(
            f"{facts.folder}: has no encoder and was trained on plain text alone, so it has never "
            "read a source: fine-tune it on pairs"
        )
    return Limits(data.max_source or most, data.max_target or most, "cut")


def objective(facts: ExportFacts) -> Objective:
    """What the model has learnt, ready to be asked how it writes."""
    table = {"name": facts.objective, **facts.options}
    special, where = facts.tokenizer.special, str(facts.folder)
    room = None if facts.config.has_encoder else _trained_on(facts).data.max_source
    return resolve_objective(table, {}, LossSettings(), "nmt", special, where, room)


def taught(facts: ExportFacts, algorithms: Iterable[str]) -> list[str]:
    """Those of the algorithms that the model has learnt to write by."""
    learnt = _taught(objective(facts))
    return [
        name
        for name in algorithms
        if all(learnt[way] for way in registry.constant(ALGORITHMS, name, "NEEDS", ()))
    ]


def _taught(objective: Objective) -> dict[str, bool]:
    read, blocks = objective.ar_read, objective.block_read
    return {
        "word by word": read is not None,
        "all at once": objective.template is not None,
        "a block after each word": bool(read and read.drafts),
        "all at once without a length": objective.row is not None,
        "any order": objective.any_order is not None,
        "block by block": blocks is not None,
        "a block in several passes": bool(blocks and blocks.shown),
    }


def check_ways(objective: Objective, needed: Sequence[str]) -> None:
    """Refuse ways to write that an objective does not teach, with the algorithms that it does."""
    learnt = _taught(objective)
    lacking = [way for way in needed if not learnt[way]]
    if lacking:
        able = [
            name
            for name in registry.names(ALGORITHMS)
            if all(learnt[way] for way in registry.constant(ALGORITHMS, name, "NEEDS", ()))
        ]
        raise Refused(
            f"a checkpoint of objective {objective.name!r} cannot write or rescore {lacking[0]}; "
            f"it can {', '.join(able) or 'not write at all'}"
        )
