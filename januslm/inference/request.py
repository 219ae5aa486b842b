"""What a trained model is asked for: its run, task and algorithm, checked before torch is there."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from types import ModuleType

from januslm import registry
from januslm.config import Refused, build, setting
from januslm.data.token_pairs import Limits
from januslm.interop.export_folder import FILES, ExportFacts, read_facts
from januslm.objective import LossSettings, Objective, resolve_objective

ALGORITHMS = "januslm.decoding"
PRECISIONS = {"fp32": "float32", "bf16": "bfloat16"}  # as users and as torch call them


@dataclass(frozen=True)
class TrainedRun:
    """An exported model with its task and where the task's data lies; no weight is read yet."""

    facts: ExportFacts
    task: ModuleType
    root: Path
    limits: Limits

    @property
    def task_name(self) -> str:
        return self.task.__name__.rpartition(".")[2]


@dataclass(frozen=True)
class _Data:
    root: str = ""
    max_source: int = setting(0, low=0)
    max_target: int = setting(0, low=0)


@dataclass(frozen=True)
class _TrainedOn:
    """What an export says of the task it was trained on, as far as writing needs it."""

    task: str = ""
    data: _Data = field(default_factory=_Data)


def _trained_on(facts: ExportFacts) -> _TrainedOn:
    where = f"{facts.folder / FILES[1]}: about"
    about = {key: value for key, value in facts.about.items() if key in ("task", "data")}
    if isinstance(about.get("data"), dict):
        keys = {one.name for one in fields(_Data)}
        about["data"] = {key: value for key, value in about["data"].items() if key in keys}
    return build(_TrainedOn, about, where)


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
    most = facts.config.max_positions
    limits = Limits(learnt.data.max_source or most, learnt.data.max_target or most, "cut")
    return TrainedRun(facts, registry.find("finetune.tasks", name), Path(root), limits)


def settings(found: TrainedRun, algorithm: str, given: Mapping) -> dict:
    """All options of the algorithm: those given, else the task's own, else the defaults.

    Refused, too, for an algorithm that the model never learnt to write by.
    """
    known = registry.declared(ALGORITHMS, algorithm, "decode")
    usual = {key: value for key, value in found.task.DECODE.items() if key in known.parameters}
    options = registry.options(known, usual | dict(given), algorithm)
    for name, most in registry.constant(ALGORITHMS, algorithm, "AT_MOST", {}).items():
        if options[name] > options[most]:
            raise Refused(
                f"{algorithm}: {name} {options[name]} is more than {most} {options[most]} can give"
            )
    table = {"name": found.facts.objective, **found.facts.options}
    special, where = found.facts.tokenizer.special, str(found.facts.folder)
    objective = resolve_objective(table, {}, LossSettings(), "nmt", special, where)
    check_ways(objective, registry.constant(ALGORITHMS, algorithm, "NEEDS", ()))
    return options


def check_ways(objective: Objective, needed: Sequence[str]) -> None:
    """Refuse ways to write that an objective does not teach, with the algorithms that it does."""
    read = objective.ar_read
    taught = {
        "word by word": read,
        "all at once": objective.template,
        "a block after each word": (read and read.block) or None,
    }
    lacking = [way for way in needed if taught[way] is None]
    if lacking:
        able = [
            name
            for name in registry.names(ALGORITHMS)
            if all(taught[way] for way in registry.constant(ALGORITHMS, name, "NEEDS", ()))
        ]
        raise Refused(
            f"a checkpoint of objective {objective.name!r} cannot write or rescore {lacking[0]}; "
            f"it can {', '.join(able) or 'not write at all'}"
        )
