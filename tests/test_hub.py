"""What is exported for transformers is loaded by it as it is, and computes and writes the same."""

import sys

import numpy as np
import pytest
import torch

import januslm
from januslm.data import tokenizer
from januslm.hub import export as hub
from januslm.interop import native
from januslm.model.config import configure
from januslm.model.transformer import Seq2Seq
from tests.samples import case_name, every_layout

transformers = pytest.importorskip("transformers", reason="transformers is a dev dependency")

TEXTS = ["the lazy dog jumps", "a fox", "the quick <mask> fox jumps over", "dog dog over the fox"]
SMALL = {
    "width": 16,
    "ffn": 32,
    "heads": 2,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "max_positions": 48,
    "max_length": 24,
}
BART = {"norm": "post", "positions": "learned", "embedding_norm": True, "embedding_scale": True}
STYLES = {
    "bart": BART,
    "modern": {"norm": "pre", "positions": "rotary", "tied": False},
    "fairseq": {"positions": "sinusoidal", "embedding_norm": False, "activation": "relu"},
    "t5": {"positions": "none", "position_bias": "t5", "norm": "pre", "embedding_norm": False},
}


@pytest.fixture(scope="module")
def words(tmp_path_factory):
    """A small tokenizer of ours."""
    place = tmp_path_factory.mktemp("words") / "tokenizer.json"
    tokenizer.train_tokenizer(["the quick brown fox jumps over the lazy dog " * 3], 290, place)
    return place


def run(words, folder, name, options, style, about=None):
    """An exported model of ours, lively and random."""
    torch.manual_seed(7)
    size = tokenizer.Tokenizer.load(words).size
    model = Seq2Seq(configure({"preset": "base"} | SMALL | STYLES[style], size, "test"))
    for p in model.parameters():
        torch.nn.init.normal_(p, std=0.4)
    native.write(folder, model, words, name, options, about or {})
    return januslm.load(folder)


def opened(folder):
    """What a user of transformers gets from the folder."""
    words = transformers.AutoTokenizer.from_pretrained(folder, trust_remote_code=True)
    model = transformers.AutoModelForSeq2SeqLM.from_pretrained(folder, trust_remote_code=True)
    return words, model


def told(words, written):
    """Texts as we have them: on one line."""
    found = words.batch_decode(written, skip_special_tokens=True)
    return [" ".join(text.split()) for text in found]


def ar_logits(ours, texts, tails):
    """[B, T, V]: ours, after each of the words int64 [B, T] behind the prefix."""
    decoder = ours.incremental()
    state = decoder.start(ours._tokens(texts, "refuse"))
    head = torch.tensor(decoder.prefix).expand(len(texts), -1)
    return decoder.block(state, torch.cat([head, tails], 1)[:, None])[:, 0], head


READS = [{"read": "past", "query_position": place} for place in ("input", "target")]


@pytest.mark.slow
@pytest.mark.parametrize("options", READS, ids=lambda options: options["query_position"])
def test_a_bart_is_barts_class_with_the_same_logits_and_words(tmp_path, words, options):
    ours = run(words, tmp_path / "run", "ar", options, "bart")
    said = hub.export(tmp_path / "run", tmp_path / "out", "hf")
    assert said == f"wrote {tmp_path / 'out'} (BART)"
    assert not list((tmp_path / "out").glob("*.py"))
    there, theirs = opened(tmp_path / "out")
    assert type(theirs) is transformers.BartForConditionalGeneration
    same_ar(ours, there, theirs)


def same_ar(ours, there, theirs):
    """Ids, logits, and what greedy and beam write."""
    batch = there(TEXTS, return_tensors="pt", padding=True)
    for row, source in zip(batch["input_ids"], ours._tokens(TEXTS, "refuse"), strict=True):
        assert row[: len(source)].tolist() == source.tolist()
    tails = torch.from_numpy(np.random.default_rng(1).integers(5, len(there), (len(TEXTS), 6)))
    want, head = ar_logits(ours, TEXTS, tails)
    with torch.no_grad():
        got = theirs(**batch, decoder_input_ids=torch.cat([head, tails], 1)).logits
    torch.testing.assert_close(got, want, atol=1e-5, rtol=1e-5)
    before = head.shape[1]
    limit = {"max_length": before + 12 + 1}
    written = told(there, theirs.generate(**batch, num_beams=1, **limit))
    assert written == ours.generate(TEXTS, max_length=12)
    assert all(written)
    # Where BOS is forced transformers counts it as a word: only without a penalty is it the same.
    forced = theirs.generation_config.forced_bos_token_id is not None
    penalty = 0.0 if forced and type(theirs) is transformers.BartForConditionalGeneration else 1.0
    found = theirs.generate(
        **batch, num_beams=3, length_penalty=penalty, early_stopping=True, **limit
    )
    assert told(there, found) == ours.generate(
        TEXTS, algorithm="beam", beam=3, length_penalty=penalty, max_length=12
    )


OWN = [
    *((case, "bart") for case in every_layout() if case[0] not in ("mpnet", "ar")),
    (("ar", {"read": "next", "query_position": "target"}), "bart"),
    *((("janus", {"read": "next"}), style) for style in ("modern", "fairseq", "t5")),
    (("cmlm", {"ends": True}), "modern"),
]
OWN = [case for case in OWN if case[0] != ("block", {"given": False, "causal": False})]
OWN = [case for case in OWN if case[0] != ("block", {"given": True, "causal": False})]


@pytest.mark.slow
@pytest.mark.parametrize("case", OWN, ids=lambda case: f"{case_name(case[0])}.{case[1]}")
def test_any_other_has_its_own_class_with_the_same_logits_and_words(tmp_path, words, case):
    (name, options), style = case
    ours = run(words, tmp_path / "run", name, options, style)
    said = hub.export(tmp_path / "run", tmp_path / "out", "hf")
    there, theirs = opened(tmp_path / "out")
    objective = ours.incremental().objective
    if name != "block":
        assert "trust_remote_code=True" in said
    if objective.ar_read:
        same_ar(ours, there, theirs)
    else:
        with pytest.raises(ValueError, match="use mask_predict"):
            theirs.generate(**there(TEXTS, return_tensors="pt", padding=True))
    if objective.template:
        same_nar(ours, there, theirs)


def same_nar(ours, there, theirs):
    """A pass over hidden words, and what mask-predict writes of it."""
    batch = there(TEXTS, return_tensors="pt", padding=True)
    decoder = ours.incremental()
    state = decoder.start(ours._tokens(TEXTS, "refuse"))
    slots = decoder.template(9)
    tokens = torch.from_numpy(slots.token).expand(len(TEXTS), -1)
    sizes, first = torch.full((len(TEXTS), 1), len(slots)), int(slots.position[0])
    every = torch.ones_like(tokens, dtype=torch.bool)[:, None]
    want = decoder.fill(state, tokens[:, None], sizes, first, every).view(*tokens.shape, -1)
    reading = sys.modules[type(theirs).__module__].Reading
    place = torch.from_numpy(slots.position)
    real = batch["attention_mask"][:, None, None].bool()
    with torch.no_grad():
        memory = theirs.encoder(**batch)[0]
        x = theirs.decoder.run(theirs.embed(tokens), reading(place, place, None, real), memory)
        torch.testing.assert_close(theirs.logits(x), want, atol=1e-5, rtol=1e-5)
    for passes, lengths in ((1, 1), (4, 3), (10, 5)):
        written = theirs.mask_predict(**batch, iterations=passes, length_beam=lengths)
        assert told(there, written) == ours.generate(
            TEXTS, algorithm="mask_predict", iterations=passes, length_beam=lengths
        )
