"""A task's texts as token pairs: read once, cut to the model's limits, kept as flat arrays."""

import json
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from types import ModuleType

import numpy as np

from januslm.cli.progress import Progress
from januslm.config import Refused, json_table
from januslm.data import text_pairs
from januslm.data.sampler import Sampler
from januslm.data.text_pairs import Pair
from januslm.data.tokenizer import Tokenizer

CHUNK = 4096  # texts that are tokenized at once
SIDES = ("source", "target")


@dataclass(frozen=True)
class Limits:
    """How long texts may be, in tokens with BOS and EOS; what to do with longer ones."""

    source: int
    target: int
    longer: str  # "cut" (and count) or "refuse"


def prepare(
    task: ModuleType, root: Path, split: str, tokenizer: Tokenizer, limits: Limits, folder: Path
) -> dict:
    """Tokenize one split into `folder` unless it is there already, from these very files.

    Returns the counts of the split, which `summary` puts into words.
    Refused for an empty split, and for a text over its limit where limits.longer is "refuse".
    """
    skipped: Counter = Counter()
    found, files = _begun(task, root, split, skipped)
    about = {
        "task": task.__name__, "root": str(root), "split": split, "tokenizer": tokenizer.sha256,
        "limits": vars(limits), "files": files,
    }  # fmt: skip
    done = folder / "counts.json"
    if done.exists():
        before = _counts(done)
        if all(before.get(key) == value for key, value in about.items()):
            return before
        done.unlink()  # first: a stop in between must not leave it beside arrays of other texts
    folder.mkdir(parents=True, exist_ok=True)
    counts: Counter = Counter()
    with ExitStack() as stack:
        arrays = {
            f"{side}.{what}": stack.enter_context(Flat(folder / f"{side}.{what}.npy", kind))
            for side in SIDES
            for what, kind in (("tokens", np.int32), ("starts", np.int64))
        }
        progress = Progress(f"{root}: {split}", _size(task, root, split), "pairs prepared")
        for chunk in _chunks(found):
            _write(chunk, tokenizer, limits, arrays, counts, str(root))
            progress.show(counts["pairs"])
        progress.end()
        if not counts["pairs"]:
            raise Refused(f"{root}: split {split!r} of {task.__name__} has no pairs")
    about |= {"counts": dict(counts), "skipped": dict(skipped)}
    aside = done.with_suffix(".new")
    aside.write_text(json.dumps(about, indent=1))
    os.replace(aside, done)
    return about


def _counts(path: Path) -> dict:
    """What was written when a split was prepared; {} if it is damaged: it is prepared again."""
    try:
        return json_table(path)
    except Refused:
        return {}


def summary(about: dict) -> str:
    """What `prepare` returned, in a line: how many, how long, from where; all that was changed."""
    counts = about["counts"]
    source, target = (counts[f"{side} tokens"] / counts["pairs"] for side in SIDES)
    parts = [f"{counts['pairs']:,} pairs of {source:.1f} source and {target:.1f} target tokens"]
    named = ("sources cut", "targets cut", "targets equal to their source")
    parts += [f"{counts[key]:,} {key}" for key in named if counts.get(key)]
    kept = "left out" if about["split"] == "train" else "kept"
    parts += [f"{number:,} {reason} {kept}" for reason, number in about["skipped"].items()]
    files = [Path(name) for name, _, _ in about["files"]]
    if files:
        names = " + ".join(path.name for path in files)
        parts.append(f"from {files[0].parent / names}")
    return ", ".join(parts)


def _begun(
    task: ModuleType, root: Path, split: str, skipped: Counter
) -> tuple[Iterator[Pair], list]:
    """The pairs, and names, sizes and times of the files they come from: other files, other pairs.

    The files are those that the first pair needs; the task has counted their lines by then.
    """
    found = iter(task.read(root, split, skipped=skipped))
    with text_pairs.opened() as files:
        first = list(islice(found, 1))
    stats = [[str(file), file.stat().st_size, file.stat().st_mtime_ns] for file in files]
    return chain(first, found), stats


def _size(task: ModuleType, root: Path, split: str) -> int:
    """How many pairs there are; what the task refuses is found before any text is tokenized."""
    return sum(1 for _ in task.read(root, split, skipped=Counter()))


