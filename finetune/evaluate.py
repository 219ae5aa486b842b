"""python -m finetune.evaluate: predictions -> one table of quality and speed, and examples."""

import argparse
import json
import shutil
import sys
import textwrap
from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path

from finetune.evaluation import facts, predictions, scoring
from finetune.evaluation.facts import TIMED
from finetune.evaluation.predictions import Predictions
from finetune.evaluation.scoring import Metric
from finetune.glge import leaderboard
from januslm import registry
from januslm.cli.command import answered, parser
from januslm.cli.table import drawn
from januslm.config import Refused
from januslm.data import tasks
from januslm.data.tasks import Task
from januslm.metrics import _bootstrap

AR = ("greedy", "beam")  # what other ways' speed is compared with
HELP = """\
Score predictions: one table per task, a row per algorithm, next to the task's baselines.

  PROGRAM evaluate runs/demo/restore            all predictions of a run, or of a folder
  PROGRAM evaluate greedy.jsonl nar.jsonl       or these files
  ... --intervals                                   scores with their 95 % intervals
  PROGRAM evaluate --compare greedy.jsonl nar.jsonl   is their difference real? (paired bootstrap)
  ... --compare greedy beam                         the same of rows of the table, by name
  ... --metric bleu:mode=compound --metric bleu     other metrics than the task's own
  ... --data ../shared/data                         check ids against the task's test set
  PROGRAM evaluate glge runs/glge/ar            GLGE: all tasks, overall score, submission

A predictions file has one JSON object a line, in the order of the test set:
{"id", "source", "prediction", "references": [...]}; beside it lies a .json of the same name with
task, algorithm and time, as `generate` writes them. Of a folder, files that were decoded with
--limit are left out where others have more lines. Scores are also written to scores.json."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code 0, or 2 and one line on stderr for a mistake of the user's."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    if words[:1] == ["glge"]:
        return leaderboard.main(words[1:])
    known = _parser()
    given = known.parse_args(words)
    places = [*given.places, *_compared_files(given.compare or ())]
    if not places:
        known.error("the following arguments are required: DIR_OR_FILE")

    def command() -> None:
        registry.extend(given.plugins)
        try:
            paths = predictions.files(places)
        except Refused:
            scoring.asked(given.metric)  # what was typed wrong is said first
            raise
        for path in paths:
            for folder in facts.read(path.with_suffix(".json")).plugins:
                registry.extend_again(folder)
        scoring.asked(given.metric)  # a wrong name or option is refused before texts are read
        runs = [predictions.load(path, given.task) for path in paths]
        named = {Path(place) for place in places if Path(place).is_file()}
        home = Path(places[0])
        found = evaluate(runs, given, named)
        out = (home if home.is_dir() else home.parent) / "scores.json"
        predictions.put(out, json.dumps(found, indent=1, ensure_ascii=False) + "\n")
        print(f"scores written to {out}")

    return answered(command)


def _compared_files(names: Sequence[str]) -> list[str]:
    """What --compare names by its file is scored, too: it need not be named twice."""
    return [name for name in names if name.endswith(".jsonl") and Path(name).is_file()]


def evaluate(
    runs: list[Predictions], given: argparse.Namespace, named: Collection[Path] = ()
) -> list[dict]:
    """Print examples, a table and its verdicts per test set; return what they say.

    named: files that are scored in any case; of all others those of --limit may be left out.
    """
    groups = predictions.by_test_set(runs, apart=not given.data)
    able = [g for g in groups if all(_matching(g, name) for name in given.compare or ())]
    found = []
    for several in groups:
        about, comparable = several[0].facts, any(several is group for group in able)
        task = tasks.find(about.task, about.task_options, str(several[0].path))
        several, left_out = predictions.whole(several, named)
        group, note = checked(several, task, given.data)
        note = "\n".join([note, *left_out])
        chosen = scoring.metrics(task, given.metric)
        if not given.metric:  # what is asked for by name is refused where it cannot run
            chosen, lacking = scoring.able(chosen)
            note = "\n".join([note, *lacking])
        result: dict = {"task": about.task, "split": about.split, "data": about.data, "modes": {}}
        print(f"\n{tasks.title(task)}, {about.split}: {len(group[0].ids)} sentences{note}")
        if given.examples:
            print("\n" + examples(group, given.examples, shutil.get_terminal_size().columns))
        for mode in scoring.modes(task):
            result["modes"][mode] = _mode(group, task, chosen, mode, given.intervals)
        if given.compare and (comparable or not able):
            result["compare"] = _compare(group, given.compare, task, chosen)
        found.append(result)
    return found


def _mode(
    runs: list[Predictions], task: Task, chosen: list[Metric], mode: str, intervals: bool
) -> dict:
    """Print the table of one post-processing mode and what follows from it."""
    rows = {run.label: scoring.scores(run, task, chosen, mode) for run in runs}
    bases = {
        run.label: scoring.scores(run, task, chosen, mode)
        for run in scoring.baselines(runs[0], task)
    }
    half = {run.label: scoring.halves(run, task, chosen, mode) for run in runs if intervals}
    heading = ["post-processing: " + mode] if len(scoring.modes(task)) > 1 else []
    lines = [*heading, table(runs, rows, bases, half)]
    if first := anchor(runs):
        timed = [run.facts.timed for run in runs if run.facts.ms_per_sentence]
        if any(one != first.facts.timed for one in timed):
            lines.append(f"speed -: another {' or '.join(TIMED)} than {first.label}")
    if intervals:
        few = f"no intervals: they need {_bootstrap.FEW} lines"
        lines.append(scoring.PLUS_MINUS if len(runs[0].ids) >= _bootstrap.FEW else few)
    lines += verdicts(rows, bases)
    lines += scoring.signatures(runs[0], task, chosen, mode)
    print("\n".join(["", *lines]))
    found: dict[str, dict] = {
        label: {**row, "ms_per_sentence": run.facts.ms_per_sentence, "file": run.path.name}
        for run, (label, row) in zip(runs, rows.items(), strict=True)
    } | bases
    for label, values in half.items():
        found[label]["intervals"] = values
    return found


def table(
    runs: list[Predictions],
    rows: dict[str, dict],
    bases: dict[str, dict],
    halves: dict[str, dict[str, float]],
) -> str:
    """One row per run: scores, milliseconds, speed against AR's, and what was cut or empty."""
    return drawn(cells(runs, rows, bases, halves))


