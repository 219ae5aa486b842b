"""SciTLDR: abstract of a paper -> one sentence; the test set has one to four references."""

import zlib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from januslm.data.text_pairs import Pair, checked, distinct, folder, known, leading, records

METRICS = ("rouge",)
DECODE = {"beam": 5, "length_penalty": 1.0, "max_length": 60}
BASELINES = {"lead-1": leading}

# The published dev set is the test set here; one paper in ten leaves train for validation.
FILES = {"train": "train", "valid": "train", "test": "dev"}
EVERY = 10


def read(root: Path, split: str, skipped: Counter | None = None) -> Iterator[Pair]:
    """Pairs of {train,dev}.jsonl(.gz); `source` is a list of sentences, `target` of summaries."""
    name = f"{FILES[known(split)]}.jsonl"
    place = folder(root, "scitldr", name + ".gz", name)
    path = next(p for p in (place / f"{name}.gz", place / name) if p.is_file())
    return checked(distinct(_pairs(path, split), str(path)), str(path), split, skipped)


def _pairs(path: Path, split: str) -> Iterator[Pair]:
    for one in records(path, "id", lists=("source", "target")):
        source = " ".join(one["source"])
        # By the text, not the id: a paper that is there twice stays on one side.
        held_out = zlib.crc32(source.encode()) % EVERY == 0
        if split == "test" or held_out == (split == "valid"):
            yield Pair(str(one["id"]), source, tuple(one["target"]))
