"""IWSLT14 the other way: English -> German."""

from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

from finetune.tasks import _bitext, iwslt14
from januslm.data.text_pairs import Pair

METRICS, OPTIONS = iwslt14.METRICS, iwslt14.OPTIONS
DECODE = iwslt14.DECODE
SIDES = ("en", "de")


def read(root: Path, split: str, skipped: Counter | None = None) -> Iterator[Pair]:
    """Pairs of the files that iwslt14 reads."""
    return _bitext.read(root, "iwslt14_en_de", iwslt14.CORPUS, SIDES, split, skipped)


def save(folder: Path, split: str, pairs: Iterable[Pair]) -> int:
    """Write pairs as `read` reads them."""
    return _bitext.save(folder, split, SIDES, pairs)
