"""Multi30k: German captions of pictures -> English, raw text, test set 2016."""

from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

from finetune.tasks import _bitext
from januslm.data.text_pairs import SPLITS, Pair

METRICS = ("bleu",)
DECODE = {"beam": 5, "length_penalty": 1.0, "max_length": 60}

CORPUS = _bitext.Corpus(("multi30k",), (("train", "val", "test_2016_flickr"),))
SIDES = ("de", "en")


def read(root: Path, split: str, skipped: Counter | None = None) -> Iterator[Pair]:
    """Pairs of {train,val,test_2016_flickr}.{de,en}(.gz), one caption a line."""
    return _bitext.read(root, "multi30k", CORPUS, SIDES, split, skipped)


def save(folder: Path, split: str, pairs: Iterable[Pair]) -> int:
    """Write pairs as `read` reads them."""
    stem = CORPUS.forms[0][SPLITS.index(split)]
    return _bitext.save(folder, stem, SIDES, pairs)
