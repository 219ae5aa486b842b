"""Text comes back as it went in, and no text can spell a special token."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from januslm.config import Refused
from januslm.data.tokenizer import SPECIALS, Special, Tokenizer, train_tokenizer

TEXTS = ["the cat sat on the mat", "the dog sat on the log", "<mask> and </s> are words here"] * 20


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    path = tmp_path_factory.mktemp("tokenizer") / "tokenizer.json"
    train_tokenizer(TEXTS, 280, path)
    return path


@pytest.fixture(scope="module")
def tokenizer(path):
    return Tokenizer.load(path)


@pytest.mark.slow
@given(text=st.text())
@settings(max_examples=50)
def test_any_text_survives_encoding_and_decoding(tokenizer, text):
    assert tokenizer.decode(tokenizer.encode([text])[0]) == text


@given(words=st.lists(st.sampled_from([*SPECIALS, " ", "a", "<", ">"])))
def test_no_text_becomes_a_special_token(tokenizer, words):
    ids = tokenizer.encode(["".join(words)])[0]
    assert ids.size == 0 or ids.min() >= len(SPECIALS)


def test_sentences_may_end_at_tokens_that_end_with_a_stop(tokenizer):
    stops = {tokenizer.decode([i]) for i in tokenizer.special.stops}
    assert {".", "!", "?"} <= stops
    assert all(text.endswith((".", "!", "?")) for text in stops)
    [ids] = tokenizer.encode(["the cat. the dog!"])
    assert [i in tokenizer.special.stops for i in ids].count(True) == 2


def test_the_specials_are_the_first_ids(tokenizer):
    ids = [tokenizer.model.token_to_id(word) for word in SPECIALS]
    special = Special()
    assert ids == [special.bos, special.pad, special.eos, special.unk, special.mask]


def test_decoding_leaves_specials_out(tokenizer):
    ids = tokenizer.encode(["the cat"])[0].tolist()
    assert tokenizer.decode([0, *ids, 4, 2, 1]) == "the cat"


def test_a_vocabulary_is_no_larger_than_asked(tokenizer):
    assert tokenizer.size == 280
    assert tokenizer.encode(["the cat"])[0].max() < 280


def test_two_trainings_on_the_same_text_write_the_same_file(path, tmp_path):
    assert (
        train_tokenizer(TEXTS, 280, tmp_path / "again.json").sha256 == Tokenizer.load(path).sha256
    )


def test_a_vocabulary_too_small_for_the_bytes_is_refused(tmp_path):
    with pytest.raises(Refused, match="at least 261 tokens, got 100"):
        train_tokenizer(TEXTS, 100, tmp_path / "t.json")


def test_specials_are_read_wherever_the_file_has_them(path, tmp_path):
    tree = json.loads(path.read_text())
    vocab = tree["model"]["vocab"]
    word = next(one for one, place in vocab.items() if place == len(vocab) - 1)
    vocab["<mask>"], vocab[word] = vocab[word], vocab["<mask>"]
    for token in tree["added_tokens"]:
        token["id"] = vocab[token["content"]]
    other = tmp_path / "other.json"
    other.write_text(json.dumps(tree))
    special = Tokenizer.load(other).special
    assert special.ids == (0, 1, 2, 3, len(vocab) - 1)
    assert special.words.tolist() == list(range(4, len(vocab) - 1))
    assert (special.word, Tokenizer.load(path).special.word) == (4, 5)
    assert Tokenizer.load(other).encode(["<mask>"])[0].min() >= 4


@pytest.mark.parametrize("content", [b"", b"{}", b"\xff\xfe", b'{"model": 3}'])
def test_a_garbled_tokenizer_file_is_refused_by_name(tmp_path, content):
    bad = tmp_path / "bad.json"
    bad.write_bytes(content)
    with pytest.raises(Refused, match=r"bad\.json: not a tokenizer file"):
        Tokenizer.load(bad)
    with pytest.raises(Refused, match=r"none\.json: cannot be read"):
        Tokenizer.load(tmp_path / "none.json")
