"""What is hidden: from the decoder (bool per target word) and, in pretraining, from the encoder.

Every noise is `name(source, target, special, rng, *, options) -> (source, hidden)`: int64 [N] and
bool [T].  The target starts with BOS and ends with EOS, which stay (but for EOS in `uniform`).
Randomness is the example's own (`generator`), so the masks are the same for any number of workers
and after any resume.
"""

from collections.abc import Callable
from functools import cache
from math import ceil, exp, factorial
from typing import Annotated

import numpy as np

from januslm.config import Allowed, Refused, suggest

Ratio = Annotated[float, Allowed(above=0, high=1)]
Chance = Annotated[float, Allowed(low=0, high=1)]
Mean = Annotated[float, Allowed(above=0, high=100)]


def generator(seed: int, sample: int) -> np.random.Generator:
    """The random stream of one example, a pure function of (seed, global sample id)."""
    return np.random.Generator(np.random.Philox(key=np.array([seed, sample], np.uint64)))


def find(name: str) -> Callable:
    """A noise by its name; raises Refused with the names there are."""
    known = {f.__name__: f for f in (none, spans, uniform, dual_spans, infill)}
    if name not in known:
        raise Refused(f"no noise {name!r}{suggest(name, known)}")
    return known[name]


def none(source, target, special, rng):
    """Nothing is hidden; the source is read as it is."""
    return _given(source, "none"), np.zeros(len(target), bool)


def spans(source, target, special, rng, *, ratio: Ratio = 0.7, mean: Mean = 2.0):
    """JANUS for translation: runs of Poisson length, about 55 % of the words at ratio 0.7.

    The reference's `add_whole_word_mask` (JANUS, EMNLP 2022, janus/ code): runs may overlap, a run
    that would leave the sentence shrinks to one word, empty runs hide nothing, BOS and EOS stay.
    """
    length = len(target)
    lengths = _lengths(ceil(ratio * length), mean, rng, most=length)
    starts = rng.permutation(length)[: len(lengths)]
    lengths = np.where(starts + lengths > length, 1, lengths)
    hidden = _cover(starts, starts + lengths, length)
    hidden[[0, -1]] = False
    return _given(source, "spans"), hidden


def uniform(source, target, special, rng):
    """Mask-Predict (Ghazvininejad 2019): a uniform number of words, uniformly chosen.

    The target proper is w1..wn EOS: EOS may be hidden, BOS is not a word of it.
    """
    words = len(target) - 1
    count = rng.integers(1, words) if words > 1 else 1
    hidden = np.zeros(len(target), bool)
    hidden[1 + rng.permutation(words)[:count]] = True
    return _given(source, "uniform"), hidden


def dual_spans(
    source,
    target,
    special,
    rng,
    *,
    ratio: Ratio = 0.3,
    mean: Mean = 3.0,
    decoder_only: Chance = 0.5,
    rotate: Chance = 0.0,
):
    """JANUS for pretraining: a fair coin per run; heads hides it in the decoder, tails in both.

    In the source a hidden run becomes one <mask>, an empty run one <mask> more at a random place
    (BART infilling).  The reference leaves fairseq's rotate at 0.5; here it is 0 unless asked for.
    Without a given source the source is the corrupted target.
    """
    if source is not None:
        raise Refused("noise 'dual_spans' makes its own source from plain text; pairs need 'spans'")
    inner = len(target) - 2
    lengths = _lengths(ceil(ratio * inner), mean, rng)
    inserts, lengths = int((lengths == 0).sum()), lengths[lengths > 0]
    starts = 1 + rng.permutation(inner)[: len(lengths)]
    lengths = lengths[: len(starts)]
    ends = np.minimum(starts + lengths, len(target) - 1)
    both = rng.random(len(starts)) >= decoder_only
    hidden = _cover(starts, ends, len(target))
    source = target.copy()
    source[starts[both]] = special.mask
    dropped = _cover(starts[both] + 1, np.maximum(ends[both], starts[both] + 1), len(target))
    source = _insert(source[~dropped], inserts, special.mask, rng)
    if rotate and rng.random() < rotate and len(source) > 2:
        source[1:-1] = np.roll(source[1:-1], -int(rng.integers(len(source) - 2)))
    return source, hidden


def infill(source, target, special, rng, *, ratio: Ratio = 0.3, mean: Mean = 3.0):
    """BART (Lewis 2020): runs of the source become a <mask> each; the decoder writes all words."""
    source, _ = dual_spans(source, target, special, rng, ratio=ratio, mean=mean, decoder_only=0.0)
    return source, np.zeros(len(target), bool)


def _given(source, name: str) -> np.ndarray:
    if source is None:
        raise Refused(f"noise {name!r} needs pairs; plain text needs 'dual_spans' or 'infill'")
    return source


def _cover(starts: np.ndarray, ends: np.ndarray, length: int) -> np.ndarray:
    """bool [length]: the union of [start, end)."""
    steps = np.zeros(length + 1, np.int64)
    np.add.at(steps, starts, 1)
    np.add.at(steps, ends, -1)
    return steps[:-1].cumsum() > 0


def _lengths(total: int, mean: float, rng: np.random.Generator, most: int | None = None):
    """Poisson run lengths with a sum of `total`, at most `most`: the last one is made to fit."""
    if total <= 0:
        return np.zeros(0, np.int64)
    table, drawn = _poisson(mean), np.zeros(0, np.int64)
    while drawn.sum() < total:
        drawn = np.concatenate([drawn, np.searchsorted(table, rng.random(total), side="right")])
    end = int(np.searchsorted(drawn.cumsum(), total))
    end = min(end, most - 1) if most else end
    lengths = drawn[: end + 1].copy()
    lengths[end] = total - lengths[:end].sum()
    return lengths


@cache
def _poisson(mean: float) -> np.ndarray:
    """Cumulated probabilities of a Poisson law, cut where one falls under 1e-7, renormalised."""
    law, k = [], 0
    while not law or k <= mean or law[-1] >= 1e-7:
        law.append(exp(-mean) * mean**k / factorial(k))
        k += 1
    law = np.array(law[:-1])
    return (law / law.sum()).cumsum()


def _insert(tokens: np.ndarray, count: int, mask: int, rng: np.random.Generator) -> np.ndarray:
    """`count` masks more, at random places between the first and the last token."""
    if not count:
        return tokens
    out = np.full(len(tokens) + count, -1, np.int64)
    out[1 + rng.permutation(len(out) - 2)[:count]] = mask
    out[out == -1] = tokens
    return out
