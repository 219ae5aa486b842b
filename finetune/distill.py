"""Sequence-level distillation: a teacher's training set.

  PROGRAM distill runs/multi30k/ar data/multi30k_distilled beam=5 length_penalty=1.0

Decodes the training set of the run's task by beam search and writes it, with validation and test
set as they are, in files that the task reads: train a student on it with data.root=OUT.  Stopped,
the same command goes on.  Options of the beam are key=value.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shutil
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from januslm import registry
from januslm.cli.command import answered, check_counts, parser, warn
from januslm.cli.progress import Progress
from januslm.config import Refused, assignments, json_table
from januslm.data import atomic
from januslm.data.text_pairs import MADE, Pair, records
from januslm.data.token_pairs import sources
from januslm.inference import request
from januslm.inference.request import TrainedRun
from januslm.interop.export_folder import FILES
from januslm.training.run_dir import difference

if TYPE_CHECKING:  # it imports torch
    from januslm.inference.trained_model import TrainedModel

BEGUN, PORTIONS = "begun.json", ".portions"


def main() -> int:
    options = _arguments()

    def command() -> None:
        distill(options)

    return answered(command)


def _arguments() -> argparse.Namespace:
    known = parser("distill", __doc__)
    known.add_argument("run", metavar="RUN", help="the teacher: a run's folder, or its export/")
    known.add_argument("out", type=Path, metavar="OUT", help="the folder to write")
    known.add_argument("options", nargs="*", metavar="key=value", help="options of the beam")
    known.add_argument("--batch", type=int, default=32, help="sentences at once")
    known.add_argument("--portion", type=int, default=5000, help="sentences between two savings")
    known.add_argument("--limit", type=int, help="only the first N sentences")
    known.add_argument("--task", help="another task than the run was trained on")
    known.add_argument("--data", help="where the task's files lie (default: as in training)")
    known.add_argument("--threads", type=int, help="CPU threads (default: torch's)")
    return known.parse_intermixed_args()


@dataclass(frozen=True)
class Teacher:
    """A model with its task and how it decodes."""

    run: TrainedRun
    model: TrainedModel
    settings: dict  # of the beam
    batch: int

    def read(self, skipped: Counter) -> Iterator[Pair]:
        """The task's own training pairs; empty ones are counted and left out."""
        return self.run.task.read(self.run.root, "train", skipped=skipped)

    def write(self, pairs: list[Pair], tick: Callable[[int], None]) -> tuple[list[str], dict]:
        """What it makes of the sources, and the counts; `tick` gets how many are done."""
        from januslm.decoding import beam
        from januslm.inference import generator

        words, decoder = self.model.tokenizer, self.model.incremental()
        arrays, cut = sources([pair.source for pair in pairs], words, self.run.limits.source)
        ways = {"beam": partial(beam.decode, **self.settings)}
        made = generator.write(decoder, ways, arrays, words.special, self.batch, tick)["beam"]
        counts = {"sentences": len(pairs), "sources cut": len(cut), "words": made.tokens}
        texts = [generator.text(words, output) for output in made.outputs]
        return texts, counts | {"seconds": made.seconds}


def distill(options: argparse.Namespace) -> dict:
    """Decode what is not decoded yet, then write the task's files; returns the counts."""
    found, settings = _asked(options)
    out, task = options.out, found.task
    about = {
        "task": found.task_name,
        "data": str(found.root.resolve()),
        "teacher": str(found.facts.folder),
        "weights": _digest(found.facts.folder / FILES[0]),
        "settings": settings,
        "limits": vars(found.limits),
        "limit": options.limit,
        "portion": options.portion,
    }
    if (out / MADE).is_file():
        done = json_table(out / MADE)
        _same(done.get("about", {}), about, out)
        print(f"{out} is done: {_summary(done['counts'])}")
        return done["counts"]
    # First, so that a root without these sets is refused before hours of decoding.
    empty: dict[str, Counter] = {"valid": Counter(), "test": Counter()}
    rest = {
        split: list(task.read(found.root, split, skipped=counter))
        for split, counter in empty.items()
    }
    made = teacher(found, settings, options.batch, options.threads)
    _begin(out, about)
    for split, pairs in rest.items():
        written = task.save(out, split, pairs)
        kept = "".join(f", {number:,} {side} kept" for side, number in empty[split].items())
        kept += "" if all(pair.targets for pair in pairs) else ", without targets"
        print(f"{split}: {written:,} pairs as they are{kept}", flush=True)
    counts = _portions(made, out / PORTIONS, options.portion, options.limit)
    counts["written"] = task.save(out, "train", _written(out / PORTIONS, counts))
    with atomic.plain(out / MADE) as file:
        file.write(json.dumps({"about": about, "counts": counts}, indent=1))
    shutil.rmtree(out / PORTIONS)
    print(f"wrote {out}: {_summary(counts)}")
    return dict(counts)


