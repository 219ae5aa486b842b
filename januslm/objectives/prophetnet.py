"""Left to right, and several words ahead: the next word, the one after it, and so on.

ProphetNet (Qi 2020): `next` asks for the word behind those it reads, `2nd` for the one behind that.
Each is a learned vector at the place it asks for, and reads itself and the words alone.  Only
`next` is read when text is written.
"""

from typing import Annotated, Literal

import numpy as np

from januslm.config import Allowed
from januslm.layout import NONE, ArRead, Layout, Rule, Slots, joined, stack

MOST = 9
STREAMS = ("past", "next", "2nd", "3rd", *(f"{n}th" for n in range(4, MOST + 1)))
PAST = 0

NOISE: dict[str, tuple[str, dict]] = {"nmt": ("none", {}), "pretrain": ("blocks", {})}
SMOOTHING = {"nmt": 0.1, "pretrain": 0.0}
NORMALIZE = {"nmt": "term", "pretrain": "term"}
EXTRA_VECTORS = MOST

Ahead = Annotated[int, Allowed(low=1, high=MOST)]
Prefix = Literal["bos", "eos"]


def sees(q, k):
    """All read the words up to their rank; who asks reads itself, too."""
    return ((k.stream == PAST) & (k.rank <= q.rank)) | ((k.stream == q.stream) & (k.rank == q.rank))


PREDICTS = {"next": "ar"} | {f"{name}": f"ahead{n}" for n, name in enumerate(STREAMS) if n > 1}
RULE = Rule(STREAMS, sees, PREDICTS)


def weights(preset: str) -> dict[str, float]:
    """The published loss but for a factor: it has one mean over what all streams ask for."""
    return {f"ce/{name}": 1.0 for name in RULE.distributions}


def layout(
    target: np.ndarray,
    hidden: np.ndarray,
    special,
    rng,
    *,
    ahead: Ahead = 2,  # words that are asked for at once, the next one among them
    prefix: Prefix = "bos",  # what stands before the first word; the published weights have EOS
) -> Layout:
    """Slots of one target int64 [T]; of `hidden` bool [T] only those words, where there are any."""
    streams = [(special.extra[n - 1], n) for n in range(1, ahead + 1)]
    return Layout(asking(opened(target, special, prefix), hidden, streams), RULE)


def opened(target: np.ndarray, special, prefix: Prefix) -> np.ndarray:
    """int64 [T], the target with its prefix in the place of BOS."""
    return np.concatenate([[first(special, prefix)], target[1:]])


def first(special, prefix: Prefix) -> int:
    """The token that stands before the first word."""
    return special.eos if prefix == "eos" else special.bos


def asking(target: np.ndarray, hidden: np.ndarray, streams: list[tuple[int, int]]) -> Slots:
    """The words before those that are asked for, and (token, stream n) that reads n - 1 fewer.

    A run of hidden words is asked for from its own words: the first by `next` alone.
    """
    asked = np.flatnonzero(hidden) if hidden.any() else np.arange(1, len(target))
    order = np.arange(len(asked))
    starts = np.concatenate([[True], np.diff(asked) > 1])
    place = order - np.maximum.accumulate(np.where(starts, order, 0))  # in its run
    parts = [stack((target[asked - 1], asked - 1, PAST, order, NONE))]
    for token, n in streams:
        far = place >= n - 1
        parts.append(stack((token, asked[far], n, order[far] - (n - 1), asked[far])))
    return joined(*parts)


def ar_read(special, *, prefix: Prefix) -> ArRead:
    """As the slots are laid out."""
    before = (first(special, prefix),)
    return ArRead("past", "next", special.extra[0], before, behind=1, own=True)
