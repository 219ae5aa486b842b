"""Tokenizers of others keep their ids; their special tokens are ours, wherever they stand."""

import gzip
import io
import json
import pickle
import sys
from pathlib import Path

import numpy as np
import pytest
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors, trainers

from januslm.config import Refused
from januslm.data.tokenizer import SPECIALS, Special, Tokenizer
from januslm.hub.tokenizer_files import tokenizer_files
from januslm.inference.passes import letters
from tests.conftest import ROOT

sentencepiece = pytest.importorskip("sentencepiece", reason="the sentencepiece extra")

TEXTS = [
    "The quick brown fox jumps over the lazy dog, and the dog sleeps.",
    "a <s> b </s> and [CLS], [MASK] or <|endoftext|> are words of <pad> this text",
    "Numbers: 1, 22, 333; a caf\u00e9, na\u00efve words and \u4e2d\u6587 too!",
    "It was the best of times, it was the worst of times.",
]
WIKI = ROOT / "tests" / "fixtures" / "wikitext2" / "wiki.valid.raw.gz"
LEARNT = TEXTS * 8 + gzip.decompress(WIKI.read_bytes()).decode()[:30_000].splitlines()
LETTERS = "abcdefg the.,<>/s[]CLSk\u00e9\u4e2d\t\n\u3000\ufb01"
KINDS = ("bart", "gpt2", "t5", "bert", "unigram", "bpe", "fallback")
SP = {
    "unigram": {"model_type": "unigram"},
    "bpe": {"model_type": "bpe"},
    "fallback": {
        "model_type": "bpe",
        "byte_fallback": True,
        "character_coverage": 0.98,
        "normalization_rule_name": "identity",
        "remove_extra_whitespaces": False,
        "allow_whitespace_only_pieces": True,
        "vocab_size": 450,
    },
}


def byte_level(special: list[str]) -> tokenizers.Tokenizer:
    bpe = tokenizers.Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=330, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    bpe.train_from_iterator(LEARNT, trainer)
    return bpe


def bart() -> tokenizers.Tokenizer:
    """<mask> is the last, and takes the space before it."""
    bpe = byte_level(["<s>", "<pad>", "</s>", "<unk>"])
    bpe.add_special_tokens([tokenizers.AddedToken("<mask>", lstrip=True)])
    bpe.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0))
    return bpe


def gpt2() -> tokenizers.Tokenizer:
    """<|endoftext|> alone, as the last."""
    bpe = byte_level([])
    bpe.add_special_tokens(["<|endoftext|>"])
    return bpe


def t5() -> tokenizers.Tokenizer:
    """Unigram with sentinels, no <s> and no <mask>."""
    made = tokenizers.Tokenizer(models.Unigram())
    made.normalizer = normalizers.Replace(tokenizers.Regex(" {2,}"), " ")
    made.pre_tokenizer = pre_tokenizers.Metaspace()
    made.decoder = decoders.Metaspace()
    special = ["<pad>", "</s>", "<unk>"]
    trainer = trainers.UnigramTrainer(
        vocab_size=150, special_tokens=special, unk_token="<unk>", show_progress=False
    )
    made.train_from_iterator(LEARNT, trainer)
    made.add_special_tokens([f"<extra_id_{i}>" for i in range(9, -1, -1)])
    made.post_processor = processors.TemplateProcessing(
        single="$A </s>", special_tokens=[("</s>", 1)]
    )
    return made


def bert() -> tokenizers.Tokenizer:
    """Uncased WordPiece that cuts and pads, as the files of some sentence encoders do."""
    made = tokenizers.Tokenizer(models.WordPiece(unk_token="[UNK]"))
    made.normalizer = normalizers.BertNormalizer()
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    made.decoder = decoders.WordPiece()
    special = ["[PAD]", "[unused0]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    trainer = trainers.WordPieceTrainer(vocab_size=180, special_tokens=special, show_progress=False)
    made.train_from_iterator(LEARNT, trainer)
    made.post_processor = processors.BertProcessing(("[SEP]", 4), ("[CLS]", 3))
    made.enable_truncation(8)
    made.enable_padding(length=8)
    return made


def sp_model(kind: str) -> bytes:
    model = io.BytesIO()
    options = {"vocab_size": 300, "minloglevel": 2, "hard_vocab_limit": False} | SP[kind]
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(LEARNT), model_writer=model, **options
    )
    return model.getvalue()


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> dict[str, Path]:
    """A small real tokenizer of each kind, as others would hand it over."""
    place, found = tmp_path_factory.mktemp("others"), {}
    for kind in KINDS:
        found[kind] = place / f"{kind}.{'model' if kind in SP else 'json'}"
        if kind in SP:
            found[kind].write_bytes(sp_model(kind))
        else:
            globals()[kind]().save(str(found[kind]))
    return found


def theirs(file: Path):
    """text -> the ids that the kind's own library gives."""
    if file.suffix == ".model":
        return sentencepiece.SentencePieceProcessor(model_proto=file.read_bytes()).encode
    model = tokenizers.Tokenizer.from_file(str(file))
    model.no_truncation()
    model.no_padding()
    return lambda text: model.encode(text, add_special_tokens=False).ids


