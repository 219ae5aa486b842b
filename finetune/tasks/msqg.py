"""GLGE MSQG: highlighted answer and passage -> question."""

from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

from finetune.tasks import _glge
from januslm.data.text_pairs import Pair

METRICS = ("qg_rouge", "qg_bleu", "meteor")
DECODE = _glge.BEAM_4
FINETUNE = _glge.fast(1280)  # at about 46 words a source


def read(root: Path, split: str, skipped: Counter | None = None) -> Iterator[Pair]:
    """ "answer [SEP] passage" -> question; the answer stands first, so cutting never drops it."""
    return _glge.read(root, "msqg", split, skipped)


def save(folder: Path, split: str, pairs: Iterable[Pair]) -> int:
    """Write pairs as `read` reads them."""
    return _glge.save(folder, split, pairs)


def tidy(prediction: str, mode: str) -> str:
    """Both modes: word pieces joined; the official script changes nothing else."""
    del mode
    return _glge.pieces_joined(prediction)


def key(source: str) -> str:
    """Lines with one source are one line with several references."""
    return source