def cells(
    runs: list[Predictions],
    rows: dict[str, dict],
    bases: dict[str, dict],
    halves: dict[str, dict[str, float]],
) -> list[list[str]]:
    """The same as texts, the heading first; "-" where there is nothing."""
    keys = list(next(iter(rows.values())))
    ar = anchor(runs)
    head = ["algorithm", *keys, "ms/sentence", f"speed vs {ar.label if ar else 'AR'}"]
    head += ["tokens/pass", "truncated", "empty"]
    body = []
    for run, (label, row) in zip(runs, rows.items(), strict=True):
        ms, half = run.facts.ms_per_sentence, halves.get(label, {})
        speed = "-"
        if ar and ms and ar.facts.ms_per_sentence and ar.facts.timed == run.facts.timed:
            speed = f"{ar.facts.ms_per_sentence / ms:.1f}x"
        cut = run.facts.truncated
        body.append(
            [
                label,
                *(f"{row[k]:.2f}" + (f" \u00b1{half[k]:.2f}" if k in half else "") for k in keys),
                "-" if ms is None else f"{ms:.1f}",
                speed,
                "-" if run.tokens_per_pass is None else f"{run.tokens_per_pass:.1f}",
                "-" if cut is None else str(cut),
                str(run.empty or "-"),
            ]
        )
    for name, base in bases.items():
        body.append([name, *(f"{base[key]:.2f}" for key in keys), *"-----"])
    return [head, *body]


def anchor(runs: list[Predictions]) -> Predictions | None:
    """The AR run that speed is compared with: the one with the widest beam, or else greedy."""
    timed = [r for r in runs if r.facts.algorithm in AR and r.facts.ms_per_sentence]
    return max(timed, key=_width, default=None)


def _width(run: Predictions) -> int:
    beam = run.facts.settings.get("beam")
    return beam if isinstance(beam, int) else 0  # of another program it may be anything


def verdicts(rows: dict[str, dict], bases: dict[str, dict]) -> list[str]:
    """A sentence for each row: does it beat the best baseline, by the first number?"""
    if not bases:
        return []
    key = next(iter(next(iter(bases.values()))))
    best = max(bases, key=lambda name: bases[name][key])
    return [beats(label, row[key], best, bases[best][key], key) for label, row in rows.items()]


def beats(label: str, score: float, lead: str, base: float, key: str) -> str:
    """One sentence: AR greedy does not beat lead-1: 18.2 < 22.7 ROUGE-1."""
    verdict, sign = ("beats", ">") if score > base else ("does not beat", "<")
    if f"{score:.2f}" == f"{base:.2f}":
        verdict, sign = "does not beat", "="
    return f"{label} {verdict} {lead}: {score:.2f} {sign} {base:.2f} {key.upper()}"


