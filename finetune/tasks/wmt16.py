"""WMT16: English -> Romanian news."""

from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

from finetune.pairs import Pair
from finetune.tasks import _prepared, wmt14

METRICS = ("bleu",)
OPTIONS = {"bleu": {"mode": "fairseq"}}  # of Moses tokens; raw files need mode "sacre"
DECODE = wmt14.DECODE

CORPUS = _prepared.Corpus(
    ("wmt16", "wmt16/en-ro", "en-ro", "wmt16.en-ro"),
    (
        ("train", "valid", "test"),
        ("train/corpus.bpe", "dev/dev.bpe", "test/test.bpe"),  # Lee et al.'s archive
        ("train", "newsdev2016", "newstest2016"),
    ),
)
SIDES = ("en", "ro")


def read(root: Path, split: str, skipped: Counter | None = None) -> Iterator[Pair]:
    """Pairs of {train,valid,test}.{en,ro}(.gz), or named as the archive has them."""
    return _prepared.read(root, "wmt16", CORPUS, SIDES, split, skipped)


def save(folder: Path, split: str, pairs: Iterable[Pair]) -> int:
    """Write pairs as `read` reads them."""
    return _prepared.save(folder, split, SIDES, pairs)
