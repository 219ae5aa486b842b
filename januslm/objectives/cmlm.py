"""Mask-Predict: hide some words, predict them all at once from the rest."""

import numpy as np

from januslm.layout import NONE, Layout, Rule, Slots, stack

STREAMS = ("mask", "given")
MASK, GIVEN = range(2)

NOISE = {"nmt": ("uniform", {}), "pretrain": ("dual_spans", {})}
SMOOTHING = {"nmt": 0.1, "pretrain": 0.0}
NORMALIZE = {"nmt": "term", "pretrain": "tokens"}


def sees(q, k):
    """All see all."""
    return (q.stream == q.stream) & (k.stream == k.stream)


RULE = Rule(STREAMS, sees)


def weights(preset: str) -> dict[str, float]:
    """Ghazvininejad 2019: the masked words, and the length where there are pairs."""
    return {"ce/mask": 1.0} | ({"ce/length": 0.1} if preset == "nmt" else {})


def layout(target: np.ndarray, hidden: np.ndarray, special) -> Layout:
    """Slots of w1..wn EOS (BOS is not a word of the target): int64 [T], bool [T]."""
    at = np.arange(1, len(target))
    masked, given = at[hidden[1:]], at[~hidden[1:]]
    return Layout(
        stack(
            (special.mask, masked, MASK, NONE, masked),
            (target[given], given, GIVEN, NONE, NONE),
        ),
        RULE,
    )


def canvas(length: int, special) -> Slots:
    """What mask-predict starts from: all of w1..wn EOS is to be written; length counts BOS."""
    at = np.arange(1, length)
    return stack((special.mask, at, MASK, NONE, at))
