"""WMT14 the other way: German -> English."""

from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

from finetune.pairs import Pair
from finetune.tasks import _prepared, wmt14

METRICS, OPTIONS = wmt14.METRICS, wmt14.OPTIONS
DECODE = wmt14.DECODE
SIDES = ("de", "en")


def read(root: Path, split: str, skipped: Counter | None = None) -> Iterator[Pair]:
    """Pairs of the files that wmt14 reads."""
    return _prepared.read(root, "wmt14_de_en", wmt14.CORPUS, SIDES, split, skipped)


def save(folder: Path, split: str, pairs: Iterable[Pair]) -> int:
    """Write pairs as `read` reads them."""
    return _prepared.save(folder, split, SIDES, pairs)
