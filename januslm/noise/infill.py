"""Runs of the source become one mask each: BART, with its other kinds of noise as options."""

from math import ceil

import numpy as np

from januslm.config import Refused
from januslm.noise import dual_spans
from januslm.noise._runs import Chance, Mean
from januslm.noise._runs import insert as inserted

# Options that only the source feels: all of them.
SOURCE_ALONE = ("ratio", "mean", "replaced", "permute", "delete", "insert", "rotate")


def hide(
    source,
    target,
    special,
    rng,
    *,
    ratio: Chance = 0.3,  # share of the words that is hidden
    mean: Mean = 3.0,  # length of a run of words, on average
    replaced: Chance = 0.0,  # share of the masks that are a random word instead
    permute: Chance = 0.0,  # share of the sentences that change places with each other
    delete: Chance = 0.0,  # share of the words that are left out
    insert: Chance = 0.0,  # so many masks more, as a share of the words
    rotate: Chance = 0.0,  # share of the examples that begin somewhere else
):
    """BART (Lewis 2020, 2.2): the source is a spoiled target; the decoder writes all words.

    In the order of fairseq's code: sentences, runs, further masks, rotation; words are left out
    before runs are hidden.  A sentence ends at a token of `special.stops`.  The paper hides 30 %
    and permutes all sentences, the code rotates half of the examples.
    """
    if source is not None:
        raise Refused("noise 'infill' makes its own source from plain text")
    text = permuted(target, special.stops, permute, rng) if permute else target
    if delete:
        kept = rng.random(len(text)) >= delete
        kept[[0, -1]] = True
        text = text[kept]
    text, _ = dual_spans.hide(None, text, special, rng, ratio=ratio, mean=mean, decoder_only=0.0)
    if insert:
        more = ceil(insert * (len(text) - 2))
        text = inserted(text, more, special.mask, rng)
    if replaced:
        masks = np.flatnonzero(text == special.mask)
        masks = masks[rng.random(len(masks)) < replaced]
        text[masks] = special.words[rng.integers(len(special.words), size=len(masks))]
    if rotate and rng.random() < rotate:
        text = dual_spans.rotated(text, rng)
    return text, np.zeros(len(target), bool)


def permuted(text: np.ndarray, stops: tuple[int, ...], share: float, rng) -> np.ndarray:
    """A share of the sentences of int64 [T], rounded up, in a random order among themselves."""
    words = text[1:-1]
    stop = np.isin(words, stops)
    ends = 1 + np.flatnonzero(stop & ~np.append(stop[1:], False))  # the last of stops in a row
    parts = [part for part in np.split(words, ends) if len(part)]
    chosen = rng.permutation(len(parts))[: ceil(share * len(parts))]
    order = np.arange(len(parts))
    order[chosen] = rng.permutation(chosen)
    return np.concatenate([text[:1], *(parts[i] for i in order), text[-1:]])