FOUND = {  # our five by their names
    "bart": ("<s>", "<pad>", "</s>", "<unk>", "<mask>"),
    "gpt2": ("<s>", "<pad>", "<|endoftext|>", "<unk>", "<mask>"),
    "t5": ("<s>", "<pad>", "</s>", "<unk>", "<mask>"),
    "bert": ("[CLS]", "[PAD]", "[SEP]", "[UNK]", "[MASK]"),
    "unigram": SPECIALS,
    "bpe": SPECIALS,
    "fallback": SPECIALS,
}
ADDED = {
    "bart": (),
    "gpt2": ("<s>", "<pad>", "<unk>", "<mask>"),
    "t5": ("<s>", "<mask>"),
    "bert": (),
    **dict.fromkeys(SP, ("<pad>", "<mask>")),
}


@pytest.mark.parametrize("kind", KINDS)
def test_each_of_our_five_is_theirs_or_added_behind_their_vocabulary(files, kind):
    mine = Tokenizer.load(files[kind])
    assert mine.names == FOUND[kind]
    assert tuple(mine.added) == ADDED[kind]
    assert len(set(mine.special.ids)) == 5
    ids = mine.model.get_vocab()
    assert mine.special.ids == tuple(ids[name] for name in FOUND[kind])
    before = mine.size - len(mine.added)
    assert sorted(mine.added.values()) == [*range(before, mine.size)]
    if files[kind].suffix == ".json":
        old = tokenizers.Tokenizer.from_file(str(files[kind])).get_vocab()
        assert {name: i for name, i in ids.items() if name not in mine.added} == old
    assert all(name in mine.note for name in mine.added)
    assert bool(mine.note) == (kind != "bart")


@pytest.mark.parametrize("kind", KINDS)
def test_text_has_the_ids_that_their_library_gives(files, kind):
    mine, encode = Tokenizer.load(files[kind]), theirs(files[kind])
    texts = [
        TEXTS[0], TEXTS[3], "  two  spaces ", "x", "caf\u00e9 \u00e9\u00e9 \u2603\u2603 q",
        "don't stop; [brackets] (and) \u4e2d\u6587.", "THE Dog", TEXTS[0] * 3,
    ]  # fmt: skip
    for text, ids in zip(texts, mine.encode(texts), strict=True):
        assert ids.tolist() == encode(text), text


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
@given(text=st.text(st.sampled_from(LETTERS), max_size=30))
@settings(max_examples=60)
def test_random_text_has_the_ids_that_their_library_gives(files, kind, text):
    mine = _loaded(files[kind])
    special = {name for name in mine.names if name in text}
    if not special:
        assert mine.encode([text])[0].tolist() == _theirs(files[kind])(text)


_made: dict = {}


def _loaded(file: Path) -> Tokenizer:
    return _made.setdefault(file, Tokenizer.load(file))


def _theirs(file: Path):
    return _made.setdefault((file, "theirs"), theirs(file))


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
@given(
    words=st.lists(
        st.sampled_from([*SPECIALS, *FOUND["bert"], "<|endoftext|>", "<extra_id_0>", " ", "a"]),
        max_size=6,
    )
)
@settings(max_examples=60)
def test_no_text_spells_a_special_token(files, kind, words):
    mine = _loaded(files[kind])
    s = mine.special
    [ids] = mine.encode(["".join(words)])
    assert not {s.bos, s.pad, s.eos, s.mask} & set(ids.tolist())  # <unk> is what is unknown
    if kind in ("bart", "gpt2"):
        assert s.unk not in ids.tolist()


@pytest.mark.parametrize("kind", KINDS)
def test_text_comes_back_as_well_as_the_kind_can(files, kind):
    mine = Tokenizer.load(files[kind])
    s = mine.special
    for text in (TEXTS[0], TEXTS[3]):
        [ids] = mine.encode([text])
        back = mine.decode([s.bos, *ids, s.mask, s.eos, s.pad])
        assert back == (text.lower() if kind == "bert" else text)


@pytest.mark.parametrize("kind", ["bart", "gpt2", "fallback"])
def test_bytes_lose_nothing(files, kind):
    mine = Tokenizer.load(files[kind])
    for text in (*TEXTS[:4], " a  b ", "\u2603 \U0001f600\n\ttab"):
        assert mine.decode(mine.encode([text])[0]) == text


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_written_reads_as_the_same_tokenizer(files, kind, tmp_path):
    mine = Tokenizer.load(files[kind])
    (tmp_path / "tokenizer.json").write_text(mine.text)
    again = Tokenizer.load(tmp_path / "tokenizer.json")
    assert again.sha256 == mine.sha256 == Tokenizer.load(files[kind]).sha256
    assert (again.names, again.special) == (mine.names, mine.special)
    assert not again.added  # they are its own now
    for one, other in zip(again.encode(TEXTS[:4]), mine.encode(TEXTS[:4]), strict=True):
        assert (one == other).all()
    sent = pickle.loads(pickle.dumps(mine))
    assert [ids.tolist() for ids in sent.encode(TEXTS[:4])] == [
        ids.tolist() for ids in mine.encode(TEXTS[:4])
    ]


