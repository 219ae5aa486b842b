"""Runs of hidden words: their lengths, where they lie, and what two noises share of a source."""

from functools import cache
from math import exp, factorial
from typing import Annotated

import numpy as np

from januslm.config import Allowed, Refused

Ratio = Annotated[float, Allowed(above=0, high=1)]
Chance = Annotated[float, Allowed(low=0, high=1)]
Mean = Annotated[float, Allowed(above=0, high=100)]


def given(source, name: str) -> np.ndarray:
    """The source of a pair, as it is; Refused where there is none."""
    if source is None:
        raise Refused(f"noise {name!r} needs pairs")
    return source


def cover(starts: np.ndarray, ends: np.ndarray, length: int) -> np.ndarray:
    """bool [length]: the union of [start, end)."""
    steps = np.zeros(length + 1, np.int64)
    np.add.at(steps, starts, 1)
    np.add.at(steps, ends, -1)
    return steps[:-1].cumsum() > 0


def budget(count: int, ratio: float) -> int:
    """How many of so many words are to be hidden: rounded up, in fp32 as fairseq has it."""
    return int(np.ceil(np.float32(count) * np.float32(ratio)))


def run_lengths(total: int, mean: float, rng: np.random.Generator, most: int | None = None):
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
    law: list[float] = []
    k = 0
    while not law or k <= mean or law[-1] >= 1e-7:
        law.append(exp(-mean) * mean**k / factorial(k))
        k += 1
    kept = np.array(law[:-1])
    return (kept / kept.sum()).cumsum()


def insert(tokens: np.ndarray, count: int, mask: int, rng: np.random.Generator) -> np.ndarray:
    """`count` masks more, at random places between the first and the last token."""
    if not count:
        return tokens
    out = np.full(len(tokens) + count, -1, np.int64)
    out[1 + rng.permutation(len(out) - 2)[:count]] = mask
    out[out == -1] = tokens
    return out


def disguised(words: np.ndarray, special, rng, masked: float, replaced: float) -> np.ndarray:
    """What stands for hidden words, int64 [n]: <mask>, another word, or the word itself."""
    draw = rng.random(len(words))
    other = special.words[rng.integers(len(special.words), size=len(words))]
    kept = np.where(draw < masked + replaced, other, words)
    return np.where(draw < masked, special.mask, kept)
