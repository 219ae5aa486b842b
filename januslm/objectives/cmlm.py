"""Mask-Predict: hide some words, predict them all at once from the rest.

Slots are those of Mask-Predict (Ghazvininejad 2019).  The weights for pairs are those of JANUS'
code for it (cmlm_loss), each term a mean of its own; docs/objectives.md has the lines for
Mask-Predict's loss and for its [LEN] token.
"""

import numpy as np

from januslm.layout import NONE, Layout, Rule, Slots, stack

STREAMS = ("mask", "given")
MASK, GIVEN = range(2)

NOISE: dict[str, tuple[str, dict]] = {"nmt": ("uniform", {}), "pretrain": ("dual_spans", {})}
SMOOTHING = {"nmt": 0.1, "pretrain": 0.0}
NORMALIZE = {"nmt": "term", "pretrain": "tokens"}


def sees(q, k):
    """All see all."""
    return (q.stream == q.stream) & (k.stream == k.stream)


RULE = Rule(STREAMS, sees, {"mask": "nar"})


def weights(preset: str) -> dict[str, float]:
    """JANUS' cmlm_loss: the masked words, and the length where there are pairs."""
    return {"ce/nar": 1.0} | ({"ce/length": 0.1} if preset == "nmt" else {})


def layout(target: np.ndarray, hidden: np.ndarray, special, rng, *, ends: bool = False) -> Layout:
    """Slots of w1..wn EOS, int64 [T], bool [T].  ends: BOS and EOS are given, always.

    Published code has no BOS and may hide EOS.  Rotary positions need both: they cannot tell masks
    apart that see nothing but masks.
    """
    if ends:
        hidden = hidden.copy()
        hidden[[0, -1]] = False
    at = np.arange(not ends, len(target))
    masked, given = at[hidden[at]], at[~hidden[at]]
    return Layout(
        stack(
            (special.mask, masked, MASK, NONE, masked),
            (target[given], given, GIVEN, NONE, NONE),
        ),
        RULE,
    )


def template(length: int, special, *, ends: bool = False) -> Slots:
    """What mask-predict starts from: all of w1..wn EOS is to be written; length counts BOS."""
    at = np.arange(1, length - ends)
    if not ends:
        return stack((special.mask, at, MASK, NONE, at))
    given = np.array([0, length - 1])
    return stack(
        (special.mask, at, MASK, NONE, at),
        (np.array([special.bos, special.eos]), given, GIVEN, NONE, NONE),
    )
