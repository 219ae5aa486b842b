"""Left to right, and block by block all at once: one set of weights that drafts for itself.

TiDAR (Liu 2025) and Nemotron-Labs-Diffusion (NVIDIA 2026), with a source; bd3lms (Arriola 2025)
as an option.  AR is read from `past`; a block of masks, read all at once as NAR, knows the words
before the block.  The expected number of draft words that AR accepts grows with the sum over words
of min(p_AR, p_NAR), so KL between the two is a loss for speed.
"""

from typing import Annotated

import numpy as np

from januslm.config import Allowed
from januslm.layout import NONE, ArRead, BlockRead, Layout, Rule, stack

STREAMS = ("past", "mask", "given")
PAST, MASK, GIVEN = range(3)

NOISE: dict[str, tuple[str, dict]] = {"nmt": ("none", {}), "pretrain": ("infill", {})}
SMOOTHING = {"nmt": 0.1, "pretrain": 0.0}
NORMALIZE = {"nmt": "term", "pretrain": "term"}
LEAST = 1e-3  # of the words of a block are masked: the loss weighs them with 1 / share

Size = Annotated[int, Allowed(low=1)]


def sees(q, k):
    """All read the words up to their rank; what stands in a block reads its whole block, too."""
    own = (k.stream != PAST) & (q.stream != PAST) & (k.rank == q.rank)
    return ((k.stream == PAST) & (k.rank <= q.rank)) | own


RULE = Rule(STREAMS, sees, {"past": "ar", "mask": "nar"})


def weights(preset: str) -> dict[str, float]:
    """Ours: words, drafts, and a KL that brings the drafts to what AR accepts."""
    return {"ce/ar": 1.0, "ce/nar": 0.5, "kl/ar~nar": 0.3}


def layout(
    target: np.ndarray,
    hidden: np.ndarray,
    special,
    rng,
    *,
    size: Size = 8,  # words of a block
    given: bool = False,
    causal: bool = True,  # a word reads the words before it alone
) -> Layout:
    """Slots of one target int64 [T]; the first block is shorter by a random offset.

    given: only a share t of an example's words is masked, uniform between 0 and 1, each with
    weight 1 / t, which is diffusion's bound.  causal False (bd3lms): a word reads its whole block,
    and AR is not learnt.  `hidden` is not asked: all words are predicted.
    """
    first = int(rng.integers(1, size + 1))  # where the second block starts; the first starts at 1
    at = np.arange(1, len(target))
    start = np.where(at < first, 1, first + (at - first) // size * size)
    share = LEAST + (1 - LEAST) * rng.random() if given else 1.0
    drawn = rng.random(len(at)) < share
    holes, shown = at[drawn], at[~drawn]
    # Without masks behind the end, their number would tell the model how long the text is.
    end = first if len(target) <= first else start[-1] + size
    behind = np.arange(len(target), end)
    last = start - 1  # the word before each word's block
    past = np.arange(len(target) - causal)
    order, goals = past, past + 1
    if not causal:
        order, goals = np.concatenate([[0], start]), np.full(len(past), NONE)
    return Layout(
        stack(
            (target[past], past, PAST, order, goals),
            (special.mask, holes, MASK, last[holes - 1], holes, 1 / share),
            (special.mask, behind, MASK, last[-1], NONE),
            (target[shown], shown, GIVEN, last[shown - 1], NONE),
        ),
        RULE,
    )


def positions(length: int, special, *, size: Size) -> int:
    """How many positions a target of so many tokens may take: masks stand behind its end."""
    return length + size - 1


def ar_read(special, *, size: Size, causal: bool) -> ArRead | None:
    """As the slots are laid out; where a word reads its whole block, AR is not learnt."""
    read = ArRead("past", "past", special.mask, (special.bos,), drafts=("mask",) * size)
    return read if causal else None


def block_read(special, *, size: Size, given: bool, causal: bool) -> BlockRead:
    """As the slots are laid out; who learnt from masks alone has not read a word in its block."""
    shown = "given" if given else ""
    return BlockRead("past", ("mask",) * size, special.mask, (special.bos,), shown, not causal)
