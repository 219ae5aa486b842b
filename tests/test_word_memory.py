"""Texts joined from remembered pieces have the ids that they have as a whole."""

import json
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from januslm.data import word_memory
from januslm.data.tokenizer import train_tokenizer
from januslm.data.word_memory import PIECES, WordMemory, divides

# What decides where GPT-2's expression divides: contractions, white space of all kinds, letters,
# numbers and signs inside and outside ASCII, marks that join, separators that only Python knows.
SIGNS = [
    *"aZ09'.,!_-",
    *["'s", "'ll", "'re", "''", "'S", "don't", "</s>", "<mask>"],
    *" \n\t\x0b\x1c\x1f\x00\x85\xa0\u2028\u3000",
    *("  ", "\r\n"),
    *"éßΩ½٣Ⅷ²•©—’\u0301\u200d我𝒜",
    *("’s", "👍🏽"),
]


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    texts = ["the cat's 12 hats: don't sit, we'll see!", "été • 1½ Ωmega\n\n  2024-01-02 __x__"]
    path = tmp_path_factory.mktemp("tokenizer") / "tokenizer.json"
    return train_tokenizer([*texts * 20, "".join(SIGNS) * 5], 420, path)


def same(tokenizer, texts):
    memory = WordMemory(tokenizer._plain)
    for _ in range(2):  # nothing known, then everything
        for mine, whole in zip(memory.encode(texts), tokenizer._plain(texts), strict=True):
            assert mine.tolist() == whole.tolist()


@pytest.mark.slow
@settings(max_examples=400, deadline=None)
@given(texts=st.lists(st.lists(st.sampled_from(SIGNS), max_size=12).map("".join), max_size=4))
def test_ids_are_those_of_the_whole_text(tokenizer, texts):
    same(tokenizer, texts)


@pytest.mark.slow
@settings(max_examples=200, deadline=None)
@given(text=st.text(st.characters(exclude_categories=["Cs"])))
def test_pieces_are_the_text_and_end_where_the_tokenizer_divides(tokenizer, text):
    pieces = PIECES.findall(text)
    assert "".join(pieces) == text
    ends = {end for _, (_, end) in tokenizer.model.pre_tokenizer.pre_tokenize_str(text)}
    assert set(np.cumsum([len(piece) for piece in pieces]).tolist()) <= ends


def test_plain_text_is_divided_as_finely_as_the_tokenizer_does(tokenizer):
    text = "It's 12 o'clock,\n\n  we'll \t(probably) leave_at 9:30!!  "
    pieces = tokenizer.model.pre_tokenizer.pre_tokenize_str(text)
    assert PIECES.findall(text) == [text[start:end] for _, (start, end) in pieces]


@pytest.mark.slow
def test_letters_of_all_kinds_stand_anywhere(tokenizer):
    codes = [*range(0xD800), *range(0xE000, 0x30000)]
    letters = [chr(i) for i in codes if i < 0x3100 or i % 61 == 0]
    texts = [f"a{c}b {c} 1{c}2 .{c}, 's{c} {c}'s\n{c}\n {c}{c}  a" for c in letters]
    memory = WordMemory(tokenizer._plain)
    assert all(map(np.array_equal, memory.encode(texts), tokenizer._plain(texts)))


def test_a_full_memory_forgets_and_goes_on(tokenizer, monkeypatch):
    monkeypatch.setattr(word_memory, "MOST", 5)
    texts = [f"text {n} and {n * n} more" for n in range(40)]
    memory = WordMemory(tokenizer._plain)
    sizes = []
    for text, whole in zip(texts, tokenizer._plain(texts), strict=True):
        assert memory.encode([text])[0].tolist() == whole.tolist()
        sizes.append(len(memory._known))
    assert max(sizes) <= 5 + 10
    assert min(sizes[1:]) <= 10


def test_a_long_piece_is_encoded_and_not_kept(tokenizer):
    text = f"a {'x' * 500} b {'y' * 64}"
    same(tokenizer, [text])
    memory = WordMemory(tokenizer._plain)
    memory.encode([text, text])
    assert max(map(len, memory._known)) <= word_memory.LONGEST


def test_threads_share_it(tokenizer, monkeypatch):
    monkeypatch.setattr(word_memory, "MOST", 20)
    texts = [f"text {n % 17} {'x' * 70}{n % 5} and {n * n} more" for n in range(400)]
    memory, whole = WordMemory(tokenizer._plain), tokenizer._plain(texts)
    with ThreadPoolExecutor(8) as threads:
        found = threads.map(lambda text: memory.encode([text])[0], texts)
    assert all(map(np.array_equal, found, whole))


def test_what_is_returned_may_be_changed(tokenizer):
    memory = WordMemory(tokenizer._plain)
    [ids] = memory.encode(["the cat"])
    ids[:] = 0
    assert memory.encode(["the cat"])[0].tolist() == tokenizer._plain(["the cat"])[0].tolist()


@pytest.mark.parametrize(
    ("change", "able"),
    [
        ({}, True),
        ({"normalizer": {"type": "NFC"}}, False),
        ({"pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": True}}, False),
        ({"pre_tokenizer": {"type": "Whitespace"}}, False),
        ({"pre_tokenizer": None}, False),
        ({"added_tokens": [{"content": "the cat", "special": False}]}, False),
        ({"model": {"type": "BPE", "dropout": 0.1}}, False),
        ({"model": {"type": "WordPiece"}}, False),
    ],
)
def test_only_what_never_merges_across_pieces_is_remembered(tokenizer, change, able):
    assert divides(json.loads(tokenizer.text) | change) is able


def test_our_tokenizers_remember(tokenizer):
    tokenizer.encode(["the cat's hats"])
    assert tokenizer._memory._known
