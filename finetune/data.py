"""A task's texts as token pairs: read once, cut to the model's limits, kept as flat arrays."""

import hashlib
import json
import os
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from types import ModuleType

import numpy as np

from januslm.config import Refused
from januslm.sampler import Sampler
from januslm.tokenizer import Tokenizer

CHUNK = 4096  # texts that are tokenized at once


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

    Returns the counts of the split.
    Refused for an empty split, and for a text over its limit where limits.longer is "refuse".
    """
    about = {
        "task": task.__name__, "root": str(root), "split": split, "tokenizer": tokenizer.sha256,
        "limits": vars(limits), "files": _signature(root, task),
    }  # fmt: skip
    about["key"] = hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()[:16]
    done = folder / "counts.json"
    if done.exists():
        found = json.loads(done.read_text())
        if found["key"] == about["key"]:
            return found
    folder.mkdir(parents=True, exist_ok=True)
    skipped: Counter = Counter()
    pairs = iter(task.read(root, split, skipped=skipped))
    texts: dict[str, list] = {"source": [], "target": []}
    counts: Counter = Counter()
    while chunk := list(islice(pairs, CHUNK)):
        sides = {"source": [p.source for p in chunk], "target": [p.targets[0] for p in chunk]}
        for side, lines in sides.items():
            most = getattr(limits, side)
            encoded = _cut(tokenizer.encode(lines), most, limits, side, split, counts)
            texts[side].extend(_ended(encoded, tokenizer))
        counts["pairs"] += len(chunk)
    if not counts["pairs"]:
        raise Refused(f"{root}: split {split!r} of {task.__name__} has no pairs")
    for side, arrays in texts.items():
        _save(folder / f"{side}.tokens.npy", np.concatenate(arrays).astype(np.int32))
        _save(folder / f"{side}.starts.npy", np.cumsum([0] + [len(a) for a in arrays]))
    about |= {"counts": dict(counts), "skipped": dict(skipped)}
    aside = done.with_suffix(".new")
    aside.write_text(json.dumps(about, indent=1))
    os.replace(aside, done)
    return about


def _signature(root: Path, task: ModuleType) -> list:
    """Names, sizes and times of the files a task may read: other files, other pairs."""
    places = (root, root / task.__name__.rpartition(".")[2])
    files = [f for place in places if place.is_dir() for f in place.iterdir() if f.is_file()]
    return [[str(f), f.stat().st_size, f.stat().st_mtime_ns] for f in sorted(files)]


def _cut(encoded, most: int, limits: Limits, side: str, split: str, counts: Counter) -> list:
    room = most - 2
    long = sum(len(e) > room for e in encoded)
    if long and limits.longer == "refuse":
        raise Refused(
            f"{split}: {long} {side}s are longer than max_{side} = {most} tokens; raise it, or set "
            'data.longer = "cut"'
        )
    counts[f"{side}s cut"] += long
    counts[f"{side} tokens cut"] += sum(max(0, len(e) - room) for e in encoded)
    return [e[:room] for e in encoded]


def _ended(encoded: Iterable[np.ndarray], tokenizer: Tokenizer) -> list[np.ndarray]:
    special = tokenizer.special
    return [np.concatenate([[special.bos], e, [special.eos]]) for e in encoded]


def _save(path: Path, array: np.ndarray) -> None:
    aside = path.with_suffix(".new.npy")
    np.save(aside, array)
    os.replace(aside, path)


class Pairs:
    """Prepared pairs by global sample id; the order is a pure function of (seed, id)."""

    def __init__(self, folder: Path, seed: int):
        self._tokens, self._starts = (
            {
                side: np.load(folder / f"{side}.{kind}.npy", mmap_mode="r")
                for side in ("source", "target")
            }
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


def sources(texts: list[str], tokenizer: Tokenizer, limits: Limits) -> tuple[list, int]:
    """Sources to decode, BOS to EOS, and how many had to be cut."""
    counts: Counter = Counter()
    encoded = _cut(tokenizer.encode(texts), limits.source, limits, "source", "input", counts)
    return _ended(encoded, tokenizer), counts["sources cut"]
