"""GLGE CNN/DailyMail: news article -> its highlights, several sentences."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from finetune.tasks import _glge
from januslm.data.text_pairs import Pair, leading

METRICS = ("rouge",)
OPTIONS = {"rouge": {"stem": True, "level": "summary"}}
BASELINES = {"lead-3": lambda source: leading(source, 3, " [X_SEP] ")}
DECODE = _glge.BEAM_4 | {"beam": 5, "length_penalty": 1.2, "min_length": 45, "max_length": 110}
FINETUNE = _glge.steady(512) | {"data": {"max_source": 512, "max_target": 129}}

SHORTEST = 5  # words of a sentence that official scoring keeps
REPEATED = 0.7  # share of a sentence's words already seen above which it is dropped

FILES = _glge.Files("cnndm")
save = FILES.save


def read(root: Path, split: str, skipped: Counter | None = None) -> Iterator[Pair]:
    """Article -> highlights; sentences of a target are joined by [X_SEP], as published models do.

    The official files have <S_SEP> between sentences on both sides.
    """
    for pair in FILES.read(root, split, skipped):
        source = " ".join(pair.source.replace("<S_SEP>", " ").split())
        targets = tuple(text.replace("<S_SEP>", "[X_SEP]") for text in pair.targets)
        yield Pair(pair.id, source, targets)


def tidy(prediction: str, mode: str) -> str:
    """A sentence a line.  Official: Treebank tokens, no short and no repeated sentences."""
    sentences = [one.strip() for one in _glge.pieces_joined(prediction).split("[X_SEP]")]
    if mode == "official":
        fixed = [_glge.fix_tokenization(one, _glge.UPPER) for one in sentences]
        sentences = _unrepeated([one for one in fixed if len(one.split()) >= SHORTEST])
    return _glge.brackets_back("\n".join(sentences))


def tidy_reference(reference: str, mode: str) -> str:
    """A sentence a line, in both modes."""
    del mode
    return _glge.brackets_back(reference.replace(" [X_SEP] ", "\n"))


def _unrepeated(sentences: list[str]) -> list[str]:
    kept: list[str] = []
    seen: set[str] = set()
    for sentence in sentences:
        words = set(sentence.lower().split())
        if len(words & seen) / len(words) <= REPEATED:
            kept.append(sentence)
        seen |= words
    return kept
