"""GLGE's eight tasks in one table, with the overall score, and the files to send in."""

import json
import re
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TypeVar

import numpy as np

from finetune.evaluation import predictions, scoring
from finetune.evaluation.predictions import Predictions
from finetune.glge.prepare import VERSIONS
from finetune.glge.select import one_per_task, system, version_of
from januslm.cli.command import answered, parser
from januslm.cli.table import drawn
from januslm.config import Refused
from januslm.data import tasks
from januslm.metrics import _bootstrap

# What the leaderboard averages, in the order of its columns.
_ROUGE = ("rouge-1", "rouge-2", "rouge-l")
_QUESTION = ("rouge-l", "bleu-4", "meteor")
COLUMNS = {
    "cnndm": _ROUGE,
    "gigaword": _ROUGE,
    "xsum": _ROUGE,
    "msnews": _ROUGE,
    "squadqg": _QUESTION,
    "msqg": _QUESTION,
    "coqa": ("f1",),
    "personachat": ("bleu-1", "bleu-2", "distinct-1", "distinct-2"),
}
# Lines of the official test sets: the published submission examples, and CNN/DailyMail's own.
LINES = {
    "cnndm": 11_490,
    "gigaword": 1_951,
    "xsum": 11_333,
    "msnews": 7_562,
    "squadqg": 11_877,
    "msqg": 11_022,
    "coqa": 4_048,
    "personachat": 14_056,
}
MODES = ("official", "plain")
HELP = """\
All GLGE tasks in one table with the overall score, and submission files in the official format.

  PROGRAM evaluate glge runs/glge/ar                        all predictions/ below it
  PROGRAM evaluate glge runs/glge/janus --algorithm beam    of several systems, this one
  PROGRAM evaluate glge runs/glge/janus --algorithm '*iterations-4'
  PROGRAM evaluate glge xsum.jsonl coqa.jsonl               these files
  ... --intervals                                               scores with their 95 % intervals

official: what the leaderboard has, after the scripts' rewriting of predictions; plain: without it.
The overall score is the mean over eight tasks of the mean over a task's metrics. Written beside
the predictions: submission/NAME/TASK.VERSION.test, a prediction a line, and scores.NAME.json;
NAME is the algorithm."""

Scores = dict[str, dict[str, float]]  # task -> metric -> percent
Drawn = TypeVar("Drawn", float, np.ndarray)  # a score, or float64 [1 + draws] of resampled ones
TOTAL = "overall"


def overall(scores: Mapping[str, Mapping[str, Drawn]]) -> Drawn:
    """The leaderboard's score: the mean over eight tasks of the mean over a task's metrics.

    Of arrays of drawn scores it is the array of theirs.
    """
    missing = [task for task in COLUMNS if task not in scores]
    if missing:
        raise Refused(f"the overall score needs all eight tasks; missing: {', '.join(missing)}")
    means = [mean(task, scores[task]) for task in COLUMNS]
    return sum(means[1:], means[0]) / len(means)


def mean(task: str, scores: Mapping[str, Drawn]) -> Drawn:
    """What one task adds to the overall score; Refused where a metric is missing."""
    keys = COLUMNS[task]
    lacking = [key for key in keys if key not in scores]
    if lacking:
        raise Refused(f"{task}: no {lacking[0]}; its score is made of {', '.join(keys)}")
    values = [scores[key] for key in keys]
    return sum(values[1:], values[0]) / len(values)


def main(arguments: Sequence[str]) -> int:
    """The verb `evaluate glge`: exit code 0, or 2 and one line on stderr."""
    known = parser("evaluate glge", HELP)
    known.add_argument("places", nargs="*", metavar="RUN", help="folders or predictions files")
    known.add_argument("--algorithm", metavar="NAME", help="or a pattern of file names")
    known.add_argument("--data", type=Path, metavar="ROOT", help="default: as when decoding")
    names = ", ".join(VERSIONS)
    known.add_argument("--version", help=f"where the data's folder is not called {names}")
    known.add_argument("--intervals", action="store_true", help="95 %% intervals of all scores")
    given = known.parse_args(arguments)
    return answered(partial(evaluate, **vars(given)))


