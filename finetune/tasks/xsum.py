"""GLGE XSum: article of the BBC -> its summary in one sentence."""

from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

from finetune.tasks import _glge
from januslm.data.text_pairs import Pair, leading

METRICS = ("rouge",)
OPTIONS = {"rouge": {"stem": True, "level": "summary"}}
DECODE = _glge.BEAM_4
FINETUNE = _glge.steady(24)  # at about 360 words a source


def read(root: Path, split: str, skipped: Counter | None = None) -> Iterator[Pair]:
    """Article -> summary; both as they are."""
    return _glge.read(root, "xsum", split, skipped)


def save(folder: Path, split: str, pairs: Iterable[Pair]) -> int:
    """Write pairs as `read` reads them."""
    return _glge.save(folder, split, pairs)


def tidy(prediction: str, mode: str) -> str:
    """Official: sentences on lines of their own, as files2rouge writes them for the script."""
    text = _glge.pieces_joined(prediction)
    return _glge.sentences_apart(text) if mode == "official" else text


def tidy_reference(reference: str, mode: str) -> str:
    """The same for references."""
    return _glge.sentences_apart(reference) if mode == "official" else reference


def lead(source: str) -> str:
    """The lead-1 baseline."""
    return leading(source)
