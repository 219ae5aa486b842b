"""A task's texts as token pairs: read once, cut to the model's limits, kept as flat arrays."""

import json
import os
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from types import ModuleType

import numpy as np

from finetune import pairs
from finetune.pairs import Pair
from januslm.config import Refused
from januslm.sampler import Sampler
from januslm.tokenizer import Tokenizer

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

    Returns the counts of the split, which `told` puts into words.
    Refused for an empty split, and for a text over its limit where limits.longer is "refuse".
    """
    about = {
        "task": task.__name__, "root": str(root), "split": split, "tokenizer": tokenizer.sha256,
        "limits": vars(limits), "files": _signature(task, root, split),
    }  # fmt: skip
    done = folder / "counts.json"
    if done.exists():
        found = json.loads(done.read_text())
        if all(found.get(key) == value for key, value in about.items()):
            return found
        done.unlink()  # first: a stop in between must not leave it beside arrays of other texts
    folder.mkdir(parents=True, exist_ok=True)
    skipped: Counter = Counter()
    counts: Counter = Counter()
    found_pairs = iter(task.read(root, split, skipped=skipped))
    arrays = _tokenized(found_pairs, tokenizer, limits, counts, str(root))
    if not counts["pairs"]:
        raise Refused(f"{root}: split {split!r} of {task.__name__} has no pairs")
    for name, array in arrays.items():
        _save(folder / f"{name}.npy", array)
    about |= {"counts": dict(counts), "skipped": dict(skipped)}
    aside = done.with_suffix(".new")
    aside.write_text(json.dumps(about, indent=1))
    os.replace(aside, done)
    return about


def told(about: dict) -> str:
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


def _signature(task: ModuleType, root: Path, split: str) -> list:
    """Names, sizes and times of the files that the task reads: other files, other pairs."""
    with pairs.opened() as files:
        next(iter(task.read(root, split, skipped=Counter())), None)
    return [[str(file), file.stat().st_size, file.stat().st_mtime_ns] for file in files]


def _tokenized(
    found: Iterable[Pair], tokenizer: Tokenizer, limits: Limits, counts: Counter, where: str
) -> dict[str, np.ndarray]:
    """Flat tokens (int32) and where each text starts (int64) of both sides, by file name."""
    # An array per chunk, not per text: millions of small arrays take more room than their tokens.
    tokens: dict[str, list] = {side: [] for side in SIDES}
    sizes: dict[str, list] = {side: [0] for side in SIDES}
    found = iter(found)
    while chunk := list(islice(found, CHUNK)):
        names = [f"{where}: {pair.id}" for pair in chunk]
        texts = {"source": [p.source for p in chunk], "target": [p.targets[0] for p in chunk]}
        for side in SIDES:
            encoded = _cut(tokenizer.encode(texts[side]), side, limits, names, counts)
            ended = _ended(encoded, tokenizer)
            tokens[side].append(np.concatenate(ended).astype(np.int32))
            sizes[side] += map(len, ended)
            counts[f"{side} tokens"] += len(tokens[side][-1])
        counts["pairs"] += len(chunk)
        counts["targets equal to their source"] += sum(p.source == p.targets[0] for p in chunk)
    made: dict[str, np.ndarray] = {}
    for side in SIDES if counts["pairs"] else ():
        made[f"{side}.tokens"] = np.concatenate(tokens.pop(side))
        made[f"{side}.starts"] = np.cumsum(sizes.pop(side))
    return made


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


def _save(path: Path, array: np.ndarray) -> None:
    aside = path.with_suffix(".new.npy")
    np.save(aside, array)
    os.replace(aside, path)


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


def sources(texts: list[str], tokenizer: Tokenizer, limits: Limits) -> tuple[list, int]:
    """Sources to decode, BOS to EOS, and how many had to be cut."""
    counts: Counter = Counter()
    names = [f"text {number}" for number in range(1, len(texts) + 1)]
    encoded = _cut(tokenizer.encode(texts), "source", limits, names, counts)
    return _ended(encoded, tokenizer), counts["sources cut"]