@pytest.mark.parametrize("kind", KINDS)
def test_transformers_reads_what_is_exported_with_the_same_ids(files, kind, tmp_path):
    transformers = pytest.importorskip("transformers", reason="transformers is a dev dependency")
    mine = Tokenizer.load(files[kind])
    for name, text in tokenizer_files(mine, 64).items():
        (tmp_path / name).write_text(text)
    fast = transformers.AutoTokenizer.from_pretrained(tmp_path)
    s = mine.special
    for text in (TEXTS[0], TEXTS[2], TEXTS[3]):
        assert fast(text).input_ids == [s.bos, *mine.encode([text])[0], s.eos]
    ids = (fast.bos_token_id, fast.pad_token_id, fast.eos_token_id, fast.unk_token_id)
    assert (*ids, fast.mask_token_id) == s.ids


@pytest.mark.parametrize("kind", KINDS)
def test_the_texts_of_single_tokens_join_to_the_text(files, kind):
    mine = Tokenizer.load(files[kind])
    for text in (TEXTS[0], TEXTS[2]):
        ids = mine.encode([text])[0].tolist()
        parts = [*letters(mine, ids)]
        assert [i for _, at in parts for i in at] == [*range(len(ids))]
        assert "".join(part for part, _ in parts) == mine.decode(ids)


def test_a_token_that_is_marked_goes_before_a_word_of_that_name(tmp_path):
    made = gpt2()
    made.add_tokens(["</s>"])  # an ordinary word
    made.save(str(tmp_path / "t.json"))
    mine = Tokenizer.load(tmp_path / "t.json")
    assert mine.names[2] == "<|endoftext|>"
    assert mine.encode(["a</s>"])[0].tolist() == theirs(tmp_path / "t.json")("a</s>")


@pytest.mark.slow
@pytest.mark.parametrize("marks", [True, False])
def test_words_of_a_file_that_marks_others_are_no_special_tokens(tmp_path, marks):
    tree = json.loads(t5().to_str())
    for word in ("[CLS]", "[MASK]"):
        tree["model"]["vocab"].append([word, -9.0])
    for token in tree["added_tokens"]:  # those after the vocabulary
        token["id"] += 2 * token["content"].startswith("<extra")
    if not marks:
        tree["added_tokens"] = []
    (tmp_path / "t.json").write_text(json.dumps(tree))
    mine = Tokenizer.load(tmp_path / "t.json")
    assert set(mine.added) == ({"<s>", "<mask>"} if marks else set())
    assert mine.names[0] == ("<s>" if marks else "[CLS]")
    assert not set(mine.special.ids) & set(mine.encode(["a [CLS] b </s>"])[0].tolist())


def test_ids_with_holes_are_refused_where_a_token_must_be_added(tmp_path):
    tree = json.loads(gpt2().to_str())
    tree["model"]["vocab"]["lonely"] = 900
    (tmp_path / "t.json").write_text(json.dumps(tree))
    with pytest.raises(Refused, match=r"t\.json: .* should be id \d+, and `tokenizers` makes it"):
        Tokenizer.load(tmp_path / "t.json")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"model_type": "char"}, "of words or characters"),
        ({"model_type": "bpe", "user_defined_symbols": ["<x>"]}, "user-defined symbols"),
        ({"model_type": "unigram", "treat_whitespace_as_suffix": True}, "at the ends of words"),
    ],
)
def test_sentencepiece_models_that_cannot_be_the_same_are_refused(tmp_path, options, message):
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(LEARNT), model_writer=model, vocab_size=200, minloglevel=2,
        hard_vocab_limit=False, **options,
    )  # fmt: skip
    (tmp_path / "m.model").write_bytes(model.getvalue())
    with pytest.raises(Refused, match=message):
        Tokenizer.load(tmp_path / "m.model")


def test_without_sentencepiece_its_models_are_refused_with_the_extra(files, monkeypatch):
    monkeypatch.setitem(sys.modules, "sentencepiece", None)
    with pytest.raises(Refused, match=r"bpe\.model: .*pip install 'januslm\[sentencepiece\]'"):
        Tokenizer.load(files["bpe"])


def test_a_cut_sentencepiece_model_is_refused(files, tmp_path):
    for size in (1, 40, 2000):
        (tmp_path / "m.model").write_bytes(files["unigram"].read_bytes()[:size])
        with pytest.raises(Refused, match=r"m\.model: not a tokenizer file"):
            Tokenizer.load(tmp_path / "m.model")


def test_words_are_all_ids_but_the_five(files):
    for kind in KINDS:
        special = Tokenizer.load(files[kind]).special
        assert isinstance(special, Special)
        assert len(special.words) == special.vocabulary - 5
        assert not np.isin(special.ids, special.words).any()
        assert special.word in special.words