def evaluate(
    places: Sequence[str],
    algorithm: str | None,
    data: Path | None,
    version: str | None,
    intervals: bool = False,
) -> None:
    """Print all tasks of a run and the overall score; write the submission files beside it."""
    if not places:
        raise Refused("evaluate glge: name a folder with the predictions of each task")
    found = [predictions.load(path) for path in predictions.files(places)]
    tests = [run for run in found if run.facts.split == "test"]
    runs = one_per_task(tests, algorithm)
    version = version_of(runs, version)
    runs, notes = _checked(runs, data)
    if len(tests) < len(found):
        notes.append(f"left out, since not of the test set: {len(found) - len(tests)} files")
    home, name = _home(places), system(list(runs.values()))
    written = [submit(run, version, home / "submission" / name) for run in _whole(runs).values()]
    print(f"GLGE {version}, {name}")
    scores, extra = _scored(runs)
    half = {mode: _halves(runs, scores[mode], mode) if intervals else {} for mode in MODES}
    print(drawn(_rows(runs, scores, half)))
    if any(half.values()):
        extra = [_explained(scores), *extra]
    few = [name for name, row in scores[MODES[0]].items() if row and name not in half[MODES[0]]]
    if intervals and few:
        notes.append(f"no intervals, which need {_bootstrap.FEW} lines: {', '.join(few)}")
    totals = [f"overall, {mode}: {_total(scores[mode], half[mode])}" for mode in MODES]
    print("\n".join([*extra, *notes, *totals]))
    facts = {"version": version, **scores} | ({"intervals": half} if intervals else {})
    out = home / f"scores.{name}.json"
    predictions.put(out, json.dumps(facts, indent=1) + "\n")
    print(f"scores written to {out}")
    if written:
        print(f"{len(written)} submission files written to {written[0].parent}")


def submit(run: Predictions, version: str, folder: Path) -> Path:
    """Write TASK.VERSION.test, one prediction a line, in the official format."""
    broken = next(
        (n for n, text in enumerate(run.predictions, 1) if re.search("[\r\n]", text)), None
    )
    if broken:
        raise Refused(
            f"{run.path}:{broken}: a prediction has a line break; a submission is by line"
        )
    path = folder / f"{run.facts.task}.{version}.test"
    predictions.put(path, "".join(text + "\n" for text in run.predictions))
    return path


def _whole(runs: Mapping[str, Predictions]) -> dict[str, Predictions]:
    """Those that have decoded all texts of their test set."""
    return {name: run for name, run in runs.items() if not run.facts.limit}


def _checked(
    runs: Mapping[str, Predictions], data: Path | None
) -> tuple[dict[str, Predictions], list[str]]:
    """Every run against its task's data, where that is at hand; and what people must know."""
    checked, notes, unseen = {}, [], []
    for name, run in runs.items():
        place = predictions.root(run, data)
        checked[name] = run
        if place:
            checked[name] = predictions.against_task(run, tasks.find(name, {}, name), place)
        else:
            unseen.append(name)
        if run.facts.limit:
            notes.append(f"{name}: decoded with --limit {run.facts.limit}, so no submission file")
        notes += [f"{name}: {n:,} {what} kept" for what, n in checked[name].blank.items()]
        if run.empty:
            notes.append(f"{name}: predictions without words, taken as they are: {run.empty:,}")
    other = [f"{n} {LINES[n]:,}" for n, run in _whole(runs).items() if len(run.ids) != LINES[n]]
    bare = [name for name, run in checked.items() if not run.answered]
    for what, names in (
        ("official test sets have other numbers of lines", other),
        ("ids not checked against the data (name it with --data)", unseen),
        ("not scored, since their test sets have no references", bare),
    ):
        if names:
            notes.append(f"{what}: {', '.join(names)}")
    return checked, notes


