"""Runs hidden from the decoder alone, or from both sides: JANUS for pretraining."""

import numpy as np

from januslm.config import Refused
from januslm.noise._runs import Chance, Mean, Ratio, budget, cover, insert, run_lengths

SOURCE_ALONE = ("decoder_only", "rotate")  # options that only the source feels


def hide(
    source,
    target,
    special,
    rng,
    *,
    ratio: Ratio = 0.3,  # share of the words that is hidden
    mean: Mean = 3.0,  # length of a run of words, on average
    decoder_only: Chance = 0.5,  # share of the runs that the source shows
    rotate: Chance = 0.0,  # share of the examples whose source begins somewhere else
):
    """JANUS for pretraining: a fair coin per run; heads hides it in the decoder, tails in both.

    In the source a hidden run becomes one <mask>, an empty run one <mask> more at a random place
    (BART infilling).  A word that a run of the decoder alone covers is never that <mask>: it is
    shown, or gone with the rest of another run, as in the reference.  The reference leaves
    fairseq's rotate at 0.5; here it is 0 unless asked for.
    Without a given source the source is the corrupted target.
    """
    if source is not None:
        raise Refused("noise 'dual_spans' makes its own source from plain text")
    inner = len(target) - 2
    lengths = run_lengths(budget(inner, ratio), mean, rng)
    inserts, lengths = int((lengths == 0).sum()), lengths[lengths > 0]
    starts = 1 + rng.permutation(inner)[: len(lengths)]
    lengths = lengths[: len(starts)]
    ends = np.minimum(starts + lengths, len(target) - 1)
    both = rng.random(len(starts)) >= decoder_only
    hidden = cover(starts, ends, len(target))
    source = target.copy()
    shown = cover(starts[~both], ends[~both], len(target))
    masks = starts[both]
    source[masks[~shown[masks]]] = special.mask
    dropped = cover(starts[both] + 1, np.maximum(ends[both], starts[both] + 1), len(target))
    source = insert(source[~dropped], inserts, special.mask, rng)
    if rotate and rng.random() < rotate:
        source = rotated(source, rng)
    return source, hidden


def rotated(source: np.ndarray, rng) -> np.ndarray:
    """The words between BOS and EOS, beginning at one of them."""
    inner = len(source) - 2
    if inner < 1:
        return source
    words = np.roll(source[1:-1], -int(rng.integers(inner)))
    return np.concatenate([source[:1], words, source[-1:]])
