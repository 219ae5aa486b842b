"""Task texts become token pairs: nothing is lost uncounted, and the order needs no state."""

from types import SimpleNamespace

import numpy as np
import pytest

from finetune.data import Limits, Pairs, prepare, sources
from finetune.pairs import Pair
from januslm import tokenizer
from januslm.config import Refused

WORDS = [
    "the",
    "quick",
    "brown",
    "fox",
    "jumps",
    "over",
    "the",
    "lazy",
    "dog",
    "and",
    "runs",
    "away",
    "from",
    "all",
    "of",
    "it",
]


@pytest.fixture
def words(tmp_path):
    """A small tokenizer."""
    return tokenizer.train([" ".join(WORDS)] * 3, 300, tmp_path / "tokenizer.json")


def task(pairs):
    """A task of the given (source, target) texts."""

    def read(root, split, skipped=None):
        for number, (source, target) in enumerate(pairs):
            yield Pair(f"{split}-{number}", source, (target,))

    return SimpleNamespace(__name__="made", read=read)


def sentences(count):
    """Random texts of 1 to 12 words, source and target different."""
    rng = np.random.default_rng(0)
    make = lambda: " ".join(rng.choice(WORDS, rng.integers(1, 13)))  # noqa: E731
    return [(make(), make()) for _ in range(count)]


def test_every_pair_comes_back_whole_and_in_a_shuffled_order(tmp_path, words):
    pairs = sentences(50)
    prepare(task(pairs), tmp_path, "train", words, Limits(64, 64, "cut"), tmp_path / "d")
    read = Pairs(tmp_path / "d", seed=3).read(np.arange(50))
    texts = [tuple(words.decode(side) for side in pair) for pair in read]
    assert sorted(texts) == sorted(pairs)
    assert texts != pairs
    assert all(side[0] == 0 and side[-1] == 2 for pair in read for side in pair)


def test_ids_give_the_same_pairs_alone_and_together(tmp_path, words):
    prepare(task(sentences(20)), tmp_path, "train", words, Limits(64, 64, "cut"), tmp_path / "d")
    data = Pairs(tmp_path / "d", seed=3)
    together = data.read(np.arange(15, 45))
    for i, pair in zip(range(15, 45), together, strict=True):
        alone = data.read(np.array([i]))[0]
        assert all(np.array_equal(a, b) for a, b in zip(alone, pair, strict=True))


def test_what_is_cut_is_counted(tmp_path, words):
    pairs = sentences(40)
    limits = Limits(8, 6, "cut")
    counts = prepare(task(pairs), tmp_path, "train", words, limits, tmp_path / "d")["counts"]
    for side, most, column in (("source", 8, 0), ("target", 6, 1)):
        sizes = np.array([len(e) for e in words.encode([pair[column] for pair in pairs])])
        assert counts[f"{side}s cut"] == (sizes > most - 2).sum() > 0
        assert counts[f"{side} tokens cut"] == np.maximum(sizes - (most - 2), 0).sum()
    longest = [
        max(len(s) for s in side)
        for side in zip(*Pairs(tmp_path / "d", 0).read(np.arange(40)), strict=True)
    ]
    assert longest == [8, 6]


def test_a_long_text_is_refused_if_asked_for(tmp_path, words):
    with pytest.raises(Refused, match=r"train: \d+ sources are longer than max_source = 8 tokens"):
        prepare(task(sentences(40)), tmp_path, "train", words, Limits(8, 64, "refuse"), tmp_path)


def test_a_split_without_pairs_is_refused(tmp_path, words):
    with pytest.raises(Refused, match="split 'train' of made has no pairs"):
        prepare(task([]), tmp_path, "train", words, Limits(8, 8, "cut"), tmp_path / "d")


def test_other_limits_or_files_prepare_anew_and_the_same_ones_do_not(tmp_path, words):
    def prepared(count, limits):
        pairs = task(sentences(count))
        return prepare(pairs, tmp_path, "train", words, limits, tmp_path / "d")["counts"]["pairs"]

    limits = Limits(64, 64, "cut")
    assert [prepared(9, limits), prepared(8, limits)] == [9, 9]
    (tmp_path / "more.txt").write_text("the data changed")
    assert prepared(7, limits) == 7
    assert prepared(8, Limits(64, 32, "cut")) == 8


def test_sources_to_decode_are_cut_and_counted(words):
    texts = [source for source, _ in sentences(30)]
    arrays, cut = sources(texts, words, Limits(7, 7, "cut"))
    assert cut == sum(len(e) > 5 for e in words.encode(texts)) > 0
    assert max(map(len, arrays)) == 7
