"""Runs side by side: how they stand, what differs in their settings, what came of them."""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from januslm.cli.progress import duration
from januslm.interop.export_folder import FILES
from januslm.runs import logs
from januslm.runs.data_card import Card, cards, inner, shown
from januslm.runs.logs import Log
from januslm.runs.story import Story, story_of

NONE, UNKNOWN = "-", "?"  # it has none; its file cannot be read
SAME = ("out", "data.fingerprints", "data.pairs", "tokenizer_sha256")  # names and marks of data
SCORES = ("scores.json", "predictions/scores.json")  # where `evaluate` leaves them
Row = tuple[str, list[str]]  # what it is, and of each run


@dataclass(frozen=True)
class Facts:
    """A run with all that lies in its folder as text.  problems: what could not be read."""

    story: Story
    train: Log
    valid: Log
    cards: list[Card]

    @property
    def problems(self) -> list[str]:
        return [*self.story.problems, *self.train.problems, *self.valid.problems]

    @property
    def name(self) -> str:
        return str(self.story.folder)

    @property
    def starts(self) -> list[dict]:
        return [event for event in self.story.events if event.get("event") == "start"]

    @property
    def seconds(self) -> float | None:
        """How long its processes ran: from each start to the last that is known of it."""
        times = [(_time(event), event.get("event")) for event in self.story.events]
        ran = [b - a for (a, _), (b, what) in pairwise(times) if what != "start" and a and b]
        return sum(ran) if ran else None


def facts_of(folder: Path) -> Facts:
    """Refused where there is no run."""
    story = story_of(folder)
    train, valid = (logs.read(story.folder, name) for name in ("train", "valid"))
    return Facts(story, train, valid, cards(story))


def tables(runs: Sequence[Facts], scores: bool = True) -> Iterator[tuple[str, list[Row]]]:
    """Titles and rows; of settings and versions only what is not the same.

    scores: those that `evaluate` has left in the folders.
    """
    yield "run", list(_standing(runs))
    settings = [dict(flat(run.story.config)) for run in runs]
    yield "settings that differ", list(_differing(settings, SAME))
    versions = [dict(flat(_versions(run))) for run in runs]
    yield "versions that differ", list(_differing(versions))
    yield "data", list(_data(runs))
    yield "last losses: train / valid", list(_last(runs))
    if scores:
        yield "scores", list(_scores([run.story.folder for run in runs]))
    yield "speed of training", list(_speed(runs))


def flat(value: Any, key: str = "") -> Iterator[tuple[str, str]]:
    """(a.b, value), as a run file's changes are written."""
    if isinstance(value, dict) and value:
        for name, inside in value.items():
            yield from flat(inside, f"{key}.{name}" if key else str(name))
    elif key:
        yield key, repr(value)


def _standing(runs: Sequence[Facts]) -> Iterator[Row]:
    yield "task", [shown(run.story.config.get("task", "pretraining")) for run in runs]
    objectives = [inner(run.story.config, "objective").get("name", NONE) for run in runs]
    yield "objective", [shown(name) for name in objectives]
    yield "parameters", [_parameters(run.story.folder / "export" / FILES[0]) for run in runs]
    yield "state", [run.story.state for run in runs]
    yield "update", [shown(run.story.step) for run in runs]
    yield "examples seen", [_number(run.train.last("samples")) for run in runs]
    yield "starts", [shown(len(run.starts)) if run.starts else NONE for run in runs]
    yield "processes", [shown((run.starts or [{}])[-1].get("world", NONE)) for run in runs]
    yield "time", [duration(run.seconds) if run.seconds is not None else NONE for run in runs]


def _parameters(file: Path) -> str:
    """Of the exported model, by the file's head alone."""
    try:
        with safe_open(file, framework="numpy") as tensors:
            count = sum(math.prod(tensors.get_slice(n).get_shape()) for n in tensors.keys())  # noqa: SIM118
    except (OSError, SafetensorError):
        return NONE
    return f"{count / 1e6:.1f} M"


def _versions(run: Facts) -> dict:
    """Of its last start."""
    last = (run.starts or [{}])[-1]
    return inner(last, "versions") | ({"januslm": last["code"]} if "code" in last else {})


