"""WMT14 the other way: German -> English."""

from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

from finetune.tasks import _bitext, wmt14
from januslm.data.text_pairs import Pair

METRICS, OPTIONS = wmt14.METRICS, wmt14.OPTIONS
DECODE = wmt14.DECODE
SIDES = ("de", "en")


def read(root: Path, split: str, skipped: Counter | None = None) -> Iterator[Pair]:
    """Pairs of the files that wmt14 reads."""
    return _bitext.read(root, "wmt14_de_en", wmt14.CORPUS, SIDES, split, skipped)


def save(folder: Path, split: str, pairs: Iterable[Pair]) -> int:
    """Write pairs as `read` reads them."""
    return _bitext.save(folder, split, SIDES, pairs)
