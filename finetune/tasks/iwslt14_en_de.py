"""IWSLT14 the other way: English -> German."""

from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

from finetune.pairs import Pair
from finetune.tasks import _prepared, iwslt14

METRICS, OPTIONS = iwslt14.METRICS, iwslt14.OPTIONS
DECODE = iwslt14.DECODE
SIDES = ("en", "de")


def read(root: Path, split: str, skipped: Counter | None = None) -> Iterator[Pair]:
    """Pairs of the files that iwslt14 reads."""
    return _prepared.read(root, "iwslt14_en_de", iwslt14.CORPUS, SIDES, split, skipped)


def save(folder: Path, split: str, pairs: Iterable[Pair]) -> int:
    """Write pairs as `read` reads them."""
    return _prepared.save(folder, split, SIDES, pairs)
