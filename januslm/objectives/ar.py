"""Left to right: each word from the words before it."""

from typing import Literal

import numpy as np

from januslm.layout import NONE, ArRead, Layout, Rule, Slots, stack

STREAMS = ("past", "next")
PAST, NEXT = range(2)
PREDICTS = {"past": "ar", "next": "ar"}

Read = Literal["next", "past"]
Place = Literal["input", "target"]

NOISE: dict[str, tuple[str, dict]] = {"nmt": ("none", {}), "pretrain": ("infill", {})}
SMOOTHING = {"nmt": 0.1, "pretrain": 0.0}
NORMALIZE = {"nmt": "term", "pretrain": "tokens"}


def sees(q, k):
    """Words see themselves and the words before them; so does the question for the next word."""
    return (k.stream == PAST) & (k.rank <= q.rank)


RULE = Rule(STREAMS, sees, PREDICTS)


def weights(preset: str) -> dict[str, float]:
    """One term: the next word."""
    return {"ce/ar": 1.0}


def layout(
    target: np.ndarray,
    hidden: np.ndarray,
    special,
    rng,
    *,
    read: Read = "past",  # past: words ask for the next one; next: masks beside them do
    # input: the slot of word i asks for word i+1; target: slot t for word t
    query_position: Place = "input",
) -> Layout:
    """Slots of one target int64 [T]; nothing is hidden from left to right."""
    return Layout(slots(target, special, read, query_position, first_stream=0), RULE)


def slots(target, special, read: str, query_position: str, first_stream: int) -> Slots:
    """The words as past slots and, if read == "next", a <mask> slot that asks for each next word.

    query_position "input" (JANUS for translation): slot i holds word i and asks for word i+1, both
    at position i.  "target" (BART, JANUS' pretraining): an EOS comes first, so that slot t, at
    position t, holds word t-1 and asks for word t.
    """
    if query_position == "target":
        words, goals = np.concatenate([[special.eos], target[:-1]]), np.arange(len(target))
    else:
        words, goals = target[:-1], np.arange(1, len(target))
    at, past, asked = np.arange(len(words)), first_stream + PAST, first_stream + NEXT
    if read == "past":
        return stack((words, at, past, at, goals))
    return stack((words, at, past, at, NONE), (special.mask, at, asked, at, goals))


def ar_read(special, *, read: Read, query_position: Place) -> ArRead:
    """As the slots are laid out."""
    prefix = (special.eos,) * (query_position == "target") + (special.bos,)
    return ArRead("past", read, special.mask, prefix)
