"""GLGE's eight tasks in one table, with the overall score, and the files to send in."""

import argparse
import fnmatch
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from finetune import predictions, report
from finetune.glge import VERSIONS
from finetune.predictions import Run
from finetune.table import drawn
from januslm.config import Refused, suggest
from januslm.folder import find

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
    "cnndm": 11_490, "gigaword": 1_951, "xsum": 11_333, "msnews": 7_562, "squadqg": 11_877,
    "msqg": 11_022, "coqa": 4_048, "personachat": 14_056,
}  # fmt: skip
MODES = ("official", "plain")
HELP = """\
All GLGE tasks in one table with the overall score, and submission files in the official format.

  ./launch.sh evaluate glge runs/glge/ar                        all predictions/ below it
  ./launch.sh evaluate glge runs/glge/janus --algorithm beam    of several systems, this one
  ./launch.sh evaluate glge runs/glge/janus --algorithm '*iterations-4'
  ./launch.sh evaluate glge xsum.jsonl coqa.jsonl               these files

official: what the leaderboard has, after the scripts' rewriting of predictions; plain: without it.
The overall score is the mean over eight tasks of the mean over a task's metrics. Written beside
the predictions: submission/NAME/TASK.VERSION.test, a prediction a line, and scores.NAME.json;
NAME is the algorithm."""

Scores = dict[str, dict[str, float]]  # task -> metric -> percent


def overall(scores: Mapping[str, Mapping[str, float]]) -> float:
    """The leaderboard's score: the mean over eight tasks of the mean over a task's metrics."""
    missing = [task for task in COLUMNS if task not in scores]
    if missing:
        raise Refused(f"the overall score needs all eight tasks; missing: {', '.join(missing)}")
    return sum(mean(task, scores[task]) for task in COLUMNS) / len(COLUMNS)


def mean(task: str, scores: Mapping[str, float]) -> float:
    """What one task adds to the overall score; Refused where a metric is missing."""
    keys = COLUMNS[task]
    lacking = [key for key in keys if key not in scores]
    if lacking:
        raise Refused(f"{task}: no {lacking[0]}; its score is made of {', '.join(keys)}")
    return sum(scores[key] for key in keys) / len(keys)


