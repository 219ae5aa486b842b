"""Left to right, all at once and masked-permuted in one pass, so that each can teach the others.

JANUS: Joint AutoRegressive and Non-autoregressive Training with Auxiliary Loss for Sequence
Generation (EMNLP 2022).  AR is read from `next` (or `past`), NAR from `mask`, the auxiliary AUX
from `query`.
"""

import numpy as np

from januslm.layout import NONE, AnyOrder, Layout, Rule, Slots, joined, stack
from januslm.objectives import ar
from januslm.objectives.ar import Place, Read

STREAMS = ("given", "mask", "revealed", "query", "past", "next")
GIVEN, MASK, REVEALED, QUERY, PAST, NEXT = range(6)

NOISE: dict[str, tuple[str, dict]] = {"nmt": ("spans", {}), "pretrain": ("dual_spans", {})}
SMOOTHING = {"nmt": 0.1, "pretrain": 0.0}
NORMALIZE = {"nmt": "term", "pretrain": "tokens"}


def sees(q, k):
    """Past words see back; what is given and masked sees itself; revealed words and queries
    replace, hole by hole in their order, the masks of the holes before them by the words."""
    left_to_right = (q.stream >= PAST) & (k.stream == PAST) & (k.rank <= q.rank)
    knows = (q.stream >= REVEALED) & (
        (k.rank < q.rank) | ((k.rank == q.rank) & (q.stream == REVEALED))
    )
    hole = ((k.stream == MASK) & ~knows) | ((k.stream == REVEALED) & knows)
    return left_to_right | ((q.stream < PAST) & ((k.stream == GIVEN) | hole))


PREDICTS = {"mask": "nar", "query": "aux"} | ar.PREDICTS
RULE = Rule(STREAMS, sees, PREDICTS)
ar_read = ar.ar_read


def weights(preset: str) -> dict[str, float]:
    """The published weights: janus_loss for translation, janus_pretrain_loss for pretraining."""
    if preset == "nmt":
        return {
            "ce/ar": 1.0,
            "ce/nar": 0.5,
            "ce/aux": 0.5,
            "ce/length": 0.1,
            "kl/ar~nar": 1.0,
            "kl/ar~aux": 3.0,
            "kl/nar~aux": 1.0,
        }
    return {
        "ce/ar": 0.5,
        "ce/nar": 0.5,
        "ce/aux": 0.5,
        "kl/nar~aux": 0.5,
        "kl/ar~aux": 0.5,
    }


def layout(
    target: np.ndarray,
    hidden: np.ndarray,
    special,
    rng,
    *,
    read: Read = "next",  # past: words ask for the next one; next: masks beside them do
    # input: the slot of word i asks for word i+1; target: slot t for word t
    query_position: Place = "input",
    free: bool = False,  # AUX in a random order of the hidden words, not from the left
) -> Layout:
    """Slots of one target int64 [T] with the words of `hidden` bool [T] to be filled.

    The public code's AUX goes from the left; its abstract speaks of all orders, which is `free`.
    """
    at = np.arange(len(target))
    given, holes = at[~hidden], at[hidden]
    order = rng.permutation(len(holes)) if free else np.arange(len(holes))
    filling = stack(
        (target[given], given, GIVEN, NONE, NONE),
        (special.mask, holes, MASK, order, holes),
        (target[holes], holes, REVEALED, order, NONE),
        (special.mask, holes, QUERY, order, holes),
    )
    writing = ar.slots(target, special, read, query_position, first_stream=PAST)
    return Layout(joined(filling, writing), RULE)


def template(length: int, special) -> Slots:
    """What mask-predict starts from: BOS and EOS stand, all between is to be written."""
    at, holes = np.arange(length), np.arange(1, length - 1)
    ends = at[[0, -1]]
    return stack(
        (np.array([special.bos, special.eos]), ends, GIVEN, NONE, NONE),
        (special.mask, holes, MASK, np.arange(len(holes)), holes),
    )


def any_order(length: int, special, *, free: bool = True) -> AnyOrder | None:
    """AUX, from the same template, where it has learnt all orders, as MPNet always has."""
    if not free:
        return None
    return AnyOrder(
        template(length, special), np.arange(1, length - 1), "revealed", "query", special.mask
    )
