"""Docstring summarization: body of a documentation -> its first sentence."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from januslm.data.text_pairs import Pair, checked, distinct, folder, known, leading, records

METRICS = ("rouge",)
DECODE = {"beam": 5, "length_penalty": 1.0, "max_length": 40, "no_repeat_ngram": 3}
BASELINES = {"lead-1": leading}


def read(root: Path, split: str, skipped: Counter | None = None) -> Iterator[Pair]:
    """Pairs of DIR/{train,valid,test}.jsonl; an object has id, package, source and target."""
    path = folder(root, "docsum", f"{known(split)}.jsonl") / f"{split}.jsonl"
    found = (
        Pair(str(one["id"]), one["source"], (one["target"],))
        for one in records(path, "id", texts=("source", "target"))
    )
    return checked(distinct(found, str(path)), str(path), split, skipped)
