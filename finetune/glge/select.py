"""Which predictions GLGE's table is of: one file a task, of one system and one version."""

import fnmatch
from collections.abc import Mapping, Sequence
from pathlib import Path

from finetune.evaluation.predictions import Predictions
from finetune.glge.prepare import TASKS, VERSIONS
from januslm.config import Refused, suggest


def one_per_task(
    runs: Sequence[Predictions], algorithm: str | None = None
) -> dict[str, Predictions]:
    """The predictions of each task, in the leaderboard's order; Refused where they are several.

    algorithm: a name, a row label or a pattern of file names that picks among them.
    """
    for run in runs:
        task = run.facts.task
        if task not in TASKS:
            raise Refused(f"{run.path}: {task!r} is no GLGE task{suggest(task, TASKS)}")
    chosen = [run for run in runs if algorithm is None or _is(run, algorithm)]
    if not chosen:
        names = sorted({run.algorithm for run in runs})
        raise Refused(f"--algorithm: no predictions {algorithm!r}; there are {', '.join(names)}")
    for task in TASKS:
        same = [run for run in chosen if run.facts.task == task]
        if len(same) > 1:
            raise Refused(f"{len(same)} predictions of {task}: {_choice(same)}")
    return {task: run for task in TASKS for run in chosen if run.facts.task == task}


def _choice(same: Sequence[Predictions]) -> str:
    """Which there are of one task, and how to name one of them."""
    stems = [run.path.stem for run in same]
    if len(set(stems)) < len(stems):
        return f"{', '.join(str(run.path) for run in same)}; name the folder of one run"
    return (
        f"{', '.join(stems)}; choose with --algorithm, a name or a pattern of file names, e.g. "
        f"--algorithm {stems[0]}"
    )


def _is(run: Predictions, algorithm: str) -> bool:
    known = (run.facts.algorithm, run.label)
    patterns = (run.path.name, run.path.stem)
    return algorithm in known or any(fnmatch.fnmatchcase(name, algorithm) for name in patterns)


def system(runs: Sequence[Predictions]) -> str:
    """One name for what wrote them: the file names' common part, else the algorithms."""
    stems = {run.path.stem.removeprefix("test.") for run in runs}
    if len(stems) == 1 and not stems & set(TASKS):
        return stems.pop()
    name = "+".join(sorted({run.facts.algorithm or "mixed" for run in runs}))
    if (
        name in (".", "..") or Path(name).name != name
    ):  # files from elsewhere must not say where we write
        raise Refused(f"{runs[0].path.parent}: algorithm {name!r} cannot be the name of a folder")
    return name


def version_of(runs: Mapping[str, Predictions], asked: str | None) -> str:
    """easy, medium, medium+ or hard: as asked, or as the folder of the data is called.

    Refused where the runs disagree with each other or with `asked`.
    """
    stated = {task: _version(run) for task, run in runs.items()} | ({"--version": asked or ""})
    names = sorted({version for version in stated.values() if version})
    if len(names) > 1:
        stated_versions = ", ".join(
            f"{task} {version}" for task, version in stated.items() if version
        )
        raise Refused(f"one table is of one version, these are of {_or(names)}: {stated_versions}")
    if not names or names[0] not in VERSIONS:
        raise Refused(f"--version must be one of {', '.join(VERSIONS)}, got {asked!r}")
    return names[0]


def _version(run: Predictions) -> str:
    """What the settings say, or the last folder of the data's path that is called like one."""
    folders = [part for part in Path(run.facts.data).parts if part in VERSIONS]
    return run.facts.version or (folders[-1] if folders else "")


def _or(names: Sequence[str]) -> str:
    return " or ".join([", ".join(names[:-1]), names[-1]]) if len(names) > 1 else names[0]
