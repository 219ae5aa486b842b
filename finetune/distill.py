"""Sequence-level distillation: `python -m finetune.distill RUN OUT`, a teacher's training set."""

import argparse
import hashlib
import json
import os
import shutil
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from types import ModuleType

import torch

from finetune.data import Limits, sources
from finetune.generate import changes, decode, usual_options
from finetune.pairs import Pair, records
from januslm import folder, learner
from januslm.config import Refused
from januslm.decoding import beam
from januslm.interop import native
from januslm.log import duration
from januslm.reading import Reader
from januslm.rundir import difference

DONE, BEGUN, PORTIONS = "distill.json", "begun.json", ".portions"


def main() -> int:
    options = _arguments()
    try:
        torch.set_num_threads(options.threads or torch.get_num_threads())
        distill(options)
    except Refused as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m finetune.distill",
        description="Decode the training set of the run's task by beam search and write it, with "
        "validation and test set as they are, in files that the task reads: train a student on it "
        "with data.root=OUT. Stopped, the same command goes on. Options of the beam are "
        "key=value: beam=5 length_penalty=1.0.",
    )
    parser.add_argument("run", help="the teacher: a run's folder, or its export/")
    parser.add_argument("out", type=Path, help="the folder to write")
    parser.add_argument("options", nargs="*", metavar="key=value", help="options of the beam")
    parser.add_argument("--batch", type=int, default=32, help="sentences at once")
    parser.add_argument("--portion", type=int, default=5000, help="sentences between two savings")
    parser.add_argument("--limit", type=int, help="only the first N sentences")
    parser.add_argument("--data", help="where the task's files lie (default: as in training)")
    parser.add_argument("--threads", type=int, help="CPU threads (default: torch's)")
    return parser.parse_intermixed_args()


@dataclass(frozen=True)
class Teacher:
    """A model with its task, ready to decode."""

    task: ModuleType
    root: Path
    saved: native.Saved
    reader: Reader
    limits: Limits
    settings: dict  # of the beam
    batch: int

    def read(self, split: str) -> Iterator[Pair]:
        """The task's own pairs; empty ones are left out of training."""
        return self.task.read(self.root, split, skipped=Counter())

    def write(self, pairs: list[Pair]) -> tuple[list[str], dict]:
        """What it makes of the sources, and the counts."""
        words = self.saved.tokenizer
        arrays, cut = sources([pair.source for pair in pairs], words, self.limits)
        made = decode(self.reader, beam.decode, arrays, self.settings, self.batch, words)
        counts = {"sentences": len(pairs), "sources cut": cut, "words": made.tokens}
        return made.texts, counts | {"seconds": made.seconds}


def distill(options: argparse.Namespace) -> dict:
    """Decode what is not decoded yet, then write the task's files; returns the counts."""
    if options.portion < 1 or options.batch < 1:
        got = f"{options.portion} and {options.batch}"
        raise Refused(f"--portion and --batch must be at least 1, got {got}")
    made = teacher(options)
    out = options.out
    about = {
        "task": made.task.__name__.rpartition(".")[2], "data": str(made.root.resolve()),
        "teacher": str(made.saved.folder), "weights": _digest(made.saved.folder / native.FILES[0]),
        "settings": made.settings, "limits": vars(made.limits), "limit": options.limit,
        "portion": options.portion,
    }  # fmt: skip
    if (out / DONE).is_file():
        done = json.loads((out / DONE).read_text(encoding="utf-8"))
        _same(done["about"], about, out)
        print(f"{out} is done: {_told(done['counts'])}")
        return done["counts"]
    # First, so that a root without these sets is refused before hours of decoding.
    rest = {one: list(made.read(one)) for one in ("valid", "test")}
    _begin(out, about)
    for split, pairs in rest.items():
        made.task.save(out, split, pairs)
    counts = _portions(made, out / PORTIONS, options.portion, options.limit)
    counts["written"] = made.task.save(out, "train", _written(out / PORTIONS, counts))
    _put(out / DONE, json.dumps({"about": about, "counts": counts}, indent=1))
    shutil.rmtree(out / PORTIONS)
    print(f"wrote {out}: {_told(counts)}")
    return dict(counts)


