"""A task of finetune/tasks/, found by its name, with the options that a run file gives it."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, cast

from januslm import registry
from januslm.config import Refused
from januslm.data.text_pairs import Pair

TASKS = "finetune.tasks"


class Task(Protocol):
    """A file of finetune/tasks/, or what its `configured` made; docs/tasks.md has all of it."""

    __name__: str
    METRICS: Sequence[str]
    DECODE: dict[str, Any]

    def read(self, root: Path, split: str, skipped: Counter | None = None) -> Iterator[Pair]:
        """The pairs of a split."""


def find(name: str, options: Mapping, where: str) -> Task:
    """The task of that name.  options: the table [task_options] of the run file `where`.

    A task that takes options has a function `configured`, whose keyword-only arguments they are.
    Raises Refused, naming the key, for options that it does not have.
    """
    module = registry.find(TASKS, name)
    if not hasattr(module, "configured"):
        if options:
            raise Refused(f"{where}: task {name!r} has no options: take out [task_options]")
        return cast(Task, module)
    where = f"{where}: task_options"
    given = registry.options(module.configured, options, where)
    try:
        return module.configured(**given)
    except Refused as error:
        raise Refused(f"{where}: {error}") from None


def title(task: Task) -> str:
    """What tables call it: its name, and what it reads where the run file says that."""
    return getattr(task, "TITLE", "") or name_of(task)


def name_of(task: Task) -> str:
    """The name in run files."""
    return task.__name__.rpartition(".")[2]


def texts_of(task: Task) -> dict:
    """{"texts": which texts it learns from}, where options decide that; else {}."""
    return {"texts": task.texts} if hasattr(task, "texts") else {}
