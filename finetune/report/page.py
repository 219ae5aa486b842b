"""The page itself: what is known of runs, put into the template beside this file."""

import base64
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from importlib import resources
from pathlib import Path

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from finetune.report import examples, scores, training
from finetune.report.charts import EDGES, HEIGHT, ROW, WIDTH, Chart
from finetune.report.examples import Written
from januslm import registry
from januslm.cli.table import shown_bytes
from januslm.config import Refused
from januslm.objectives.__main__ import drawing
from januslm.runs import compare
from januslm.runs.compare import Facts, flat
from januslm.runs.data_card import Card, inner
from januslm.runs.story import checkpoints


@dataclass(frozen=True)
class RunPage:
    """What the template says of one run."""

    name: str
    color: int
    charts: list[Chart]
    history: list[tuple[str, str, str, str]]
    reasons: str  # how often it was started, and by what it ended
    cards: list[Card]
    layout: str
    layout_name: str
    settings: list[tuple[str, str]]
    checkpoints: list[tuple[str, str]]
    written: Written


def written(runs: Sequence[Facts], count: int, iterations: int, threads: int | None) -> str:
    """The HTML of a report; everything in it that comes from a run is escaped."""
    folders = [run.story.folder for run in runs]
    scored = scores.of(folders)
    names = _names(folders)
    pages, problems = [], [problem for run in runs for problem in run.problems]
    for number, run in enumerate(runs):
        known = scored.runs.get(run.story.folder, ())
        made = examples.of(run.story.folder, known, count, iterations, threads)
        pages.append(_run_page(run, names[number], number, made))
    tables = list(compare.tables(runs, scores=False))
    return _template().render(
        title=", ".join(names),
        made=datetime.now().astimezone().strftime("%Y-%m-%d %H:%M %Z"),
        names=names,
        runs=pages,
        problems=problems + scored.problems,
        standing=[table for table in tables if "differ" not in table[0]],
        differing=[table for table in tables if "differ" in table[0]],
        compared=training.compared(runs, names),
        tables=scored.tables,
        width=WIDTH,
        height=HEIGHT,
        edges=EDGES,
        row=ROW,
        style=_file("page.css"),
        script=_file("page.js"),
        script_hash=_hash(_file("page.js")),
    )


def _run_page(run: Facts, name: str, number: int, made: Written) -> RunPage:
    objective = inner(run.story.config, "objective")
    return RunPage(
        name,
        number % training.COLORS,
        training.charts(run),
        list(training.history(run)),
        training.reasons(run),
        run.cards,
        _layout(run, objective),
        " ".join([str(objective.get("name", "?")), *(f"{k}={v}" for k, v in _options(objective))]),
        list(flat(run.story.config)),
        [_checkpoint(*one) for one in checkpoints(run.story.folder)],
        made,
    )


def _options(objective: dict) -> list[tuple[str, object]]:
    return [(key, value) for key, value in objective.items() if key != "name"]


def _layout(run: Facts, objective: dict) -> str:
    try:
        registry.extend_again(str(run.story.config.get("plugins") or ""))
        return drawing(str(objective.get("name", "")), dict(_options(objective)))
    except Refused as error:
        return f"cannot be drawn: {error}"


def _checkpoint(name: str, found) -> tuple[str, str]:
    if isinstance(found, str):
        return name, found
    facts = found.manifest
    return name, (
        f"{shown_bytes(found.bytes)}, by {facts.get('world')} "
        f"process{'es' * (facts.get('world') != 1)}, ZeRO stage "
        f"{facts.get('stage')} in {facts.get('precision')}"
    )


def _names(folders: Sequence[Path]) -> list[str]:
    """As they were given, without what all of them begin with; the folder's own name for `.`."""
    parts = [folder.parts or (folder.resolve().name,) for folder in folders]
    shared, most = 0, min(map(len, parts)) - 1
    while len(folders) > 1 and shared < most and len({part[shared] for part in parts}) == 1:
        shared += 1
    return [str(Path(*part[shared:])) for part in parts]


def _template():
    environment = Environment(
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["broken"] = _broken
    return environment.from_string(_file("page.html"))


def _broken(path: str) -> Markup:
    """A long path may go on in the next line after a slash."""
    return Markup("/<wbr>").join(path.split("/"))


def _file(name: str) -> str:
    return (resources.files("finetune.report") / name).read_text(encoding="utf-8")


def _hash(script: str) -> str:
    """By which the page's own rule lets this script run, and no other."""
    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
