"""Masked words, each from all that stands: BERT (Devlin 2019) in a decoder, beside a source.

Of the hidden words some stand unchanged and some are replaced, so that a word which stands says
nothing of whether it is right.
"""

import numpy as np

from januslm.layout import NONE, Layout, Rule, stack
from januslm.noise._runs import Chance, disguised
from januslm.objectives import cmlm

STREAMS = ("mask", "given")
MASK, GIVEN = range(2)

NOISE: dict[str, tuple[str, dict]] = {"nmt": ("words", {}), "pretrain": ("words", {})}
SMOOTHING = {"nmt": 0.1, "pretrain": 0.0}
NORMALIZE = {"nmt": "term", "pretrain": "term"}
RULE = Rule(STREAMS, cmlm.sees, {"mask": "nar"})


def weights(preset: str) -> dict[str, float]:
    """One term: the hidden words."""
    return {"ce/nar": 1.0}


def layout(target, hidden, special, rng, *, masked: Chance = 0.8, replaced: Chance = 0.1) -> Layout:
    """Slots of one target int64 [T], bool [T].

    masked: share of the hidden words that are a <mask>.  replaced: share that are another word.
    """
    given, holes = np.flatnonzero(~hidden), np.flatnonzero(hidden)
    seen = disguised(target[holes], special, rng, masked, replaced)
    return Layout(
        stack(
            (seen, holes, MASK, NONE, holes),
            (target[given], given, GIVEN, NONE, NONE),
        ),
        RULE,
    )