def main(arguments: Sequence[str]) -> int:
    """./launch.sh evaluate glge: exit code 0, or 2 and one line on stderr."""
    parser = argparse.ArgumentParser(
        "./launch.sh evaluate glge",
        description=HELP,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("places", nargs="*", metavar="RUN", help="folders or predictions files")
    parser.add_argument("--algorithm", metavar="NAME", help="or a pattern of file names")
    parser.add_argument("--data", type=Path, metavar="ROOT", help="default: as when decoding")
    parser.add_argument("--version", help=f"where the data's folder is not called {_or(VERSIONS)}")
    given = parser.parse_args(arguments)
    try:
        evaluate(given.places, given.algorithm, given.data, given.version)
    except Refused as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def evaluate(
    places: Sequence[str], algorithm: str | None, data: Path | None, version: str | None
) -> None:
    """Print all tasks of a run and the overall score; write the submission files beside it."""
    if not places:
        raise Refused("evaluate glge: name a folder with the predictions of each task")
    found = [predictions.load(path) for path in predictions.files(places)]
    tests = [run for run in found if run.settings.get("split", "test") == "test"]
    runs = one_per_task(tests, algorithm)
    version = settled(runs, version)
    runs, notes = _checked(runs, data)
    if len(tests) < len(found):
        notes.append(f"left out, since not of the test set: {len(found) - len(tests)} files")
    home, name = _home(places), system(list(runs.values()))
    written = [submit(run, version, home / "submission" / name) for run in _whole(runs)]
    print(f"GLGE {version}, {name}")
    scores, extra = _scored(runs)
    print(drawn([*_rows(runs, scores)]))
    print("\n".join([*extra, *notes, *(f"overall, {m}: {_total(scores[m])}" for m in MODES)]))
    (home / f"scores.{name}.json").write_text(
        json.dumps({"version": version, **scores}, indent=1) + "\n", encoding="utf-8"
    )
    print(f"scores written to {home / f'scores.{name}.json'}")
    if written:
        print(f"{len(written)} submission files written to {written[0].parent}")


def one_per_task(runs: Sequence[Run], algorithm: str | None = None) -> dict[str, Run]:
    """The predictions of each task, in the leaderboard's order; Refused where they are several.

    algorithm: a name, a row label or a pattern of file names that picks among them.
    """
    for run in runs:
        task = run.settings["task"]
        if task not in COLUMNS:
            raise Refused(f"{run.path}: {task!r} is no GLGE task{suggest(task, COLUMNS)}")
    chosen = [run for run in runs if algorithm is None or _is(run, algorithm)]
    if not chosen:
        names = sorted({str(run.settings.get("algorithm", run.path.stem)) for run in runs})
        raise Refused(f"--algorithm: no predictions {algorithm!r}; there are {', '.join(names)}")
    for task in COLUMNS:
        same = [run for run in chosen if run.settings["task"] == task]
        if len(same) > 1:
            raise Refused(f"{len(same)} predictions of {task}: {_choice(same)}")
    return {task: run for task in COLUMNS for run in chosen if run.settings["task"] == task}


def _choice(same: Sequence[Run]) -> str:
    """Which there are of one task, and how to name one of them."""
    stems = [run.path.stem for run in same]
    if len(set(stems)) < len(stems):
        return f"{', '.join(str(run.path) for run in same)}; name the folder of one run"
    return (
        f"{', '.join(stems)}; choose with --algorithm, a name or a pattern of file names, e.g. "
        f"--algorithm {stems[0]}"
    )


def _is(run: Run, algorithm: str) -> bool:
    known = (run.settings.get("algorithm"), run.label)
    patterns = (run.path.name, run.path.stem)
    return algorithm in known or any(fnmatch.fnmatchcase(name, algorithm) for name in patterns)


def system(runs: Sequence[Run]) -> str:
    """One name for what wrote them: the file names' common part, else the algorithms."""
    stems = {run.path.stem.removeprefix("test.") for run in runs}
    if len(stems) == 1 and not stems & set(COLUMNS):
        return stems.pop()
    return "+".join(sorted({str(run.settings.get("algorithm", "mixed")) for run in runs}))


def settled(runs: Mapping[str, Run], asked: str | None) -> str:
    """easy, medium, medium+ or hard: as asked, or as the folder of the data is called.

    Refused where the runs disagree with each other or with `asked`.
    """
    stated = {task: _version(run) for task, run in runs.items()} | ({"--version": asked or ""})
    names = sorted({version for version in stated.values() if version})
    if len(names) > 1:
        told = ", ".join(f"{task} {version}" for task, version in stated.items() if version)
        raise Refused(f"one table is of one version, these are of {_or(names)}: {told}")
    if not names or names[0] not in VERSIONS:
        raise Refused(f"--version must be one of {', '.join(VERSIONS)}, got {asked!r}")
    return names[0]


def _version(run: Run) -> str:
    """What the settings say, or the last folder of the data's path that is called like one."""
    folders = [part for part in Path(run.settings.get("data", "")).parts if part in VERSIONS]
    return run.settings.get("version") or (folders[-1] if folders else "")


def submit(run: Run, version: str, folder: Path) -> Path:
    """Write TASK.VERSION.test, one prediction a line, in the official format."""
    broken = next((n for n, text in enumerate(run.predictions, 1) if "\n" in text), None)
    if broken:
        raise Refused(
            f"{run.path}:{broken}: a prediction has a line break; a submission is by line"
        )
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{run.settings['task']}.{version}.test"
    text = "".join(text + "\n" for text in run.predictions)
    path.write_text(text, encoding="utf-8", newline="\n")
    return path


def _whole(runs: Mapping[str, Run]) -> list[Run]:
    """Those that have decoded all texts of their test set."""
    return [run for run in runs.values() if not run.settings.get("limit")]


def _checked(runs: Mapping[str, Run], data: Path | None) -> tuple[dict[str, Run], list[str]]:
    """Every run against its task's data, where that is at hand; and what people must know."""
    checked, notes, unseen, other = {}, [], [], []
    for name, run in runs.items():
        place = predictions.root(run, data)
        checked[name] = run
        if place:
            checked[name] = predictions.against_task(run, find("finetune.tasks", name), place)
        else:
            unseen.append(name)
        if run.settings.get("limit"):
            notes.append(
                f"{name}: decoded with --limit {run.settings['limit']}, so no submission file"
            )
        elif len(run.ids) != LINES[name]:
            other.append(f"{name} {LINES[name]:,}")
        if run.empty:
            notes.append(f"{name}: predictions without words, scored as they are: {run.empty:,}")
    if other:
        notes.append(f"official test sets have other numbers of lines: {', '.join(other)}")
    if unseen:
        notes.append(f"ids not checked against the data (name it with --data): {', '.join(unseen)}")
    return checked, notes


def _scored(runs: Mapping[str, Run]) -> tuple[dict[str, Scores], list[str]]:
    """Scores by mode and task; and lines on what stands beside the leaderboard's metrics."""
    scores: dict[str, Scores] = {mode: {} for mode in MODES}
    extra: list[str] = []
    for name, run in runs.items():
        task = find("finetune.tasks", name)
        chosen, lacking = report.able(report.metrics(task, ()))
        extra += [line for line in lacking if line not in extra]
        for mode in MODES:
            row = report.scores(run, task, chosen, mode)
            scores[mode][name] = row
            more = [f"{key} {value:.2f}" for key, value in row.items() if key not in COLUMNS[name]]
            if more:
                extra.append(f"{name}, {mode}, not in its mean: {', '.join(more)}")
        extra += [f"{name}, {line}" for line in report.signatures(run, task, chosen, MODES[0])]
    return scores, extra


def _rows(runs: Mapping[str, Run], scores: Mapping[str, Scores]) -> list[list[str]]:
    """The table: a task a row, its metrics as the leaderboard writes them, and the means."""
    rows = [["task", "lines", "official", "mean", "plain", "mean", "metrics"]]
    for name, run in runs.items():
        row = [name, f"{len(run.ids):,}"]
        for mode in MODES:
            values = scores[mode][name]
            row.append("/".join(f"{values[k]:.2f}" if k in values else "-" for k in COLUMNS[name]))
            row.append(f"{mean(name, values):.2f}" if set(COLUMNS[name]) <= set(values) else "-")
        rows.append([*row, "/".join(COLUMNS[name])])
    totals = [_total(scores[mode]).partition(",")[0] for mode in MODES]
    return [*rows, ["overall", "", "", totals[0], "", totals[1], ""]]


def _total(scores: Scores) -> str:
    missing = [task for task in COLUMNS if task not in scores]
    if missing:
        return f"none, {', '.join(missing)} missing"
    half = [task for task, keys in COLUMNS.items() if not set(keys) <= set(scores[task])]
    if half:
        return f"none, a metric of {' and '.join(half)} missing"
    return f"{overall(scores):.2f}"


def _home(places: Sequence[str]) -> Path:
    first = Path(places[0])
    return first if first.is_dir() else first.parent


def _or(names: Sequence[str]) -> str:
    return " or ".join([", ".join(names[:-1]), names[-1]]) if len(names) > 1 else names[0]
