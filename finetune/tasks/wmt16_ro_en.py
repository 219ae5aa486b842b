"""WMT16 the other way: Romanian -> English."""

from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

from finetune.tasks import _bitext, wmt16
from januslm.data.text_pairs import Pair

METRICS, OPTIONS = wmt16.METRICS, wmt16.OPTIONS
DECODE = wmt16.DECODE
SIDES = ("ro", "en")


def read(root: Path, split: str, skipped: Counter | None = None) -> Iterator[Pair]:
    """Pairs of the files that wmt16 reads."""
    return _bitext.read(root, "wmt16_ro_en", wmt16.CORPUS, SIDES, split, skipped)


def save(folder: Path, split: str, pairs: Iterable[Pair]) -> int:
    """Write pairs as `read` reads them."""
    return _bitext.save(folder, split, SIDES, pairs)
