"""Runs of words hidden from the decoder: JANUS for translation."""

import numpy as np

from januslm.noise._runs import Mean, Ratio, budget, cover, given, run_lengths


def hide(source, target, special, rng, *, ratio: Ratio = 0.7, mean: Mean = 2.0):
    """JANUS for translation: runs of Poisson length, about 55 % of the words at ratio 0.7.

    The reference's `add_whole_word_mask` (JANUS, EMNLP 2022, janus/ code): runs may overlap, a run
    that would leave the sentence shrinks to one word, empty runs hide nothing, BOS and EOS stay.

    ratio: length of all runs, as a share of the text.  mean: length of a run, on average.
    """
    length = len(target)
    lengths = run_lengths(budget(length, ratio), mean, rng, most=length)
    starts = rng.permutation(length)[: len(lengths)]
    lengths = np.where(starts + lengths > length, 1, lengths)
    hidden = cover(starts, starts + lengths, length)
    hidden[[0, -1]] = False
    return given(source, "spans"), hidden
