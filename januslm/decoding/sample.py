"""Word by word, drawn by chance: temperature, the k likeliest, the likeliest that make up p."""

import zlib
from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated

import numpy as np
import torch

from januslm.config import Allowed
from januslm.decoding import Output
from januslm.decoding._options import Beam, Count, Length, Ratio
from januslm.decoding.greedy import write

NEEDS = ("word by word",)  # how a checkpoint must have learnt to write


@torch.inference_mode()
def decode(
    decoder,
    sources: Sequence[np.ndarray],
    special,
    *,
    # below 1 likelier words gain, above 1 others
    temperature: Annotated[float, Allowed(low=1e-3, high=1e3)] = 1.0,
    top_k: Count = 0,  # draw from so many likeliest words
    # draw from the likeliest words that have so much of p
    top_p: Annotated[float, Allowed(above=0, high=1)] = 1.0,
    seed: Count = 0,  # of the random draws
    samples: Beam = 1,
    min_length: Count = 0,  # fewest words of a text
    max_length: Length = 200,  # most words of a text, and max_ratio beside it
    max_ratio: Ratio = 0.0,  # so many words more for each token of the source
    no_repeat_ngram: Count = 0,  # no run of so many words comes twice; 0: they may
) -> list[Output]:
    """top_k 0: all words.  samples: texts of each source, as drawn; others has the later ones.

    Chance comes from (seed, source, number of the sample), so the batch does not matter.
    """
    decoder.require(*NEEDS)
    state = start(decoder, sources, samples)
    each = [s for s in sources for _ in range(samples)]
    choose = chooser(generators(each, seed, samples), temperature, top_k, top_p)
    limits = {
        "min_length": min_length,
        "max_length": max_length,
        "max_ratio": max_ratio,
        "no_repeat_ngram": no_repeat_ngram,
    }
    return grouped(write(decoder, state, each, special, choose, **limits), samples)


def chooser(rngs: Sequence[np.random.Generator], temperature: float, top_k: int, top_p: float):
    """The `choose` of greedy's `write` that draws each text's words with its own generator."""

    def choose(scores, numbers):
        drawn = torch.tensor([rngs[n].random() for n in numbers], device=scores.device)
        return draw(scores, drawn, temperature, top_k, top_p)

    return choose


def grouped(drawn: Sequence[Output], samples: int) -> list[Output]:
    """One output a source, with its later samples as others."""
    return [
        replace(drawn[i], others=tuple(drawn[i + 1 : i + samples]))
        for i in range(0, len(drawn), samples)
    ]


def start(decoder, sources: Sequence[np.ndarray], samples: int):
    """The state of each source `samples` times in a row; each is read once."""
    state = decoder.start(sources)
    if samples > 1:
        rows = torch.arange(len(sources), device=state.length_scores.device)
        state.keep(rows.repeat_interleave(samples))
    return state


def generators(sources: Sequence[np.ndarray], seed: int, samples: int) -> list:
    """The random generator of each text; sources: each of them `samples` times in a row."""
    marks = [zlib.crc32(np.asarray(source, np.int64).tobytes()) for source in sources]
    return [np.random.default_rng([seed, mark, i % samples]) for i, mark in enumerate(marks)]


def warped(scores, temperature: float, top_k: int, top_p: float):
    """Log p, words and weights to draw with, the likeliest first: [..., K] each for log p [..., V].

    top_p keeps the likeliest words until their sum reaches it, that word included.
    """
    value, word = (
        scores.topk(top_k) if 0 < top_k < scores.shape[-1] else scores.sort(descending=True)
    )
    p = (value.double() / temperature).softmax(-1)
    return value, word, torch.where(p.cumsum(-1) - p < top_p, p, 0.0)


def draw(scores, drawn, temperature: float, top_k: int, top_p: float):
    """Log p and words [B, 1] for log p [B, V] and numbers in [0, 1) [B]."""
    value, word, p = warped(scores, temperature, top_k, top_p)
    reached = p.cumsum(-1)
    place = (reached <= drawn[:, None] * reached[:, -1:]).sum(-1, keepdim=True)
    # Rounding may leave the last sum below the number times itself.
    place = place.minimum((p > 0).sum(-1, keepdim=True) - 1)
    return value.gather(1, place), word.gather(1, place)
