"""Predictions read from their files and checked line by line against the test set."""

import json
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import islice, zip_longest
from pathlib import Path
from types import ModuleType

from finetune.pairs import records
from januslm.config import Refused

NAMES = {
    "greedy": "AR greedy",
    "beam": "AR beam",
    "sample": "AR sampling",
    "mask_predict": "NAR",
    "semi": "semi-NAR",
    "speculative": "speculative",
}


@dataclass(frozen=True)
class Run:
    """One predictions file: what one algorithm wrote for one test set."""

    path: Path
    settings: dict
    ids: list[str]
    sources: list[str]
    predictions: list[str]
    references: list[list[str]]

    @property
    def label(self) -> str:
        """How a row of the table is called: AR beam 5, NAR 4 iterations, ..."""
        name = self.settings.get("algorithm", self.path.stem)
        chosen = self.settings.get("settings", {})
        if "label" in self.settings:
            return self.settings["label"]
        text = NAMES.get(name, name)
        if name == "beam" and "beam" in chosen:
            text += f" {chosen['beam']}"
        if name == "mask_predict" and "iterations" in chosen:
            text += f" {chosen['iterations']} iteration" + "s" * (chosen["iterations"] != 1)
        return text

    @property
    def empty(self) -> int:
        """How many predictions have no words."""
        return sum(not text.strip() for text in self.predictions)

    @property
    def milliseconds(self) -> float | None:
        return self.settings.get("ms_per_sentence")

    @property
    def tokens_per_pass(self) -> float | None:
        tokens, passes = self.settings.get("tokens"), self.settings.get("passes")
        return tokens / len(self.ids) / passes if tokens and passes else None  # passes per sentence


def load(path: Path, task: str | None = None) -> Run:
    """Read FILE.jsonl and FILE.json; the second may be missing where `task` is named."""
    beside = path.with_suffix(".json")
    settings = {"task": task} if task else {}
    if beside.is_file():
        try:
            settings |= json.loads(beside.read_text(encoding="utf-8"))
        except ValueError as error:
            raise Refused(f"{beside}: not JSON: {error}") from None
    if not settings.get("task"):
        raise Refused(f"{beside}: says no task; write it there, or name one with --task")
    if task and settings["task"] != task:
        raise Refused(f"{beside}: predictions of task {settings['task']!r}, not of {task!r}")
    rows = list(records(path, "id", "source", "prediction", "references"))
    stated = settings.get("sentences", len(rows))
    if stated != len(rows) or not rows:
        raise Refused(f"{path}: has {len(rows)} predictions; {beside.name} says {stated}")
    return Run(
        path,
        settings,
        _distinct([str(row["id"]) for row in rows], path),
        [_text(row["source"], "source", f"{path}:{n}") for n, row in enumerate(rows, 1)],
        [_text(row["prediction"], "prediction", f"{path}:{n}") for n, row in enumerate(rows, 1)],
        [_references(row["references"], f"{path}:{n}") for n, row in enumerate(rows, 1)],
    )


def _distinct(ids: list[str], path: Path) -> list[str]:
    seen: set[str] = set()
    for number, name in enumerate(ids, 1):
        if name in seen:
            raise Refused(f"{path}:{number}: id {name!r} comes twice")
        seen.add(name)
    return ids


def _text(value, key: str, where: str) -> str:
    if not isinstance(value, str):
        raise Refused(f"{where}: {key!r} must be a text, got {value!r}")
    return value


def _references(value, where: str) -> list[str]:
    if not isinstance(value, list) or not value:
        raise Refused(f"{where}: 'references' must be a list of one text or more, got {value!r}")
    return [_text(one, "references", where) for one in value]


def _spoken(path: Path) -> list:
    """Names in the order people count: iterations-4 before iterations-10."""
    parts = re.split(r"(\d+)", str(path))
    return [int(part) if part.isdigit() else part for part in parts]


def files(places: Iterable[str]) -> list[Path]:
    """Every predictions file of the given files and folders, in the order of their names.

    In a folder that has predictions/ below it, as runs do, only what lies there; a run has other
    *.jsonl files too.
    """
    found: list[Path] = []
    for place in map(Path, places):
        if not place.exists():
            raise Refused(f"{place}: no such file or folder")
        inside = [place]
        if place.is_dir():  # a hidden file is one that is still being written
            there = sorted(place.rglob("*.jsonl"), key=_spoken)
            there = [path for path in there if not path.name.startswith(".")]
            inside = [path for path in there if path.parent.name == "predictions"] or there
        if not inside:
            raise Refused(f"{place}: no predictions (*.jsonl) in it")
        found += [path for path in inside if path not in found]
    return found


def check(run: Run, wanted: Sequence[tuple[str, str]], against: str) -> None:
    """Refuse predictions that are not line for line those of (id, source) in `wanted`."""
    for number, (got, (name, source)) in enumerate(zip(run.ids, wanted, strict=False), 1):
        if got != name:
            known = {one for one, _ in wanted}
            why = "the order differs" if got in known and name in run.ids else "a line is missing"
            if got not in known:
                why = "that id is not in it"
            raise Refused(
                f"{run.path}:{number}: id {got!r} where {against} has {name!r}: {why}; "
                "nothing was scored"
            )
        if run.sources[number - 1] != source:
            raise Refused(f"{run.path}:{number}: id {got!r} has another source than {against}")
    if len(run.ids) != len(wanted):
        raise Refused(f"{run.path}: {len(run.ids)} predictions, but {against} has {len(wanted)}")


def root(run: Run, given: Path | None) -> Path | None:
    """Where the task's data lies: as given, or as the settings say if it is still there."""
    stated = run.settings.get("data")
    return given or (Path(stated) if stated and Path(stated).is_dir() else None)


def against_task(run: Run, task: ModuleType, place: Path) -> Run:
    """The run, after checking ids, sources and references against the task's own data."""
    split = run.settings.get("split", "test")
    pairs = task.read(place, split, skipped=Counter())
    wanted = list(islice(pairs, run.settings.get("limit")))
    against = f"{run.settings['task']}'s {split} split"
    check(run, [(p.id, p.source) for p in wanted], against)
    same_references(run, [list(p.targets) for p in wanted], against)
    return run


def same_references(run: Run, wanted: list[list[str]], against: str) -> None:
    """Refuse predictions that are to be scored by other references than `wanted`."""
    for number, (ours, theirs) in enumerate(zip(run.references, wanted, strict=True), 1):
        if ours != theirs:
            raise Refused(
                f"{run.path}:{number}: id {run.ids[number - 1]!r} has other references than "
                f"{against}"
            )


def told_apart(runs: Sequence[Run]) -> list[Run]:
    """The same runs; labels that several have are followed by what differs in their paths."""
    same = {label: [run for run in runs if run.label == label] for label in {r.label for r in runs}}
    return [
        run
        if len(same[run.label]) == 1
        else replace(run, settings=run.settings | {"label": _apart(run, same[run.label])})
        for run in runs
    ]


def _apart(run: Run, others: Sequence[Run]) -> str:
    """AR greedy (ar), for runs/ar/predictions/test.greedy.jsonl beside runs/janus/..."""
    columns = list(zip_longest(*(reversed(_parts(one)) for one in others)))
    parts = zip(reversed(_parts(run)), columns, strict=False)
    differing = [part for part, column in parts if len(set(column)) > 1]
    return f"{run.label} ({'/'.join(reversed(differing))})"


def _parts(run: Run) -> tuple[str, ...]:
    return run.path.with_suffix("").parts
