"""WMT16: English -> Romanian news."""

from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

from finetune.tasks import _bitext, wmt14
from januslm.data.text_pairs import Pair

METRICS = ("bleu",)
OPTIONS = {"bleu": {"mode": "fairseq"}}  # of Moses tokens; raw files need mode "sacre"
DECODE = wmt14.DECODE

CORPUS = _bitext.Corpus(
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
    return _bitext.read(root, "wmt16", CORPUS, SIDES, split, skipped)


def save(folder: Path, split: str, pairs: Iterable[Pair]) -> int:
    """Write pairs as `read` reads them."""
    return _bitext.save(folder, split, SIDES, pairs)
