"""Left to right, all at once and between: behind every word a chain of masks that read each other.

BANG (Qi 2021).  The n-th mask of a chain asks for the word n places on; it reads the words before
the chain and the masks of the chain before it.  So the first of each chain is AR (`next`), the
chain behind BOS is NAR, and all are learnt in one pass.  NAR alone is learnt from one chain as long
as the text (`mask`), which has no BOS before it.
"""

from typing import Annotated, Literal

import numpy as np

from januslm.config import Allowed
from januslm.layout import NONE, ArRead, Layout, Rule, Slots, stack
from januslm.objectives.prophetnet import MOST, Prefix, asking, first, opened

STREAMS = ("past", "next", *("2nd", "3rd"), *(f"{n}th" for n in range(4, MOST + 1)), "mask")
PAST, NEXT, MASK = 0, 1, MOST + 1

NOISE: dict[str, tuple[str, dict]] = {"nmt": ("none", {}), "pretrain": ("blocks", {})}
SMOOTHING = {"nmt": 0.1, "pretrain": 0.0}
NORMALIZE = {"nmt": "term", "pretrain": "term"}
EXTRA_VECTORS = 1

Way = Literal["streams", "ar", "nar", "mixed", "semi"]
Ahead = Annotated[int, Allowed(low=1, high=MOST)]
Share = Annotated[float, Allowed(low=0.05, high=0.95)]


def sees(q, k):
    """Words up to one's rank; of one's own chain what stands before; `mask` reads `mask` alone."""
    words = (k.stream == PAST) & (q.stream < MASK) & (k.rank <= q.rank)
    chain = (k.stream >= NEXT) & (k.stream <= q.stream) & (q.stream < MASK) & (k.rank == q.rank)
    alone = (k.stream == MASK) & (q.stream == MASK) & (k.rank <= q.rank)
    return words | chain | alone


AHEAD = {name: f"ahead{n}" for n, name in enumerate(STREAMS[:MASK]) if n > 1}
PREDICTS = {"next": "ar"} | AHEAD | {"mask": "nar"}
RULE = Rule(STREAMS, sees, PREDICTS)


def weights(preset: str) -> dict[str, float]:
    """The published loss but for a factor: it has one mean over what all streams ask for."""
    return {f"ce/{name}": 1.0 for name in RULE.distributions}


def layout(
    target: np.ndarray,
    hidden: np.ndarray,
    special,
    rng,
    *,
    # streams: a chain behind every word (pretraining); ar: its first mask; nar: one chain for all;
    # mixed: ar or nar, example by example; semi: a chain behind every block
    way: Way = "streams",
    ahead: Ahead = 9,  # masks of a chain; words of a block
    nar: Share = 0.5,  # share of the examples of `mixed` that are nar
    prefix: Prefix = "bos",  # what stands before the first word; the published weights have EOS
) -> Layout:
    """Slots of one target int64 [T].

    Of `hidden` bool [T] streams and ar ask for those words alone, where there are any; nar and
    semi, which are for fine-tuning, ask for all.
    """
    if way == "nar" or (way == "mixed" and rng.random() < nar):
        return Layout(_one_chain(len(target), special), RULE)
    target = opened(target, special, prefix)
    if way == "semi":
        return Layout(_blocks(target, special, ahead, rng), RULE)
    most = ahead if way == "streams" else 1
    chain = [(special.extra[0], n) for n in range(1, most + 1)]
    return Layout(asking(target, hidden, chain), RULE)


def _blocks(target: np.ndarray, special, size: int, rng) -> Slots:
    """The words, and a chain behind the last word of each block but the last: ours, no code was.

    The first block is shorter by a random offset, so that a chain may stand behind any word.
    """
    past, at = np.arange(len(target) - 1), np.arange(1, len(target))
    first = int(rng.integers(1, size + 1))  # where the second block starts
    # The word behind which the chain stands.
    before = np.where(at < first, 0, first - 1 + (at - first) // size * size)
    return stack(
        (target[past], past, PAST, past, NONE),
        (special.extra[0], at, at - before, before, at),
    )


def _one_chain(length: int, special) -> Slots:
    at = np.arange(1, length)
    return stack((special.extra[0], at, MASK, at, at))


def row(length: int, special, *, way: Way) -> Slots | None:
    """What a text of `length` tokens, BOS and EOS counted, is written from in one pass."""
    return _one_chain(length, special) if way in ("nar", "mixed") else None


def ar_read(special, *, way: Way, ahead: Ahead, prefix: Prefix) -> ArRead | None:
    """As the slots are laid out; a chain of more than one drafts."""
    if way == "nar":
        return None
    drafts = STREAMS[1 : ahead + 1] if way in ("streams", "semi") and ahead > 1 else ()
    query, before = special.extra[0], (first(special, prefix),)
    return ArRead("past", "next", query, before, behind=1, own=True, drafts=drafts)
