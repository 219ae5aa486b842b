"""Predictions read from their files, checked against the test set, and scored."""

import inspect
import json
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from types import ModuleType

from finetune.pairs import records
from januslm.config import Refused
from januslm.folder import find, options

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
        text = self.settings.get("label") or NAMES.get(name, name)
        if name == "beam" and "beam" in chosen:
            text += f" {chosen['beam']}"
        if name == "mask_predict" and "iterations" in chosen:
            text += f" {chosen['iterations']} iteration" + "s" * (chosen["iterations"] != 1)
        return text

    @property
    def milliseconds(self) -> float | None:
        return self.settings.get("ms_per_sentence")

    @property
    def tokens_per_pass(self) -> float | None:
        tokens, passes = self.settings.get("tokens"), self.settings.get("passes")
        return tokens / len(self.ids) / passes if tokens and passes else None  # passes per sentence


@dataclass(frozen=True)
class Metric:
    """A metric of januslm/metrics with the options it is called with."""

    name: str
    module: ModuleType
    options: dict = field(default_factory=dict)

    def score(self, predictions: list[str], references: list[list[str]]) -> dict[str, float]:
        """Its numbers; a name says which options are not the default ones."""
        scores = self.module.score(predictions, references, **self.options)
        return {name + self.suffix: value for name, value in scores.items()}

    @property
    def suffix(self) -> str:
        mode = self.options.get("mode", "sacre")
        return "" if mode == "sacre" else f" {mode}"


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
    empty = next((n for n, row in enumerate(rows, 1) if not row["references"]), None)
    if empty:
        raise Refused(f"{path}:{empty}: 'references' is empty; a score needs at least one")
    return Run(
        path,
        settings,
        [str(row["id"]) for row in rows],
        [row["source"] for row in rows],
        [row["prediction"] for row in rows],
        [list(row["references"]) for row in rows],
    )


def _spoken(path: Path) -> list:
    """Names in the order people count: iterations-4 before iterations-10."""
    parts = re.split(r"(\d+)", str(path))
    return [int(part) if part.isdigit() else part for part in parts]


def files(places: Iterable[str]) -> list[Path]:
    """Every predictions file of the given files and folders, in the order of their names."""
    found: list[Path] = []
    for place in map(Path, places):
        if not place.exists():
            raise Refused(f"{place}: no such file or folder")
        inside = [place]
        if place.is_dir():  # a hidden file is one that is still being written
            there = (p for p in place.rglob("*.jsonl") if not p.name.startswith("."))
            inside = sorted(there, key=_spoken)
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
    """The run with the task's own references, after checking ids and sources."""
    split = run.settings.get("split", "test")
    pairs = task.read(place, split, skipped=Counter())
    wanted = list(islice(pairs, run.settings.get("limit")))
    check(run, [(p.id, p.source) for p in wanted], f"{run.settings['task']}'s {split} split")
    return replace(run, references=[list(p.targets) for p in wanted])


def named(run: Run, label: str) -> Run:
    """The same run under another name."""
    return replace(run, settings=run.settings | {"label": label})


def metrics(task: ModuleType, asked: Sequence[str]) -> list[Metric]:
    """The metrics a task names, or those of the command line: "bleu", "bleu:mode=compound"."""
    if not asked:
        given = getattr(task, "OPTIONS", {})
        return [_metric(name, given.get(name, {})) for name in task.METRICS]
    found = []
    for text in asked:
        name, _, rest = text.partition(":")
        pairs = [part.partition("=") for part in rest.split(",") if part]
        values = {key: {"true": True, "false": False}.get(value, value) for key, _, value in pairs}
        found.append(_metric(name, values))
    return found


def _metric(name: str, given: dict) -> Metric:
    module = find("januslm.metrics", name)
    known = inspect.signature(module.score).parameters
    chosen = options(module.score, given, f"metric {name}")
    return Metric(name, module, {key: chosen[key] for key in known if key in given})


def modes(task: ModuleType) -> tuple[str, ...]:
    """("official", "plain") where the benchmark rewrites predictions before it scores them."""
    return ("official", "plain") if hasattr(task, "tidy") else ("plain",)


def texts(run: Run, task: ModuleType, mode: str) -> tuple[list[str], list[list[str]]]:
    """Predictions and references as the metrics are to see them.

    A task may have tidy(prediction, mode), tidy_reference(reference, mode) and key(source): lines
    with one key become one, with the references of all and, as in the official scripts, the
    prediction of the last.
    """
    ours, theirs = run.predictions, run.references
    if hasattr(task, "tidy"):
        ours = [task.tidy(text, mode) for text in ours]
    if hasattr(task, "tidy_reference"):
        theirs = [[task.tidy_reference(text, mode) for text in several] for several in theirs]
    if not hasattr(task, "key"):
        return ours, theirs
    grouped: dict[str, tuple[str, list[str]]] = {}
    for source, prediction, several in zip(run.sources, ours, theirs, strict=True):
        key = task.key(source)
        grouped[key] = (prediction, grouped.get(key, ("", []))[1] + several)
    return [one for one, _ in grouped.values()], [several for _, several in grouped.values()]


def scores(run: Run, task: ModuleType, chosen: Sequence[Metric], mode: str) -> dict[str, float]:
    """All numbers of one run in one mode."""
    ours, theirs = texts(run, task, mode)
    return {k: v for metric in chosen for k, v in metric.score(ours, theirs).items()}


def baseline(run: Run, task: ModuleType) -> Run | None:
    """What a task's `lead` makes of the sources, as if an algorithm had written it."""
    if not hasattr(task, "lead"):
        return None
    first = [task.lead(source) for source in run.sources]
    settings = {"label": getattr(task, "LEAD", "lead-1"), "task": run.settings["task"]}
    return replace(run, settings=settings, predictions=first)