def examples(runs: list[Predictions], count: int, width: int) -> str:
    """Some sentences, evenly spread: source, reference and what every system made of it."""
    total = len(runs[0].ids)
    names = ["source", "reference", *(run.label for run in runs)]
    margin = max(map(len, names)) + 2
    blocks = []
    for i in sorted({(2 * n + 1) * total // (2 * count) for n in range(count)}):
        shown = [runs[0].sources[i], runs[0].references[i][0], *(r.predictions[i] for r in runs)]
        lines = [f"example {runs[0].ids[i]}"]
        for name, text in zip(names, shown, strict=True):
            body = textwrap.wrap(text, max(20, width - margin), max_lines=6) or ["(nothing)"]
            lines += [f"{name if n == 0 else '':{margin}}{line}" for n, line in enumerate(body)]
        blocks.append("\n".join(lines))
    return "\n\n".join(blocks)


def checked(
    runs: list[Predictions], task: Task, data: Path | None
) -> tuple[list[Predictions], str]:
    """All runs of one test set, each against the task's data, or else against the first."""
    place = predictions.root(runs[0], data)
    note = f", ids as in {place}" if place else " (ids not checked against the task: no --data)"
    if place:
        runs = [predictions.against_task(run, task, place) for run in runs]
    runs = [predictions.scorable(run) for run in runs]
    note += "".join(f", {number:,} {what} kept" for what, number in runs[0].blank.items())
    wanted = list(zip(runs[0].ids, runs[0].sources, strict=True))
    for run in runs[1:]:
        predictions.check(run, wanted, str(runs[0].path))
        predictions.same_references(run, runs[0].references, str(runs[0].path))
    return predictions.with_distinct_labels(runs), note


def _compare(
    runs: list[Predictions], pair: Sequence[str], task: Task, chosen: list[Metric]
) -> list[str]:
    """Print, and return, the paired bootstrap of two runs in the first mode."""
    first, second = (_named(runs, name) for name in pair)
    mode = scoring.modes(task)[0]
    ours, references = scoring.texts(first, task, mode)
    theirs, _ = scoring.texts(second, task, mode)
    lines = []
    for metric in chosen:
        if not hasattr(metric.module, "each"):
            lines.append(f"{metric.name}: no interval, it is not made of lines")
            continue
        found = _bootstrap.compare(metric.module, ours, theirs, references, options=metric.options)
        lines += [str(replace(one, name=one.name + metric.suffix)) for one in found]
    print(f"\n{first.label} - {second.label}, paired bootstrap, {mode}:")
    print("\n".join("  " + line for line in lines))
    return lines


def _named(runs: list[Predictions], name: str) -> Predictions:
    """The run of that row, file or end of a path (janus/predictions/test.beam), or algorithm."""
    found = _matching(runs, name)
    if len(found) == 1:
        return found[0]
    known = "; ".join(run.label for run in runs)
    raise Refused(f"--compare: {len(found)} predictions {name!r} among these; there are {known}")


def _matching(runs: list[Predictions], name: str) -> list[Predictions]:
    """All that may be meant by a name, by the first of three readings that finds any."""
    path = Path(name).as_posix()
    ends = [
        run for run in runs if f"/{run.path.as_posix()}".endswith((f"/{path}", f"/{path}.jsonl"))
    ]
    same = [run for run in runs if run.facts.algorithm == name]
    return [run for run in runs if run.label == name] or ends or same


def _parser() -> argparse.ArgumentParser:
    known = parser("evaluate", HELP)
    known.add_argument("places", nargs="*", metavar="DIR_OR_FILE")
    known.add_argument("--intervals", action="store_true", help="95 %% intervals of all scores")
    known.add_argument("--compare", nargs=2, metavar=("A", "B"), help="files, or rows of the table")
    known.add_argument("--metric", action="append", default=[], help="NAME or NAME:option=value")
    known.add_argument(
        "--plugins", default="", metavar="DIR", help="metrics of your own: DIR/metrics"
    )
    known.add_argument("--task", help="where no settings lie beside the predictions")
    known.add_argument("--data", type=Path, metavar="ROOT", help="folder with the tasks' data")
    known.add_argument("--examples", type=int, default=3, metavar="N", help="how many (3)")
    return known


if __name__ == "__main__":
    sys.exit(main())
