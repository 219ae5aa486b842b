"""What a trained model is asked for: its run, task and algorithm, checked before torch is there."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from januslm import registry
from januslm.config import Refused
from januslm.data import tasks
from januslm.data.tasks import Task
from januslm.data.token_pairs import Limits
from januslm.interop.export_folder import ExportFacts, read_facts
from januslm.objective import LossSettings, Objective, resolve_objective

ALGORITHMS = "januslm.decoding"
PRECISIONS = {"fp32": "float32", "bf16": "bfloat16"}  # as users and as torch call them


@dataclass(frozen=True)
class TrainedRun:
    """An exported model with its task and where the task's data lies; no weight is read yet."""

    facts: ExportFacts
    task: Task
    root: Path
    limits: Limits
    own: bool = True  # the task is the one it was trained on

    @property
    def task_name(self) -> str:
        return tasks.name_of(self.task)

    @property
    def task_options(self) -> dict:
        """[task_options] of its run file."""
        return self.facts.about.get("task_options", {}) if self.own else {}


def find(run: str | Path, task: str | None = None, data: str | None = None) -> TrainedRun:
    """What lies in a run's folder.  task, data: others than the run was trained with.

    Refused for what is not an exported model, and where the task or its data is not known.
    """
    facts = read_facts(run)
    name = task or facts.about.get("task")
    if not name:
        raise Refused(f"{facts.folder}: was not trained on a task; name one with --task")
    about = facts.about.get("data", {})
    root = data or about.get("root")
    if not root:
        raise Refused(f"{facts.folder}: does not say where the data lies; name it with --data")
    most = facts.config.max_positions
    limits = Limits(about.get("max_source", most), about.get("max_target", most), "cut")
    own = name == facts.about.get("task")
    options = facts.about.get("task_options", {}) if own else {}
    found = tasks.find(name, options, str(facts.folder))
    return TrainedRun(facts, found, Path(root), limits, own)


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
    taught = {"word by word": objective.ar_read, "all at once": objective.template}
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