class Flat:
    """A flat .npy file that is appended to, so that its array need not fit into memory.

    As a context: it takes its name when all is written, and leaves nothing if an error comes first.
    """

    def __init__(self, path: Path, kind: type):
        self.path, self.kind, self.size = path, np.dtype(kind), 0
        self._aside = path.with_suffix(".new.npy")
        self._file = self._aside.open("wb")
        self._head()

    def add(self, values: np.ndarray) -> None:
        """Append int [N]."""
        values.astype(self.kind).tofile(self._file)
        self.size += len(values)

    def _head(self) -> None:
        # NumPy pads the header so that a longer array's fits into the same place.
        described = np.lib.format.dtype_to_descr(self.kind)
        about = {"descr": described, "fortran_order": False, "shape": (self.size,)}
        np.lib.format.write_array_header_1_0(self._file, about)

    def __enter__(self) -> "Flat":
        return self

    def __exit__(self, error, *_) -> None:
        with self._file:
            self._file.seek(0)
            self._head()
        if error is None:
            os.replace(self._aside, self.path)
        self._aside.unlink(missing_ok=True)


def _chunks(found: Iterable[Pair]) -> Iterator[list[Pair]]:
    found = iter(found)
    while chunk := list(islice(found, CHUNK)):
        yield chunk


def _write(
    chunk: Sequence[Pair], tokenizer: Tokenizer, limits: Limits, arrays: dict[str, Flat],
    counts: Counter, where: str,
) -> None:  # fmt: skip
    """Append the tokens of both sides, and where each text starts; count what was done."""
    names = [f"{where}: {pair.id}" for pair in chunk]
    texts = {"source": [p.source for p in chunk], "target": [p.targets[0] for p in chunk]}
    for side in SIDES:
        tokens, starts = arrays[f"{side}.tokens"], arrays[f"{side}.starts"]
        ended = _ended(_cut(tokenizer.encode(texts[side]), side, limits, names, counts), tokenizer)
        ends = tokens.size + np.cumsum([len(one) for one in ended])
        starts.add(ends if starts.size else np.concatenate([[0], ends]))
        tokens.add(np.concatenate(ended))
        counts[f"{side} tokens"] = tokens.size
    counts["pairs"] += len(chunk)
    counts["targets equal to their source"] += sum(p.source == p.targets[0] for p in chunk)


def _cut(
    encoded: list[np.ndarray], side: str, limits: Limits, names: Sequence[str], counts: Counter
) -> list[np.ndarray]:
    most = getattr(limits, side)
    room = most - 2  # beside BOS and EOS
    long = [i for i, e in enumerate(encoded) if len(e) > room]
    if long and limits.longer == "refuse":
        name, size = names[long[0]], len(encoded[long[0]])
        raise Refused(
            f"{name}: its {side} has {size} tokens, and data.max_{side} = {most} has room for "
            f'{room}; raise it, or set data.longer = "cut"'
        )
    counts[f"{side}s cut"] += len(long)
    counts[f"{side} tokens cut"] += sum(len(encoded[i]) - room for i in long)
    return [e[:room] for e in encoded]


def _ended(encoded: Iterable[np.ndarray], tokenizer: Tokenizer) -> list[np.ndarray]:
    special = tokenizer.special
    return [np.concatenate([[special.bos], e, [special.eos]]) for e in encoded]


class Pairs:
    """Prepared pairs by global sample id; the order is a pure function of (seed, id)."""

    def __init__(self, folder: Path, seed: int):
        self._tokens, self._starts = (
            {side: np.load(folder / f"{side}.{kind}.npy", mmap_mode="r") for side in SIDES}
            for kind in ("tokens", "starts")
        )
        self.size = len(self._starts["source"]) - 1
        self.sampler = Sampler([self.size], [1], seed)

    def __len__(self) -> int:
        return self.size

    def read(self, ids: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
        """(int64 [N] source, int64 [T] target), BOS to EOS, of each global sample id."""
        _, index, _ = self.sampler.locate(ids)
        return [(self._one("source", int(i)), self._one("target", int(i))) for i in index]

    def _one(self, side: str, i: int) -> np.ndarray:
        start, end = self._starts[side][i : i + 2]
        return np.asarray(self._tokens[side][start:end], np.int64)


def sources(texts: list[str], tokenizer: Tokenizer, most: int) -> tuple[list, list[int]]:
    """Sources to decode, int64 [N] from BOS to EOS with N <= most, and which of them were cut."""
    encoded, room = tokenizer.encode(texts), most - 2
    long = [i for i, tokens in enumerate(encoded) if len(tokens) > room]
    return _ended([tokens[:room] for tokens in encoded], tokenizer), long
