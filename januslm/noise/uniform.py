"""A uniform number of words hidden from the decoder: Mask-Predict."""

import numpy as np

from januslm.noise._runs import given


def hide(source, target, special, rng):
    """Mask-Predict (Ghazvininejad 2019): a uniform number of words, uniformly chosen.

    The target proper is w1..wn EOS: EOS may be hidden, BOS is not a word of it.
    """
    words = len(target) - 1
    count = rng.integers(1, words) if words > 1 else 1
    hidden = np.zeros(len(target), bool)
    hidden[1 + rng.permutation(words)[:count]] = True
    return given(source, "uniform"), hidden