def teacher(options: argparse.Namespace) -> Teacher:
    """The run's model and its task; Refused where the task's form cannot be written."""
    saved = native.read(options.run)
    name = saved.about.get("task")
    if not name:
        raise Refused(f"{saved.folder}: was not trained on a task, so it has no training set")
    task = folder.find("finetune.tasks", name)
    if not hasattr(task, "save"):
        able = [one for one in folder.names("finetune.tasks")
                if hasattr(folder.find("finetune.tasks", one), "save")]  # fmt: skip
        raise Refused(f"task {name!r} has no `save`; tasks with it: {', '.join(able)}")
    data = saved.about.get("data", {})
    root = options.data or data.get("root")
    if not root:
        raise Refused(f"{saved.folder}: does not say where the data lies; name it with --data")
    given = usual_options(task, beam) | changes(options.options)
    settings = folder.options(beam.decode, given, "beam")
    most = saved.model.config.max_positions
    limits = Limits(data.get("max_source", most), data.get("max_target", most), "cut")
    told = {"name": saved.objective, **saved.options}
    special = saved.tokenizer.special
    objective = learner.settle(told, {}, learner.Loss(), "nmt", special, str(saved.folder))
    cuda = torch.cuda.is_available()
    model = saved.model.cuda().bfloat16() if cuda else saved.model
    reader = Reader(model, objective, packed=not cuda)
    reader.must_write("word by word")
    return Teacher(task, Path(root), saved, reader, limits, settings, options.batch)


def _begin(out: Path, about: dict) -> None:
    """Make the folder ours, or go on in it; Refused where something else lies there."""
    mark = out / PORTIONS / BEGUN
    if mark.is_file():
        _same(json.loads(mark.read_text(encoding="utf-8")), about, out)
        return
    if out.exists() and (not out.is_dir() or any(one.name != PORTIONS for one in out.iterdir())):
        raise Refused(f"{out}: is not empty; name a new folder")
    mark.parent.mkdir(parents=True, exist_ok=True)
    _put(mark, json.dumps(about, indent=1))


def _same(there: dict, here: dict, out: Path) -> None:
    here = json.loads(json.dumps(here))
    for key in here:
        if found := difference(there.get(key), here[key], key):
            raise Refused(f"{out} holds another distillation: {found}; choose another folder")


def _portions(made: Teacher, place: Path, size: int, limit: int | None) -> Counter:
    """Decode portion by portion, leaving out those that are there; counts of all together."""
    total = sum(1 for _ in islice(made.read("train"), limit))
    if not total:
        raise Refused(f"{made.root}: the training set is empty")
    pairs, done, mine, began = made.read("train"), 0, 0, time.monotonic()
    counts: Counter = Counter()
    for number, start in enumerate(range(0, total, size)):
        chunk = list(islice(pairs, min(size, total - start)))
        path = place / f"{number:06d}.jsonl"
        if path.is_file():
            _unchanged(path, chunk)
        else:
            _decode(made, chunk, path)
            mine += len(chunk)
        counts.update(json.loads(path.with_suffix(".json").read_text(encoding="utf-8")))
        done += len(chunk)
        left = (time.monotonic() - began) / mine * (total - done) if mine else 0
        print(f"distilled {done:,}/{total:,} | {_told(counts)} | eta {duration(left)}", flush=True)
    return counts


def _decode(made: Teacher, chunk: list[Pair], path: Path) -> None:
    """Write one portion; its own file comes last, so that what is there is whole."""
    texts, counts = made.write(chunk)
    _put(path.with_suffix(".json"), json.dumps(counts))
    rows = [
        {"id": pair.id, "source": pair.source, "target": pair.targets[0], "made": text}
        for pair, text in zip(chunk, texts, strict=True)
    ]
    _put(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


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
                counts["empty"] += 1
                continue
            counts["as the reference"] += row["made"] == row["target"]
            yield Pair(row["id"], row["source"], (row["made"],))


def _told(counts: dict) -> str:
    return ", ".join(f"{value:,} {key}" for key, value in counts.items() if key != "seconds")


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _put(path: Path, text: str) -> None:
    aside = path.with_name(f".{path.name}.new")
    aside.write_text(text, encoding="utf-8", newline="\n")
    os.replace(aside, path)


if __name__ == "__main__":
    sys.exit(main())
