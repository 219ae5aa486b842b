"""A task's texts as token pairs: read once, cut to the model's limits, kept as verified shards.

A split is a folder with two shards, source and target, and their manifest: document i of the one
and document i of the other are pair i.
"""

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path

import numpy as np
from xxhash import xxh3_128

from januslm.cli.progress import Progress
from januslm.config import Refused
from januslm.data import text_pairs
from januslm.data.sampler import Sampler
from januslm.data.shard_writer import Writer, dtype_for, write_manifest
from januslm.data.shards import MANIFEST, open_corpus, read_manifest
from januslm.data.tasks import Task, texts_of
from januslm.data.text_pairs import Pair
from januslm.data.tokenizer import Special, Tokenizer

CHUNK = 4096  # texts that are tokenized at once
SIDES = ("source", "target")
COUNTED = ("pairs", "source tokens", "target tokens")  # what `summary` divides
ENDS = 2  # tokens of a text that are no words: BOS and EOS


@dataclass(frozen=True)
class Limits:
    """How long texts may be, in tokens with BOS and EOS; what to do with longer ones."""

    source: int
    target: int
    longer: str  # "cut" (and count) or "refuse"


def prepare(
    task: Task, root: Path, split: str, tokenizer: Tokenizer, limits: Limits, folder: Path
) -> dict:
    """Tokenize one split into `folder` unless it is there already, from these very files.

    Returns the counts of the split, which `summary` puts into words.
    Refused for an empty split, and for a text over its limit where limits.longer is "refuse".
    """
    skipped: Counter = Counter()
    found, files = _begun(task, root, split, skipped)
    about = {
        "task": task.__name__,
        "root": str(root),
        "split": split,
        "tokenizer": tokenizer.sha256,
        "limits": vars(limits),
        "files": files,
    } | texts_of(task)
    before = _prepared(folder)
    if all(before.get(key) == value for key, value in about.items()):
        return before
    # First: a stop in between must not leave it beside shards of other texts.
    (folder / MANIFEST).unlink(missing_ok=True)
    counts: Counter = Counter()
    progress = Progress(f"{root}: {split}", _size(task, root, split), "pairs prepared")
    dtype, eos = dtype_for(tokenizer.size), tokenizer.special.eos
    with (
        Writer(folder, "source", dtype, eos) as source,
        Writer(folder, "target", dtype, eos) as target,
    ):
        for chunk in _chunks(found):
            encoded = _encoded(chunk, tokenizer, limits, counts, str(root))
            source.add(encoded["source"])
            target.add(encoded["target"])
            progress.show(counts["pairs"])
        progress.end()
        if not counts["pairs"]:
            raise Refused(f"{root}: split {split!r} of {task.__name__} has no pairs")
        shards = [source.close(), target.close()]
    about |= {"counts": dict(counts), "skipped": dict(skipped)}
    write_manifest(folder, shards, dtype=dtype, vocabulary=tokenizer.size, eos=eos, **about)
    return about


def _prepared(folder: Path) -> dict:
    """The manifest of a split; {} if there is none or it is damaged: it is prepared again."""
    try:
        found = read_manifest(folder)
    except Refused:
        return {}
    return found if _counted(found, "counts", *COUNTED) and _counted(found, "skipped") else {}


def _counted(manifest: dict, key: str, *needed: str) -> bool:
    """Whether a table of the manifest has numbers alone, and these among them."""
    table = manifest.get(key)
    return (
        isinstance(table, dict)
        and all(type(number) is int for number in table.values())
        and all(table.get(name, 0) > 0 for name in needed)
    )


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


def first(
    task: Task, root: Path, tokenizer: Tokenizer, limits: Limits, most: int
) -> tuple[list[tuple[np.ndarray, np.ndarray]], int]:
    """Up to `most` training pairs as Pairs.read gives them, and how many there are; writes none."""
    found = list(islice(task.read(root, "train", skipped=Counter()), most))
    encoded = _encoded(found, tokenizer, limits, Counter(), str(root))
    sides = ([_ended(one, tokenizer.special) for one in encoded[side]] for side in SIDES)
    return list(zip(*sides, strict=True)), _size(task, root, "train")


