"""GLGE PersonaChat: persona and conversation -> response."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from finetune.pairs import Pair
from finetune.tasks import _glge

METRICS = ("nltk_bleu", "distinct", "bleu")
DECODE = _glge.BEAM_4
FINETUNE = _glge.LONG


def read(root: Path, split: str, skipped: Counter | None = None) -> Iterator[Pair]:
    """Parts joined by [SEP] -> response; both as they are."""
    return _glge.read(root, "personachat", split, skipped)


def tidy(prediction: str, mode: str) -> str:
    """Both modes: word pieces joined; the official script changes nothing else."""
    del mode
    return _glge.pieces_joined(prediction)
