"""In any order: each pass asks for places of a text of known length and writes the next word.

XLNet (Yang 2019), MPNet (Song 2020) and a JANUS that was trained in all orders.  Each word is read
from those written before it, in the order of writing, so its log p is the one that training gives.
B = sentences and lengths that are tried, K = words written in a pass, Q = places asked for.
"""

import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from januslm.decoding import Output
from januslm.decoding._constraints import log_p, worth_compacting
from januslm.decoding._options import Beam, Choice, Count, Length
from januslm.decoding._templates import candidates, ranked
from januslm.layout import NONE

NEEDS = ("any order",)  # how a checkpoint must have learnt to write
Order = Literal["certain", "left", "random"]


@torch.inference_mode()
def decode(
    decoder,
    sources: Sequence[np.ndarray],
    special,
    *,
    order: Order = "certain",
    words: Length = 1,
    seed: Count = 0,  # of random orders
    length_beam: Beam = 1,  # lengths that are tried side by side
    lengths: Choice = "topk",  # the likeliest, or the likeliest and its neighbours
) -> list[Output]:
    """Score: mean log p of the words in the order of writing; others holds the other lengths.

    order: the most certain word first, from the left, or at random, by (seed, source, length).
    words: so many in a pass, which do not know of each other; with 1 the score is that of the text.
    """
    decoder.require(*NEEDS)
    state = decoder.start(sources)
    tried = candidates(state.length_scores, length_beam, lengths, decoder.most_length)
    device, each = tried.device, tried.shape[1]
    if each > 1:
        state.keep(torch.arange(len(sources), device=device).repeat_interleave(each))
    flat = tried.flatten().tolist()
    filling = decoder.filling(state, flat)
    texts = [
        _Text(order == "certain", ordered(order, holes, seed, sources[number // each], length))
        for number, (holes, length) in enumerate(zip(filling.holes, flat, strict=True))
    ]
    no_words = [special.bos, special.pad, special.eos, special.unk, special.mask]
    rows = texts
    while True:
        new, at, asked = (
            table(column, device) for column in zip(*(t.next(words) for t in rows), strict=True)
        )
        scores = log_p(filling.ask(new, at, asked))
        scores[..., no_words] = -torch.inf
        value, word = (x.tolist() for x in scores.max(-1))
        for text, its_words, its_values in zip(rows, word, value, strict=True):
            text.take(its_words, its_values, words)
        alive = np.array([bool(text.left) for text in rows])
        if not alive.any():
            return [_best(texts[i : i + each]) for i in range(0, len(texts), each)]
        if worth_compacting(alive):
            chosen = torch.from_numpy(np.flatnonzero(alive)).to(device)
            filling.keep(chosen)
            rows = [rows[n] for n in chosen.tolist()]


def _best(texts: Sequence["_Text"]) -> Output:
    """Of the lengths of a sentence; it took part in every pass of the longest."""
    passes = max(text.passes for text in texts)
    return ranked([replace(text.output(), passes=passes) for text in texts])


def ordered(order: str, holes: np.ndarray, seed: int, source, length: int) -> list[int]:
    """Places to write: in their order, or for "certain" from the left."""
    if order == "random":
        key = [seed, zlib.crc32(np.asarray(source, np.int64).tobytes()), length]
        holes = np.random.default_rng(key).permutation(holes)
    return holes.tolist()


def table(rows: Sequence[list[int]], device) -> Tensor:
    """int64 [B, n], filled up with NONE."""
    most = max(map(len, rows))
    return torch.tensor([row + [NONE] * (most - len(row)) for row in rows], device=device).long()


@dataclass
class _Text:
    """What is written of one text."""

    certain: bool  # whether the most certain words come first, not those of the places left
    left: list[int]  # places to write
    words: dict[int, int] = field(default_factory=dict)  # by place, in the order of writing
    last: list[int] = field(default_factory=list)  # places of the last pass
    log_p: float = 0.0
    passes: int = 0

    def next(self, count: int) -> tuple[list[int], list[int], list[int]]:
        """Words of the last pass, their places, and the places that the next one asks for."""
        asked = self.left if self.certain else self.left[:count]
        return [self.words[place] for place in self.last], self.last, asked

    def take(self, word: list[int], value: list[float], count: int) -> None:
        """The likeliest words of what was asked for, or the most certain of them."""
        self.passes += bool(self.left)
        order = range(len(self.left) if self.certain else min(count, len(self.left)))
        best = sorted(order, key=lambda i: -value[i] if self.certain else i)[:count]
        self.last = [self.left[i] for i in best]
        self.words |= {self.left[i]: word[i] for i in best}
        self.log_p += sum(value[i] for i in best)
        self.left = [place for place in self.left if place not in self.words]

    def output(self) -> Output:
        tokens = [self.words[place] for place in sorted(self.words)]
        return Output(np.array(tokens, np.int64), self.log_p / len(tokens), self.passes)