def _begun(task: Task, root: Path, split: str, skipped: Counter) -> tuple[Iterator[Pair], list]:
    """The pairs, and names, sizes and times of the files they come from: other files, other pairs.

    The files are those that the first pair needs; the task has counted their lines by then.
    """
    found = iter(task.read(root, split, skipped=skipped))
    with text_pairs.opened() as files:
        first = list(islice(found, 1))
    stats = [[str(file), file.stat().st_size, file.stat().st_mtime_ns] for file in files]
    return chain(first, found), stats


def _size(task: Task, root: Path, split: str) -> int:
    """How many pairs there are; what the task refuses is found before any text is tokenized."""
    return sum(1 for _ in task.read(root, split, skipped=Counter()))


def _chunks(found: Iterable[Pair]) -> Iterator[list[Pair]]:
    found = iter(found)
    while chunk := list(islice(found, CHUNK)):
        yield chunk


def _encoded(
    chunk: Sequence[Pair], tokenizer: Tokenizer, limits: Limits, counts: Counter, where: str
) -> dict[str, list[np.ndarray]]:
    """The ids of both sides, cut to the limits, without BOS and EOS; counts what was done."""
    names = [f"{where}: {pair.id}" for pair in chunk]
    texts = {"source": [p.source for p in chunk], "target": [p.targets[0] for p in chunk]}
    encoded = {
        side: _cut(tokenizer.encode(texts[side]), side, limits, names, counts) for side in SIDES
    }
    for side in SIDES:
        counts[f"{side} tokens"] += sum(len(one) + ENDS for one in encoded[side])
    counts["pairs"] += len(chunk)
    counts["targets equal to their source"] += sum(p.source == p.targets[0] for p in chunk)
    return encoded


def _cut(
    encoded: list[np.ndarray], side: str, limits: Limits, names: Sequence[str], counts: Counter
) -> list[np.ndarray]:
    most = getattr(limits, side)
    room = most - ENDS
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


def fingerprint(manifest: dict) -> str:
    """A checksum of the pairs that a manifest is of."""
    hashes = [[shard["bin"], shard["idx"]] for shard in manifest["shards"]]
    return xxh3_128(json.dumps(hashes).encode()).hexdigest()


class Pairs:
    """Prepared pairs by global sample id; the order is a pure function of (seed, id).

    Every byte is hashed when they are opened; Refused, naming the file, where one is damaged.
    """

    def __init__(self, folder: Path, seed: int, special: Special):
        self.special = special
        try:
            self.corpus = open_corpus(folder, verify="full")
        except Refused as error:
            raise Refused(f"{error}; delete {folder} to have it prepared anew") from None
        self.size = self.corpus.documents // len(SIDES)
        self.sampler = Sampler([self.size], [1], seed)

    @property
    def fingerprint(self) -> str:
        """A checksum of the pairs themselves, wherever the files lie that they came from."""
        return fingerprint(self.corpus.manifest)

    def __len__(self) -> int:
        return self.size

    def read(self, ids: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
        """(int64 [N] source, int64 [T] target), BOS to EOS, of each global sample id."""
        _, index, _ = self.sampler.locate(ids)
        return [(self._text(int(i)), self._text(self.size + int(i))) for i in index]

    def _text(self, document: int) -> np.ndarray:
        return _ended(self.corpus.document(document), self.special)


def sources(texts: list[str], tokenizer: Tokenizer, most: int) -> tuple[list, list[int]]:
    """Sources to decode, int64 [N] from BOS to EOS with N <= most, and which of them were cut."""
    encoded, room = tokenizer.encode(texts), most - ENDS
    long = [i for i, tokens in enumerate(encoded) if len(tokens) > room]
    return [_ended(tokens[:room], tokenizer.special) for tokens in encoded], long


def _ended(tokens: np.ndarray, special: Special) -> np.ndarray:
    return np.concatenate([[special.bos], tokens, [special.eos]])