def _scored(runs: Mapping[str, Predictions]) -> tuple[dict[str, Scores], list[str]]:
    """Scores by mode and task, none without references; and lines on what stands beside them."""
    scores: dict[str, Scores] = {mode: {name: {} for name in runs} for mode in MODES}
    extra: list[str] = []
    for name, run in runs.items():
        if not run.answered:
            continue
        task = tasks.find(name, {}, name)
        chosen, lacking = scoring.able(scoring.metrics(task, ()))
        extra += [line for line in lacking if line not in extra]
        for mode in MODES:
            row = scoring.scores(run, task, chosen, mode)
            scores[mode][name] = row
            more = [f"{key} {value:.2f}" for key, value in row.items() if key not in COLUMNS[name]]
            if more:
                extra.append(f"{name}, {mode}, not in its mean: {', '.join(more)}")
        extra += [f"{name}, {line}" for line in scoring.signatures(run, task, chosen, MODES[0])]
    return scores, extra


def _halves(runs: Mapping[str, Predictions], scores: Scores, mode: str) -> Scores:
    """Half the 95 % interval of each metric, of each task's "mean" and of the overall one.

    Within a task all metrics are of the same resampled test sets; tasks are resampled each for
    itself, hence the seeds. What no line has a share of (distinct) keeps its value in the means.
    """
    found: Scores = {}
    parts: dict[str, dict[str, np.ndarray]] = {}
    for seed, name in enumerate(COLUMNS):
        if not scores.get(name):
            continue
        task = tasks.find(name, {}, name)
        chosen, _ = scoring.able(scoring.metrics(task, ()))
        draws = scoring.draws(runs[name], task, chosen, mode, seed)
        if not draws:
            continue
        found[name] = {key: _half(draws[key]) for key in COLUMNS[name] if key in draws}
        parts[name] = {key: np.asarray(value) for key, value in scores[name].items()} | draws
        if _complete(name, scores[name]):
            found[name]["mean"] = _half(mean(name, parts[name]))
    if set(parts) == set(COLUMNS) and all(_complete(name, scores[name]) for name in COLUMNS):
        found[TOTAL] = {"mean": _half(overall(parts))}
    return found


def _half(draws: np.ndarray) -> float:
    return _bootstrap.interval("", draws).half


def _complete(name: str, scores: Mapping[str, float]) -> bool:
    return set(COLUMNS[name]) <= set(scores)


def _explained(scores: Mapping[str, Scores]) -> str:
    """What the intervals are of, and what has none."""
    still = any(scores[mode].get("personachat") for mode in MODES)
    held = "; distinct has none and stays as it is in the means" if still else ""
    return f"{scoring.PLUS_MINUS}, drawn for each task by itself{held}"


def _rows(
    runs: Mapping[str, Predictions], scores: Mapping[str, Scores], halves: Mapping[str, Scores]
) -> list[list[str]]:
    """The table: a task a row, its metrics as the leaderboard writes them, and the means."""
    rows = [["task", "lines", "official", "mean", "plain", "mean", "metrics"]]
    for name, run in runs.items():
        row = [name, f"{len(run.ids):,}"]
        for mode in MODES:
            values, half = scores[mode][name], halves[mode].get(name, {})
            cell = "/".join(_number(values.get(key)) for key in COLUMNS[name])
            if half:
                cell += " \u00b1" + "/".join(_number(half.get(key)) for key in COLUMNS[name])
            row.append(cell)
            whole = _complete(name, values)
            row.append(f"{mean(name, values):.2f}{_plus_minus(half)}" if whole else "-")
        rows.append([*row, "/".join(COLUMNS[name])])
    totals = [_total(scores[mode], halves[mode]).partition(",")[0] for mode in MODES]
    return [*rows, [TOTAL, "", "", totals[0], "", totals[1], ""]]


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def _plus_minus(half: Mapping[str, float]) -> str:
    return f" \u00b1{half['mean']:.2f}" if "mean" in half else ""


def _total(scores: Scores, halves: Scores) -> str:
    missing = [task for task in COLUMNS if task not in scores]
    if missing:
        return f"none, {', '.join(missing)} missing"
    bare = [task for task in COLUMNS if not scores[task]]
    if bare:
        return f"none, no references of {', '.join(bare)}"
    half = [task for task in COLUMNS if not _complete(task, scores[task])]
    if half:
        return f"none, a metric of {' and '.join(half)} missing"
    return f"{overall(scores):.2f}{_plus_minus(halves.get(TOTAL, {}))}"


def _home(places: Sequence[str]) -> Path:
    first = Path(places[0])
    return first if first.is_dir() else first.parent
