"""A share of the words, uniformly chosen: MPNet and BERT."""

import numpy as np

from januslm.noise._runs import Ratio


def hide(source, target, special, rng, *, ratio: Ratio = 0.15):
    """Hides round(ratio * words), one at least, never BOS or EOS.

    Plain text is its own source, with a <mask> in the place of each hidden word.  ratio: share
    of the words that is hidden.
    """
    inner = len(target) - 2
    hidden = np.zeros(len(target), bool)
    hidden[1 + rng.permutation(inner)[: max(1, round(ratio * inner))]] = True
    return np.where(hidden, special.mask, target) if source is None else source, hidden
