"""Runs of the source become one mask each: BART."""

import numpy as np

from januslm.config import Refused
from januslm.noise import dual_spans
from januslm.noise._runs import Mean, Ratio


def hide(source, target, special, rng, *, ratio: Ratio = 0.3, mean: Mean = 3.0):
    """BART (Lewis 2020): runs of the source become a <mask> each; the decoder writes all words.

    ratio: share of the words that is hidden.  mean: length of a run of words, on average.
    """
    if source is not None:
        raise Refused("noise 'infill' makes its own source from plain text")
    source, _ = dual_spans.hide(
        source, target, special, rng, ratio=ratio, mean=mean, decoder_only=0.0
    )
    return source, np.zeros(len(target), bool)
