"""Near-duplicates that are known: planted copies, and the true overlap of every document."""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from xxhash import xxh3_64_intdigest

LEAST = 0.8  # Jaccard of what must be found
NGRAM = 5
# a letter of Thai, Lao, Burmese, Khmer, Japanese, Chinese is a word, as docs/corpora.md says
ALONE = (
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
)
WORD = re.compile(f"[{ALONE}]|[^\\W{ALONE}]+")
BUCKETS = (0.0, 0.3, 0.5, 0.6, 0.7, 0.75, 0.8, 0.82, 0.85, 0.9, 0.95, 1.0)


@dataclass(frozen=True)
class Planted:
    """A copy of a text, and how much of it is left: Jaccard of the sets of word 5-grams."""

    original: str
    copy: str
    overlap: float


def shingles(text: str) -> np.ndarray:
    """Hashes of the different word n-grams of a text, uint64 in order; made by code of its own."""
    words = WORD.findall(text.lower())
    count = max(1, len(words) - NGRAM + 1)
    grams = (" ".join(words[place : place + NGRAM]) for place in range(count))
    return np.unique(np.fromiter((xxh3_64_intdigest(g.encode()) for g in grams), np.uint64, count))


def overlap(one: np.ndarray, other: np.ndarray) -> float:
    """Jaccard of two such sets."""
    both = len(np.intersect1d(one, other, assume_unique=True))
    return both / max(1, len(one) + len(other) - both)


def plant(texts: Sequence[str], count: int, rng: np.random.Generator) -> list[Planted]:
    """Copies of different texts with an overlap from LEAST to 1: half of them spread evenly, half
    as far away as may be."""
    vocabulary = [word for text in texts[:200] for word in text.split()]
    found: list[Planted] = []
    for place in rng.permutation(len(texts)):
        wanted = rng.uniform(LEAST, rng.choice([1, LEAST + 0.02]))
        copy = _changed(texts[place].split(), wanted, vocabulary, rng)
        real = overlap(shingles(texts[place]), shingles(copy))
        if real >= LEAST and copy != texts[place]:
            found.append(Planted(texts[place], copy, real))
        if len(found) == count:
            break
    return found


def _changed(
    text: list[str], wanted: float, vocabulary: list[str], rng: np.random.Generator
) -> str:
    """Words replaced here and there, or some left out at the end, or some added in front."""
    kind = rng.integers(3)
    size = len(text)
    if kind == 0:
        count = max(1, round(size * (1 - wanted) / (NGRAM * (1 + wanted))))
        changed = [*text]
        for place in rng.choice(size, min(count, size), replace=False):
            changed[place] = vocabulary[rng.integers(len(vocabulary))]
    elif kind == 1:
        changed = text[: max(NGRAM, round(size * wanted))]
    else:
        start = rng.integers(len(vocabulary))
        more = max(1, round(size * (1 / wanted - 1)))
        changed = [*vocabulary[start : start + more], *text]
    return " ".join(changed)


def nearest(texts: Sequence[str]) -> np.ndarray:
    """Of each text the largest overlap with any other of them, float [texts]; all are compared."""
    sets = [shingles(text) for text in texts]
    sizes = np.array([len(one) for one in sets])
    owner = np.repeat(np.arange(len(sets)), sizes)
    every = np.concatenate(sets)
    order = np.argsort(every, kind="stable")
    every, owner = every[order], owner[order]
    best = np.zeros(len(sets))
    for i, one in enumerate(sets):
        low, high = np.searchsorted(every, one, "left"), np.searchsorted(every, one, "right")
        places = np.concatenate([np.arange(a, b) for a, b in zip(low, high, strict=True)] or [low])
        both = np.bincount(owner[places], minlength=len(sets))
        found = both / np.maximum(1, sizes + sizes[i] - both)
        found[i] = 0
        best[i] = found.max()
    return best


def by_bucket(overlaps: np.ndarray, removed: np.ndarray) -> dict[str, dict[str, int]]:
    """Of documents by their overlap: how many there are, how many were removed."""
    ends = [*BUCKETS[1:], np.inf]
    rows = {}
    for low, high in zip(BUCKETS, ends, strict=True):
        mine = (overlaps >= low) & (overlaps < high)
        if mine.any():
            count, lost = int(mine.sum()), int(removed[mine].sum())
            rows[f"from {low:g}"] = {"documents": count, "removed": lost}
    return rows


def judged(texts: Sequence[str], kept: set[str], planted: Sequence[Planted]) -> dict:
    """Recall of the planted pairs and of each range of overlap, and what was removed wrongly."""
    found = np.array([not {one.original, one.copy} <= kept for one in planted])
    overlaps = np.array([one.overlap for one in planted])
    removed = np.array([text not in kept for text in texts])
    best = nearest(texts)
    alone = {
        f"below {cut:g}": {
            "documents": int((best < cut).sum()),
            "removed": int(removed[best < cut].sum()),
            "share": float(removed[best < cut].mean()) if (best < cut).any() else 0.0,
            "share_of_all": float(removed[best < cut].sum() / len(texts)),
        }
        for cut in (0.8, 0.75, 0.7, 0.6, 0.5)
    }
    return {
        "documents": len(texts),
        "planted": len(planted),
        "recall": float(found.mean()),
        "recall_by_overlap": by_bucket(overlaps, found),
        "false_removals": alone,
        "removed_by_nearest": by_bucket(best, removed),
    }


def write(folder: Path, texts: Sequence[str], files: int) -> None:
    """JSONL files with the texts, dealt out in turn."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(files):
        lines = (json.dumps({"text": text}) + "\n" for text in texts[number::files])
        with (folder / f"{number:03d}.jsonl").open("w") as file:
            file.writelines(lines)
