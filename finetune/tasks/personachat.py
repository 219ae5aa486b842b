"""GLGE PersonaChat: persona and conversation -> response."""

from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

from finetune.tasks import _glge
from januslm.data.text_pairs import Pair

METRICS = ("nltk_bleu", "distinct", "bleu")
DECODE = _glge.BEAM_4
FINETUNE = _glge.fast(640)  # at about 120 words a source


def read(root: Path, split: str, skipped: Counter | None = None) -> Iterator[Pair]:
    """Parts joined by [SEP] -> response; both as they are."""
    return _glge.read(root, "personachat", split, skipped)


def save(folder: Path, split: str, pairs: Iterable[Pair]) -> int:
    """Write pairs as `read` reads them."""
    return _glge.save(folder, split, pairs)


def tidy(prediction: str, mode: str) -> str:
    """Both modes: word pieces joined; the official script changes nothing else."""
    del mode
    return _glge.pieces_joined(prediction)
