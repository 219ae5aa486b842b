"""Permuted: hidden words in a random order, each from those before it and from its place alone.

XLNet's two streams (Yang 2019) in a decoder, without its memory: `query` knows a place, `revealed`
its word too.  Unlike MPNet it does not know how many words are still to come, nor where.
"""

from typing import Annotated

import numpy as np

from januslm.config import Allowed
from januslm.layout import NONE, AnyOrder, Layout, Rule, stack

STREAMS = ("given", "revealed", "query")
GIVEN, REVEALED, QUERY = range(3)

NOISE: dict[str, tuple[str, dict]] = {"nmt": ("ngrams", {}), "pretrain": ("ngrams", {})}
SMOOTHING = {"nmt": 0.1, "pretrain": 0.0}
NORMALIZE = {"nmt": "term", "pretrain": "term"}
EXTRA_VECTORS = 1  # what a query is: XLNet's mask_emb


def sees(q, k):
    """All see what is given; revealed words those up to themselves, queries those before them."""
    earlier = (k.rank < q.rank) | ((k.rank == q.rank) & (q.stream == REVEALED))
    return (k.stream == GIVEN) | ((k.stream == REVEALED) & (q.stream != GIVEN) & earlier)


RULE = Rule(STREAMS, sees, {"query": "aux"})


def weights(preset: str) -> dict[str, float]:
    """One term: the words of the permutation's end."""
    return {"ce/aux": 1.0}


def layout(
    target: np.ndarray,
    hidden: np.ndarray,
    special,
    rng,
    *,
    chunk: Annotated[
        int, Allowed(low=0)
    ] = 0,  # words that share one permutation; 0: all, no chunks
) -> Layout:
    """Slots of one target int64 [T] with the words of `hidden` bool [T] in a random order.

    chunk (perm_size): the text is cut into chunks that come one after another, all in the same
    random order inside.
    """
    given, holes = np.flatnonzero(~hidden), np.flatnonzero(hidden)
    size = chunk or len(target)
    rank = holes // size * size + rng.permutation(size)[holes % size]
    return Layout(
        stack(
            (target[given], given, GIVEN, NONE, NONE),
            (target[holes], holes, REVEALED, rank, NONE),
            (special.extra[0], holes, QUERY, rank, holes),
        ),
        RULE,
    )


def any_order(length: int, special) -> AnyOrder:
    """Between BOS and EOS, which stand; of the places to come only the one asked for is known."""
    ends = np.array([0, length - 1])
    start = stack((np.array([special.bos, special.eos]), ends, GIVEN, NONE, NONE))
    return AnyOrder(start, np.arange(1, length - 1), "revealed", "query", special.extra[0])
