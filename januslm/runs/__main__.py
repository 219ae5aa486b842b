"""All runs below a folder, or the whole story of one.

PROGRAM runs                 all below runs/, a line each
PROGRAM runs FOLDER          all below FOLDER
PROGRAM runs show RUN        configuration, versions, starts, stops, checkpoints of a run's folder
"""

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from januslm.cli.command import answered, parser
from januslm.cli.table import drawn, shown_bytes
from januslm.config import Refused
from januslm.runs.compare import Facts, facts_of, flat, tables
from januslm.runs.story import Story, below, checkpoints, story_of
from januslm.training.manifest import Found, step_of

HEAD = ("run", "state", "step", "loss", "valid", "checkpoint", "size", "held by", "since")
CELL = 44  # letters of a value beside others


def main() -> int:
    known = parser("runs", __doc__)
    known.add_argument("words", nargs="*", metavar="FOLDER | show RUN | compare A B")
    words = known.parse_args().words

    def command() -> None:
        if words[:1] == ["show"]:
            if len(words) != 2:
                raise Refused("runs show takes the folder of one run")
            print("\n".join(lines(story_of(Path(words[1])))))
            return
        if words[:1] == ["compare"]:
            if len(words) < 3:
                raise Refused("runs compare takes the folders of two runs or more")
            print(compared([facts_of(Path(word)) for word in words[1:]]))
            return
        if len(words) > 1:
            raise Refused(f"runs takes one folder, got {len(words)}; runs show RUN for one run")
        print(table(Path((words or ["runs"])[0])))

    return answered(command)


def table(root: Path) -> str:
    """One line for each run below a folder."""
    if not root.is_dir():
        raise Refused(f"{root}: no such folder; name one with runs below it")
    rows = [_row(story_of(folder), root) for folder in below(root)]
    if not rows:
        return f"no run below {root}"
    return drawn([HEAD, *rows], left=2)


def compared(runs: Sequence[Facts]) -> str:
    """One table with a column for each run; what could not be read of them comes first."""
    rows = [("", *(run.name for run in runs))]
    for title, inside in tables(runs):
        rows.append((title, *[""] * len(runs)) if inside else (title, *["none"] * len(runs)))
        rows += [(f"  {name}", *map(_short, values)) for name, values in inside]
    notes = [f"damaged: {problem}\n" for run in runs for problem in run.problems]
    return "".join(notes) + drawn(rows, left=len(rows[0]))


def _short(text: str) -> str:
    """What fits beside others: the start of it, without letters that move a terminal's cursor."""
    plain = "".join(letter if letter.isprintable() else " " for letter in text)
    return plain if len(plain) <= CELL else plain[: CELL - 3] + "..."


def _row(story: Story, root: Path) -> tuple[str, ...]:
    name = str(story.folder.relative_to(root))
    last = next((name for name, found in checkpoints(story.folder) if isinstance(found, Found)), "")
    return (
        str(root) if name == "." else name,
        story.state + (" (damaged)" if story.problems else ""),
        _progress(story),
        _number(story.train.get("loss")),
        _number(story.valid.get("loss")),
        f"{step_of(last):,}" if last else "-",
        shown_bytes(story.bytes),
        _holder(story),
        story.since,
    )


def _progress(story: Story) -> str:
    return f"{story.step:,} of {story.steps:,}" if story.steps else f"{story.step:,}"


def _holder(story: Story) -> str:
    if not story.holder:
        return "-"
    who = story.holder
    return f"{who.get('user', '?')}@{who.get('host', '?')}:{who.get('pid', '?')}"


def _number(value) -> str:
    return f"{value:.4f}" if isinstance(value, int | float) else "-"


def lines(story: Story) -> Iterator[str]:
    """The whole story."""
    yield f"{story.folder}: {story.state} since {story.since}, step {_progress(story)}"
    yield from (f"  damaged: {problem}" for problem in story.problems)
    if story.holder:
        yield f"  held by {_holder(story)}"
    for title, record in (("train", story.train), ("valid", story.valid)):
        numbers = " ".join(f"{k} {_number(v)}" for k, v in record.items() if isinstance(v, float))
        if numbers:
            yield f"  {title} at step {record.get('step', '?')}: {numbers}"
    yield from _listed("configuration", (f"{k} = {v}" for k, v in flat(story.config)))
    yield from _listed("history", (_event(event) for event in story.events))
    yield from _listed("checkpoints", _checkpoints(story))


def _listed(title: str, items: Iterator[str]) -> Iterator[str]:
    found = list(items)
    if found:
        yield ""
        yield f"{title}:"
        yield from (f"  {item}" for item in found)


def _event(event: dict) -> str:
    facts = {k: v for k, v in event.items() if k not in ("time", "event")}
    shown = ", ".join(f"{name} {text}" for name, text in flat(facts))
    return f"{event.get('time', '?')} {event.get('event', '?')}: {shown}"


def _checkpoints(story: Story) -> Iterator[str]:
    for name, found in checkpoints(story.folder):
        if isinstance(found, str):
            yield f"{name}: {found}"
        else:
            facts = found.manifest
            yield (
                f"{name}: {shown_bytes(found.bytes)}, {facts.get('world')} processes, ZeRO "
                f"stage {facts.get('stage')} in {facts.get('precision')}"
                + (", while updates were skipped" if found.doubtful else "")
            )


if __name__ == "__main__":
    sys.exit(main())
