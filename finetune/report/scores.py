"""The predictions of runs, scored as `evaluate` scores them, with intervals."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from finetune import evaluate
from finetune.evaluation import predictions, scoring
from finetune.evaluation.predictions import Predictions
from finetune.report.charts import Bars, bars
from januslm import registry
from januslm.config import Refused
from januslm.data import tasks
from januslm.metrics import _bootstrap


@dataclass(frozen=True)
class Table:
    """One test set in one post-processing mode: rows as `evaluate` prints them, and remarks."""

    title: str
    rows: list[list[str]]  # the first is the heading
    remarks: list[str]
    pictures: list[Bars]


@dataclass
class Scored:
    """What was found in the predictions of runs.  runs: by their folder, to take texts from."""

    tables: list[Table] = field(default_factory=list)
    runs: dict[Path, list[Predictions]] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)


def of(folders: Sequence[Path]) -> Scored:
    """Never refused: what cannot be read or scored is among the problems."""
    found = Scored()
    every: list[Predictions] = []
    for folder in folders:
        there = folder / "predictions"
        paths = predictions.files([str(there)]) if any(there.glob("*.jsonl")) else []
        for path in paths:
            try:
                for place in predictions.facts.read(path.with_suffix(".json")).plugins:
                    registry.extend_again(place)
                one = predictions.load(path)
            except (Refused, OSError) as error:
                found.problems.append(f"predictions left out: {error}")
                continue
            every.append(one)
            found.runs.setdefault(folder, []).append(one)
    for group in predictions.by_test_set(every, apart=True):
        print(f"scoring {len(group)} predictions files of {group[0].facts.task}", file=sys.stderr)
        try:
            found.tables += _tables(group)
        except (Refused, OSError) as error:
            found.problems.append(f"not scored: {error}")
    return found


def _tables(group: list[Predictions]) -> list[Table]:
    about = group[0].facts
    task = tasks.find(about.task, about.task_options, str(group[0].path))
    group, left_out = predictions.whole(group, ())
    group, note = evaluate.checked(group, task, None)
    chosen, lacking = scoring.able(scoring.metrics(task, ()))
    count = f"{len(group[0].ids):,} texts{note}"
    title = f"{tasks.title(task)}, {about.split}: {count}"
    tables = []
    for mode in scoring.modes(task):
        several = f"; post-processing: {mode}" if len(scoring.modes(task)) > 1 else ""
        rows = {run.label: scoring.scores(run, task, chosen, mode) for run in group}
        half = {run.label: scoring.halves(run, task, chosen, mode) for run in group}
        bases = {
            run.label: scoring.scores(run, task, chosen, mode)
            for run in scoring.baselines(group[0], task)
        }
        remarks = [*left_out, *lacking, *_remarks(group, rows, bases)]
        remarks += scoring.signatures(group[0], task, chosen, mode)
        cells = evaluate.cells(group, rows, bases, half)
        pictures = _pictures(group, rows, half, bases)
        tables.append(Table(title + several, _without_empty(cells), remarks, pictures))
    return tables


def _pictures(group: Sequence[Predictions], rows: dict, half: dict, bases: dict) -> list[Bars]:
    """The first metric, and what a text takes."""
    key = next(iter(next(iter(rows.values()))))
    scores: list[tuple[str, float, float | None, str]] = []
    for label, row in rows.items():
        ends = half[label].get(key)
        shown = f"{row[key]:.2f}" + (f" \u00b1{ends:.2f}" if ends is not None else "")
        scores.append((label, row[key], ends, shown))
    scores += [(name, base[key], None, f"{base[key]:.2f}") for name, base in bases.items()]
    times: list[tuple[str, float, float | None, str]] = [
        (run.label, ms, None, f"{ms:.1f} ms")
        for run in group
        if (ms := run.facts.ms_per_sentence) is not None
    ]
    found = (bars(key.upper(), scores), bars("Milliseconds a text", times))
    return [one for one in found if one]


def _remarks(group: Sequence[Predictions], rows: dict, bases: dict) -> list[str]:
    few = f"no intervals: they need {_bootstrap.FEW} texts"
    found = [scoring.PLUS_MINUS if len(group[0].ids) >= _bootstrap.FEW else few]
    found += evaluate.verdicts(rows, bases)
    return [*found, *_machines(group)]


def _machines(group: Sequence[Predictions]) -> list[str]:
    """What the times are of: one line for all that were measured alike."""
    said: dict[str, None] = {}
    for batch, threads, precision, graphs in (run.facts.timed for run in group):
        if batch is not None:
            where = f"{threads} thread{'s' * (threads != 1)}, {precision}"
            said[f"times: batch {batch}, {where}" + ", graphs" * bool(graphs)] = None
    return list(said)


def _without_empty(rows: list[list[str]]) -> list[list[str]]:
    """Columns that have nothing but "-" below their heading are left out."""
    columns = list(zip(*rows, strict=True))
    kept = [c for n, c in enumerate(columns) if n == 0 or any(x != "-" for x in c[1:])]
    return [list(row) for row in zip(*kept, strict=True)]
