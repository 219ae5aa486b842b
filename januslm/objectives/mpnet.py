"""Masked and permuted: hidden words in a random order, each from those before it and all places.

MPNet (Song 2020) in a decoder: AUX is read from `query`.  Of the hidden words some stand unchanged
and some are replaced, in masks and queries alike; the loss may count the masks as well (`ce/nar`).
"""

import numpy as np

from januslm.layout import NONE, Layout, Rule, stack
from januslm.noise._runs import Chance, disguised
from januslm.objectives import janus

STREAMS = ("given", "mask", "revealed", "query")
GIVEN, MASK, REVEALED, QUERY = range(4)

NOISE: dict[str, tuple[str, dict]] = {"nmt": ("words", {}), "pretrain": ("words", {})}
SMOOTHING = {"nmt": 0.1, "pretrain": 0.0}
NORMALIZE = {"nmt": "term", "pretrain": "term"}

# JANUS' filling is MPNet from left to right; here the rank is a place in the permutation.
RULE = Rule(STREAMS, janus.sees, {"mask": "nar", "query": "aux"})


def weights(preset: str) -> dict[str, float]:
    """The published loss: the words of the permutation's end."""
    return {"ce/aux": 1.0}


def layout(target, hidden, special, rng, *, masked: Chance = 0.8, replaced: Chance = 0.1) -> Layout:
    """Slots of one target int64 [T], bool [T].

    masked: share of the hidden words that are a <mask>.  replaced: share that are another word.
    """
    given, holes = np.flatnonzero(~hidden), rng.permutation(np.flatnonzero(hidden))
    order, seen = np.arange(len(holes)), disguised(target[holes], special, rng, masked, replaced)
    return Layout(
        stack(
            (target[given], given, GIVEN, NONE, NONE),
            (seen, holes, MASK, order, holes),
            (target[holes], holes, REVEALED, order, NONE),
            (seen, holes, QUERY, order, holes),
        ),
        RULE,
    )


# Read with masks alone: what is asked for was never disguised as a word.
any_order = janus.any_order