def _differing(tables: Sequence[Mapping[str, str]], leave_out: Sequence[str] = ()) -> Iterator[Row]:
    known = [table for table in tables if table]
    passed = tuple(f"{one}." for one in leave_out)
    for name in dict.fromkeys(name for table in known for name in table):
        different = len({table.get(name) for table in known}) > 1
        if different and not f"{name}.".startswith(passed):
            yield name, [table.get(name, NONE) if table else UNKNOWN for table in tables]


def _data(runs: Sequence[Facts]) -> Iterator[Row]:
    for split in ("train", "valid"):
        mine = [[card for card in run.cards if card.split == split] for run in runs]
        yield split, ["; ".join(card.size or card.note for card in some) or NONE for some in mine]
    marks = [inner(run.story.config, "data") for run in runs]
    keys = [repr(one.get("fingerprints") or one.get("pairs")) for one in marks]
    if len(runs) > 1:
        others = ["the first's" if key == keys[0] else "others" for key in keys[1:]]
        yield "training texts", ["the first's", *others]
    words = [str(run.story.config.get("tokenizer_sha256", NONE))[:12] for run in runs]
    yield "tokenizer", words


def _last(runs: Sequence[Facts]) -> Iterator[Row]:
    logs = [(run.train, run.valid) for run in runs]
    names = dict.fromkeys(name for both in logs for log in both for name in log.names)
    scored = {name for _, valid in logs for name in valid.names}
    for name in names:
        if name == "loss" or "/" in name or name in scored:
            values = [[log.last(name) for log in both] for both in logs]
            shown = [[NONE if v is None else f"{v:.4g}" for v in both] for both in values]
            yield name, [" / ".join(both) for both in shown]


def _scores(folders: Sequence[Path]) -> Iterator[Row]:
    found = [scored(folder) for folder in folders]
    if not any(found):
        yield "none: januslm evaluate RUN writes them", [NONE] * len(folders)
    for label in dict.fromkeys(label for table in found for label in table):
        yield label, [table.get(label, NONE) for table in found]


def scored(folder: Path) -> dict[str, str]:
    """Of each row of the tables of `evaluate` the first metric and the speed; the best first."""
    found: dict[str, str] = {}
    for name in SCORES:
        if (folder / name).is_file():
            try:
                results = json.loads((folder / name).read_text(encoding="utf-8"))
            except (OSError, ValueError, RecursionError) as error:
                return {name: f"cannot be read: {error}"}
            for result in results if isinstance(results, list) else []:
                found |= _of_result(result)
            return found
    return found


def _of_result(result: Any) -> dict[str, str]:
    rows: dict[str, str] = {}
    if not isinstance(result, dict):
        return rows
    for mode, table in inner(result, "modes").items():
        where = f"{result.get('task')} {result.get('split')} {mode}".removesuffix(" plain")
        first = {label: one for label, row in table.items() if (one := _first(row))}
        written = [label for label in first if "file" in table[label]]  # not the baseline
        if written:
            best = max(written, key=lambda label: first[label][1])
            rows[f"{where}, best"] = f"{first[best][0]} {first[best][1]:.2f}, {best}"
        for label, (name, score) in first.items():
            ms = table[label].get("ms_per_sentence")
            speed = f", {ms:.1f} ms a text" if isinstance(ms, int | float) else ""
            rows[f"{where}, {label}"] = f"{name} {score:.2f}{speed}"
    return rows


def _first(row: Any) -> tuple[str, float] | None:
    """The first metric of a row, and its score."""
    scores = row.items() if isinstance(row, dict) else ()
    numbers = ((str(name), one) for name, one in scores if isinstance(one, int | float))
    return next((one for one in numbers if one[0] != "ms_per_sentence"), None)


def _speed(runs: Sequence[Facts]) -> Iterator[Row]:
    names = {"tokens_per_second": "tokens a second", "seconds_per_step": "seconds an update"}
    for name, title in names.items():
        values = [run.train.middle(name) for run in runs]
        yield f"{title} (median)", [_number(value) for value in values]
    memory = [run.train.most("memory_gb") for run in runs]
    yield "memory of a process, GB", [_number(value) for value in memory]


def _number(value: float | None) -> str:
    if value is None:
        return NONE
    return f"{value:,.0f}" if value >= 100 or value == int(value) else f"{value:.3g}"


def _time(event: Mapping) -> float | None:
    try:
        return datetime.fromisoformat(event["time"]).timestamp()
    except (KeyError, TypeError, ValueError):
        return None
