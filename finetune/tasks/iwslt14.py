"""IWSLT14: German -> English talks, as fairseq's prepare-iwslt14.sh leaves them."""

from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

from finetune.tasks import _bitext
from januslm.data.text_pairs import Pair

METRICS = ("bleu",)
OPTIONS = {"bleu": {"mode": "fairseq"}}  # of lower-case Moses tokens; raw files need mode "sacre"
DECODE = {"beam": 5, "length_penalty": 1.0, "max_length": 200}

CORPUS = _bitext.Corpus(("iwslt14", "iwslt14.tokenized.de-en"), (("train", "valid", "test"),))
SIDES = ("de", "en")


def read(root: Path, split: str, skipped: Counter | None = None) -> Iterator[Pair]:
    """Pairs of {train,valid,test}.{de,en}(.gz)."""
    return _bitext.read(root, "iwslt14", CORPUS, SIDES, split, skipped)


def save(folder: Path, split: str, pairs: Iterable[Pair]) -> int:
    """Write pairs as `read` reads them."""
    return _bitext.save(folder, split, SIDES, pairs)