def _asked(options: argparse.Namespace) -> tuple[TrainedRun, dict]:
    """The teacher's run and its beam's settings; Refused where its task cannot be written."""
    check_counts(options, "portion", "batch", "limit", "threads")
    found = request.find(options.run, options.task, options.data)
    if not hasattr(found.task, "save"):
        able = [
            one
            for one in registry.names("finetune.tasks")
            if hasattr(registry.find("finetune.tasks", one), "save")
        ]
        raise Refused(f"task {found.task_name!r} has no `save`; tasks with it: {', '.join(able)}")
    given = assignments(options.options, "beam=5")
    settings = request.settings(found.facts, "beam", given, found.task.DECODE)
    warn(request.notes(found.facts, "beam", given))
    return found, settings


def teacher(found: TrainedRun, settings: dict, batch: int, threads: int | None) -> Teacher:
    """The run's model, ready to write."""
    import torch

    from januslm.inference import trained_model

    torch.set_num_threads(threads or torch.get_num_threads())
    return Teacher(found, trained_model.opened(found.facts), settings, batch)


def _begin(out: Path, about: dict) -> None:
    """Make the folder ours, or go on in it; Refused where something else lies there."""
    mark = out / PORTIONS / BEGUN
    if mark.is_file():
        _same(json_table(mark), about, out)
        return
    if out.exists() and (not out.is_dir() or any(one.name != PORTIONS for one in out.iterdir())):
        raise Refused(f"{out}: is not empty; name a new folder")
    try:
        mark.parent.mkdir(parents=True, exist_ok=True)
        with atomic.plain(mark) as file:
            file.write(json.dumps(about, indent=1))
    except OSError as error:
        raise Refused(f"{out}: cannot be written ({error.strerror})") from None


def _same(there: dict, here: dict, out: Path) -> None:
    here = json.loads(json.dumps(here))
    for key in here:
        if found := difference(there.get(key), here[key], key):
            raise Refused(f"{out} holds another distillation: {found}; choose another folder")


def _portions(made: Teacher, place: Path, size: int, limit: int | None) -> Counter:
    """Decode portion by portion, leaving out those that are there; counts of all together."""
    empty: Counter = Counter()
    total = sum(1 for _ in islice(made.read(empty), limit))
    if not total:
        raise Refused(f"{made.run.root}: the training set has nothing but empty lines")
    counts = Counter({f"{side} left out": number for side, number in empty.items()})
    pairs, progress = made.read(Counter()), Progress("distilled", total, "sentences")
    for number, start in enumerate(range(0, total, size)):
        chunk = list(islice(pairs, min(size, total - start)))
        path = place / f"{number:06d}.jsonl"
        if path.is_file():
            _unchanged(path, chunk)
            progress.phase(total, "sentences", before=start + len(chunk))
        else:
            _decode(made, chunk, path, partial(_show, progress, start))
        counts.update(json_table(path.with_suffix(".json")))
    progress.end()
    return counts


def _show(progress: Progress, before: int, done: int) -> None:
    progress.show(before + done)


def _decode(made: Teacher, chunk: list[Pair], path: Path, tick: Callable[[int], None]) -> None:
    """Write one portion; its own file comes last, so that what is there is whole."""
    texts, counts = made.write(chunk, tick)
    with atomic.plain(path.with_suffix(".json")) as file:
        file.write(json.dumps(counts))
    rows = [
        {"id": pair.id, "source": pair.source, "target": pair.targets[0], "made": text}
        for pair, text in zip(chunk, texts, strict=True)
    ]
    with atomic.plain(path) as file:
        file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def _unchanged(path: Path, chunk: list[Pair]) -> None:
    """Refused where a portion was made from other texts than the task has now."""
    there = [(row["source"], row["target"]) for row in records(path, "source", "target")]
    if there != [(pair.source, pair.targets[0]) for pair in chunk]:
        raise Refused(f"{path}: the training set has changed since; choose another folder")


def _written(place: Path, counts: Counter) -> Iterator[Pair]:
    """The pairs to train on; a sentence for which nothing was written is left out and counted."""
    for path in sorted(place.glob("*.jsonl")):
        for row in records(path, "id", "source", "target", "made"):
            if not row["made"].strip():
                counts["empty translation left out"] += 1
                continue
            counts["as the reference"] += row["made"] == row["target"]
            yield Pair(row["id"], row["source"], (row["made"],))


def _summary(counts: dict) -> str:
    return ", ".join(f"{value:,} {key}" for key, value in counts.items() if key != "seconds")


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


if __name__ == "__main__":
    sys.exit(main())
