"""Predictions read from their files and checked line by line against the test set."""

import re
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import islice, zip_longest
from pathlib import Path

from finetune.evaluation import facts
from finetune.evaluation.facts import Facts
from januslm.config import Refused
from januslm.data import atomic
from januslm.data.tasks import Task
from januslm.data.text_pairs import records

NAMES = {
    "greedy": "AR greedy",
    "beam": "AR beam",
    "sample": "AR sampling",
    "mask_predict": "NAR",
    "semi": "semi-NAR",
    "speculative": "speculative",
}


@dataclass(frozen=True)
class Predictions:
    """One predictions file: what one algorithm wrote for one test set.

    references: of each line one text or more; or of no line any, where the test set has none.
    """

    path: Path
    facts: Facts
    ids: list[str]
    sources: list[str]
    predictions: list[str]
    references: list[list[str]]

    @property
    def algorithm(self) -> str:
        """What wrote them; the file's name where nothing says it."""
        return self.facts.algorithm or self.path.stem

    @property
    def label(self) -> str:
        """How a row of the table is called: AR beam 5, NAR 4 iterations, 3 lengths, ..."""
        name, chosen = self.algorithm, self.facts.settings
        if self.facts.label:
            return self.facts.label
        text = NAMES.get(name, name)
        if name == "beam" and "beam" in chosen:
            text += f" {chosen['beam']}"
        if name == "mask_predict" and "iterations" in chosen:
            text += f" {chosen['iterations']} iteration" + "s" * (chosen["iterations"] != 1)
            if lengths := chosen.get("length_beam"):
                text += f", {lengths} length" + "s" * (lengths != 1)
        return text + ", AR chooses" * bool(chosen.get("rescore"))

    @property
    def empty(self) -> int:
        """How many predictions have no words."""
        return sum(not text.strip() for text in self.predictions)

    @property
    def blank(self) -> dict[str, int]:
        """How many lines of the test set have a source, or a reference, without words."""
        sides = {"source": [[text] for text in self.sources], "reference": self.references}
        counts = {
            f"empty {side}": sum(not all(text.strip() for text in several) for several in lines)
            for side, lines in sides.items()
        }
        return {what: number for what, number in counts.items() if number}

    @property
    def answered(self) -> bool:
        """Whether there are references to score by."""
        return all(self.references)

    @property
    def tokens_per_pass(self) -> float | None:
        tokens, passes = self.facts.tokens, self.facts.passes
        return tokens / len(self.ids) / passes if tokens and passes else None  # passes per sentence


def load(path: Path, task: str | None = None) -> Predictions:
    """Read FILE.jsonl and FILE.json; the second may be missing where `task` is named."""
    beside = path.with_suffix(".json")
    found = facts.read(beside)
    name = found.task or task
    if not name:
        raise Refused(f"{beside}: says no task; write it there, or name one with --task")
    if task and name != task:
        raise Refused(f"{beside}: predictions of task {name!r}, not of {task!r}")
    rows = list(records(path, "id", texts=("source", "prediction"), lists=("references",)))
    if not rows:
        raise Refused(f"{path}: has no predictions")
    if found.sentences not in (None, len(rows)):
        raise Refused(f"{path}: has {len(rows)} predictions; {beside.name} says {found.sentences}")
    return Predictions(
        path,
        replace(found, task=name),
        ids=_distinct([str(row["id"]) for row in rows], path),
        sources=[row["source"] for row in rows],
        predictions=[row["prediction"] for row in rows],
        references=_all_or_none([row["references"] for row in rows], path),
    )


def put(path: Path, text: str) -> None:
    """Write what was found, with line feeds; Refused where the file system does not let us."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic.plain(path) as file:
            file.write(text)
    except OSError as error:
        raise Refused(f"{path}: cannot be written ({error.strerror})") from None


def _distinct(ids: list[str], path: Path) -> list[str]:
    seen: set[str] = set()
    for number, name in enumerate(ids, 1):
        if name in seen:
            raise Refused(f"{path}:{number}: id {name!r} comes twice")
        seen.add(name)
    return ids


def _all_or_none(references: list[list[str]], path: Path) -> list[list[str]]:
    for number, several in enumerate(references, 1):
        if not several and any(references):
            raise Refused(f"{path}:{number}: 'references' is empty, and not so in every line")
    return references


def _counting_order(path: Path) -> list:
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
        if place.is_dir():
            there = sorted(place.rglob("*.jsonl"), key=_counting_order)
            inside = [path for path in there if path.parent.name == "predictions"] or there
        if not inside:
            raise Refused(f"{place}: no predictions (*.jsonl) in it")
        found += [path for path in inside if path.resolve() not in map(Path.resolve, found)]
    return found


def by_test_set(runs: Iterable[Predictions], apart: bool) -> list[list[Predictions]]:
    """Runs of one task and split together; apart: only where they are of the same data.

    That is data in one place, or the same texts.  Of what does not say its data nothing is known.
    """
    groups: list[list[Predictions]] = []
    for run in sorted(runs, key=lambda one: (one.facts.task, one.facts.split)):
        mine = next((group for group in groups if _together(group[0], run, apart)), None)
        if mine is None:
            groups.append([run])
        else:
            mine.append(run)
    return groups


def _together(one: Predictions, other: Predictions, apart: bool) -> bool:
    a, b = one.facts, other.facts
    if (a.task, a.split) != (b.task, b.split):
        return False
    same_place = not apart or a.data == b.data or not (a.data and b.data)
    if same_place and a.task_options == b.task_options:
        return True
    count = min(len(one.ids), len(other.ids))
    return all(
        getattr(one, name)[:count] == getattr(other, name)[:count]
        for name in ("ids", "sources", "references")
    )


def whole(
    runs: Sequence[Predictions], named: Collection[Path]
) -> tuple[list[Predictions], list[str]]:
    """Runs of equally many lines, and a line on each that was left out for having fewer.

    Left out is what was decoded with --limit and is not `named`; so many lines are right as all
    others have, or else the most of those with a limit.
    """
    full = [len(run.ids) for run in runs if not run.facts.limit or run.path in named]
    sizes = Counter(full or [len(run.ids) for run in runs])
    right = max(sizes, key=lambda size: (sizes[size], size))
    out = [
        run for run in runs if run.facts.limit and run.path not in named and len(run.ids) != right
    ]
    return [run for run in runs if run not in out], [
        f"left out: {run.path.name}, decoded with --limit {run.facts.limit}; name it alone to have "
        "it scored"
        for run in out
    ]


def check(run: Predictions, wanted: Sequence[tuple[str, str]], against: str) -> None:
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
        limit = run.facts.limit
        why = f" (it was decoded with --limit {limit}: score it by itself)" if limit else ""
        raise Refused(
            f"{run.path}: {len(run.ids)} predictions, but {against} has {len(wanted)}{why}"
        )


def root(run: Predictions, given: Path | None) -> Path | None:
    """Where the task's data lies: as given, or as the settings say if it is still there."""
    stated = run.facts.data
    return given or (Path(stated) if stated and Path(stated).is_dir() else None)


def against_task(run: Predictions, task: Task, place: Path) -> Predictions:
    """The run, after checking ids, sources and references against the task's own data.

    References that were not there when it was decoded are taken from the data.
    """
    split = run.facts.split
    pairs = task.read(place, split, skipped=Counter())
    wanted = list(islice(pairs, run.facts.limit))
    against = f"{run.facts.task}'s {split} split"
    check(run, [(p.id, p.source) for p in wanted], against)
    references = [list(p.targets) for p in wanted]
    if not run.answered:
        return replace(run, references=references)
    same_references(run, references, against)
    return run


def scorable(run: Predictions) -> Predictions:
    """The run itself; Refused where its test set came without references."""
    if not run.answered:
        raise Refused(
            f"{run.path}: no references to score by; name the task's data with --data if it has "
            "them by now, or let `evaluate glge` write what GLGE's leaderboard scores"
        )
    return run


def same_references(run: Predictions, wanted: list[list[str]], against: str) -> None:
    """Refuse predictions that are to be scored by other references than `wanted`."""
    for number, (ours, theirs) in enumerate(zip(run.references, wanted, strict=True), 1):
        if ours != theirs:
            raise Refused(
                f"{run.path}:{number}: id {run.ids[number - 1]!r} has other references than "
                f"{against}"
            )


def with_distinct_labels(runs: Sequence[Predictions]) -> list[Predictions]:
    """The same runs; labels that several have are followed by what differs in their paths."""
    same = {label: [run for run in runs if run.label == label] for label in {r.label for r in runs}}
    return [
        run
        if len(same[run.label]) == 1
        else replace(run, facts=replace(run.facts, label=_apart(run, same[run.label])))
        for run in runs
    ]


def _apart(run: Predictions, others: Sequence[Predictions]) -> str:
    """AR greedy (ar), for runs/ar/predictions/test.greedy.jsonl beside runs/janus/..."""
    columns = list(zip_longest(*(reversed(_parts(one)) for one in others)))
    parts = zip(reversed(_parts(run)), columns, strict=False)
    differing = [part for part, column in parts if len(set(column)) > 1]
    return f"{run.label} ({'/'.join(reversed(differing)) or run.path})"


def _parts(run: Predictions) -> tuple[str, ...]:
    return run.path.with_suffix("").parts
