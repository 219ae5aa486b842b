"""Weights that leave and come back are the same, and BART's mean what transformers says."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
import tokenizers
import torch

from januslm.config import Refused
from januslm.data import tokenizer
from januslm.data.sampler import sample_rng
from januslm.inference import request
from januslm.interop import native, start, weights
from januslm.interop.__main__ import main
from januslm.interop.export_folder import read_start
from januslm.model.config import configure
from januslm.model.packing import Packer
from januslm.model.transformer import Seq2Seq
from januslm.objective import LossSettings, resolve_objective
from tests.conftest import ROOT
from tests.test_distill import ENGLISH, GERMAN, lay

transformers = pytest.importorskip("transformers", reason="transformers is a dev dependency")


@pytest.fixture
def words(tmp_path):
    """A small tokenizer of ours."""
    texts = ["the quick brown fox jumps over the lazy dog " * 3]
    return tokenizer.train_tokenizer(
        texts, 300, tmp_path / "tokenizer.json"
    ), tmp_path / "tokenizer.json"


def huggingface(folder, **changes):
    """A random BART with a tokenizer as facebook/bart-base has them, saved by transformers.

    Its <mask> is the last token, added with a strip at its left, and no word of the vocabulary.
    """
    bpe = tokenizers.Tokenizer(tokenizers.models.BPE())
    bpe.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = tokenizers.decoders.ByteLevel()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=300,
        special_tokens=["<s>", "<pad>", "</s>", "<unk>"],
        initial_alphabet=sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    bpe.train_from_iterator([*GERMAN, *ENGLISH], trainer)
    bpe.post_processor = tokenizers.processors.RobertaProcessing(("</s>", 2), ("<s>", 0))
    mask = tokenizers.AddedToken("<mask>", lstrip=True, special=True)
    names = {f"{name}_token": f"<{name}>" for name in ("pad", "unk")}
    fast = transformers.PreTrainedTokenizerFast(
        tokenizer_object=bpe, bos_token="<s>", eos_token="</s>", mask_token=mask, **names
    )
    fast.save_pretrained(folder)
    assert fast.mask_token_id == len(fast) - 1 == bpe.get_vocab_size(with_added_tokens=False)
    config = transformers.BartConfig(
        vocab_size=len(fast),
        d_model=32,
        encoder_layers=2,
        decoder_layers=2,
        encoder_attention_heads=4,
        decoder_attention_heads=4,
        encoder_ffn_dim=64,
        decoder_ffn_dim=64,
        max_position_embeddings=64,
        dropout=0.0,
        attention_dropout=0.0,
        **changes,
    )
    torch.manual_seed(5)
    model = transformers.BartForConditionalGeneration(config).eval()
    for p in model.parameters():
        torch.nn.init.normal_(p, std=0.2)
    model.save_pretrained(folder)
    return model, fast


@pytest.mark.slow
@pytest.mark.parametrize("changes", [{}, {"scale_embedding": True, "decoder_start_token_id": 0}])
def test_bart_gives_the_logits_of_transformers_by_its_own_ids(tmp_path, changes):
    theirs, fast = huggingface(tmp_path / "hf", **changes)
    facts = read_start(f"hf:{tmp_path / 'hf'}")
    assert facts.tokenizer.special.ids == (0, 1, 2, 3, len(fast) - 1)
    texts = [GERMAN[0], "a <mask> b"]
    for text, mine in zip(texts, facts.tokenizer.encode(texts), strict=True):
        assert mine.tolist() == fast(text, split_special_tokens=True).input_ids[1:-1]
    model = start.created(facts.config, facts).eval()
    table = {"name": facts.objective, **facts.options}
    special = facts.tokenizer.special
    objective = resolve_objective(table, {"name": "none"}, LossSettings(), "nmt", special, "test")
    rng = np.random.default_rng(0)
    source, target = (np.r_[0, rng.integers(4, special.vocabulary, n), 2] for n in (9, 7))
    batch = Packer(objective.loss.weights)([objective.example(source, target, sample_rng(0, 0))])
    with torch.inference_mode():
        hidden, _ = model(batch)
        mine = hidden @ model.vocabulary_weight().t()
        first = [] if changes else [2]
        read = torch.from_numpy(np.r_[first, target[:-1]].astype(np.int64))[None]
        logits = theirs(torch.from_numpy(source)[None], decoder_input_ids=read).logits[0]
    torch.testing.assert_close(mine, logits, atol=1e-5, rtol=1e-5)


def convert_by_command(monkeypatch, source, target) -> int:
    monkeypatch.setattr("sys.argv", ["x", "bart", str(source), str(target)])
    return main()


def test_a_converted_bart_is_a_folder_of_ours_with_the_same_weights_and_ids(tmp_path, monkeypatch):
    theirs, _ = huggingface(tmp_path / "hf")
    assert convert_by_command(monkeypatch, tmp_path / "hf", tmp_path / "ours") == 0
    files = (tmp_path / place / "tokenizer.json" for place in ("hf", "ours"))
    assert len({file.read_bytes() for file in files}) == 1
    saved = native.read(tmp_path / "ours")
    state = weights.save(saved.model, "bart")
    for name, tensor in theirs.state_dict().items():
        if name in state:
            offset = 2 if "embed_positions" in name else 0
            assert torch.equal(state[name][offset:], tensor[offset:]), name
    missing = {n for n in theirs.state_dict() if n not in state}
    assert missing == {
        "lm_head.weight",
        "final_logits_bias",
        "model.encoder.embed_tokens.weight",
        "model.decoder.embed_tokens.weight",
    }


def test_a_bart_whose_special_tokens_are_berts_keeps_its_ids(tmp_path, monkeypatch):
    huggingface(tmp_path / "hf")
    path = tmp_path / "hf" / "tokenizer.json"
    names = ("[CLS]", "[PAD]", "[SEP]", "[UNK]", "[MASK]")
    text = path.read_text()
    for own, name in zip(tokenizer.SPECIALS, names, strict=True):
        text = text.replace(f'"{own}"', f'"{name}"')
    path.write_text(text)
    facts = read_start(f"hf:{tmp_path / 'hf'}")
    special = facts.tokenizer.special
    assert facts.tokenizer.names == names
    assert special.ids == (0, 1, 2, 3, special.vocabulary - 1)
    assert convert_by_command(monkeypatch, tmp_path / "hf", tmp_path / "ours") == 0
    saved = native.read(tmp_path / "ours")
    assert saved.tokenizer.special == special
    assert (tmp_path / "ours" / "tokenizer.json").read_text() == text


def edited(path, change) -> None:
    table = json.loads(path.read_text())
    change(table)
    path.write_text(json.dumps(table))


def drop_tensor(folder):
    from safetensors.torch import save_file

    state = native.load(folder / "model.safetensors")
    state.pop("model.decoder.layers.1.fc2.bias")
    save_file(state, folder / "model.safetensors")


def drop_mask(folder):
    edited(folder / "tokenizer.json", lambda tree: tree["added_tokens"].pop())


def add_token(folder):
    size = json.loads((folder / "config.json").read_text())["vocab_size"]
    more = {"id": size, "content": "<new>", "single_word": False, "lstrip": False, "rstrip": False}
    more |= {"normalized": False, "special": True}
    edited(folder / "tokenizer.json", lambda tree: tree["added_tokens"].append(more))


def other_ids(folder):
    edited(folder / "config.json", lambda table: table.update(eos_token_id=5))


def other_start(folder):
    edited(folder / "config.json", lambda table: table.update(decoder_start_token_id=7))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (drop_tensor, "not the weights of this bart: missing: decoder.layers.1.fc2.bias\n"),
        (drop_mask, "tokenizer.json has no token that is <mask>, and the weights no row for one"),
        (add_token, "tokens and the weights"),
        (other_ids, "eos_token_id is 5, tokenizer.json has </s> as 2"),
        (other_start, "decoder_start_token_id is 7; possible are 2 (</s>) and 0 (<s>)"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_bart_that_does_not_fit_is_refused_and_leaves_nothing(
    tmp_path, monkeypatch, capsys, damage, message
):
    huggingface(tmp_path / "hf")
    damage(tmp_path / "hf")
    capsys.readouterr()
    assert convert_by_command(monkeypatch, tmp_path / "hf", tmp_path / "ours") == 2
    said = capsys.readouterr().err
    assert message in said
    assert said.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["hf"]


@pytest.mark.slow
@pytest.mark.long
def test_a_run_starts_from_a_bart_and_its_model_goes_back_to_transformers(tmp_path):
    """Trained, evaluated and exported by the commands, with <mask> as the last id throughout."""
    huggingface(tmp_path / "hf")
    for split in ("train", "valid", "test"):
        lay(tmp_path / "data", split, {"de": GERMAN, "en": ENGLISH})
    run = {
        "out": "run",
        "task": "iwslt14",
        "start": "hf:hf",
        "objective.name": "janus",
        "data.root": "data",
        "data.max_source": 40,
        "data.max_target": 20,
        "train.steps": 3,
        "train.batch": 4,
        "schedule.warmup": 1,
    }
    (tmp_path / "run.toml").write_text("[train]\n")
    words = [f"{key}={value}" for key, value in run.items()]
    command = [sys.executable, "-m", "januslm.launch"]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    for more in (
        ["finetune", "run.toml", *words],
        ["generate", "run", "--algorithm", "mask_predict", "--limit", "3", "--threads", "1"],
        ["export", "run", "out", "--to", "bart"],
    ):
        done = subprocess.run(
            [*command, *more], cwd=tmp_path, env=environment, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
    assert "left behind: NAR and the length head" in done.stdout
    before, after = (
        transformers.AutoTokenizer.from_pretrained(tmp_path / place) for place in ("hf", "out")
    )
    assert after(GERMAN[0]).input_ids == before(GERMAN[0]).input_ids
    assert after.mask_token_id == before.mask_token_id == len(before) - 1
    again = read_start(f"hf:{tmp_path / 'out'}")
    assert again.options == {"read": "past", "query_position": "target"}
    ours = native.read(tmp_path / "run").model.state_dict()
    theirs = start.created(again.config, again).state_dict()
    assert all(torch.equal(theirs[n], ours[n]) for n in ours if n != "length_head.weight")


def test_our_own_format_gives_back_every_weight(tmp_path, words):
    ours, path = words
    model = Seq2Seq(configure({"width": 32, "ffn": 64}, ours.size, "test"))
    native.write(tmp_path / "x", model, path, "janus", {"read": "next"}, {"task": "none"})
    saved = native.read(tmp_path / "x")
    assert (saved.objective, saved.options, saved.about) == (
        "janus",
        {"read": "next"},
        {"task": "none"},
    )
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, saved.model.state_dict()[name]), name


def test_a_folder_that_is_no_model_says_what_is_missing(tmp_path):
    with pytest.raises(Refused, match=r"no model\.safetensors, config\.json, tokenizer\.json"):
        native.read(tmp_path)


def test_a_foreign_tokenizer_beside_the_weights_is_refused(tmp_path, words):
    ours, path = words
    model = Seq2Seq(configure({"width": 32, "ffn": 64}, ours.size, "test"))
    native.write(tmp_path / "x", model, path, "janus", {}, {})
    tokenizer.train_tokenizer(["another text altogether"], 300, tmp_path / "x" / "tokenizer.json")
    with pytest.raises(Refused, match=r"not the tokenizer that config\.json names"):
        native.read(tmp_path / "x")


def test_a_configuration_that_asks_for_more_than_the_weights_have_takes_no_memory(tmp_path, words):
    ours, path = words
    model = Seq2Seq(configure({"width": 32, "ffn": 64}, ours.size, "test"))
    native.write(tmp_path / "x", model, path, "janus", {}, {})
    table = json.loads((tmp_path / "x" / "config.json").read_text())
    table["model"] |= {"width": 2**16, "ffn": 2**18, "encoder_layers": 1000}  # 200 terabytes
    (tmp_path / "x" / "config.json").write_text(json.dumps(table))
    with pytest.raises(Refused, match="the configuration beside it asks for at least 51,677,"):
        native.read(tmp_path / "x")
    for sizes in ({}, {"tied": False}, {"encoder_layers": 1}):
        config = configure({"width": 32, "ffn": 64} | sizes, 300, "test")
        assert config.least_parameters <= sum(p.numel() for p in Seq2Seq(config).parameters())


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"model": []}, "model must be a table"),
        ({"objective": "ar"}, "objective must be a table"),
        ({"objective": {"name": 3}}, "objective.name must be a text, got 3"),
        ({"about": 3}, "about must be a table"),
        ({"about": {"task": 3}}, "about: task must be a text, got 3"),
        ({"about": {"task": "iwslt14", "data": []}}, "about: data must be a table"),
        ({"about": {"data": {"root": 3}}}, "about: data: root must be a text, got 3"),
        ({"about": {"data": {"max_source": "x"}}}, "max_source must be a whole number, got 'x'"),
        ({"model": {}}, "model: vocabulary is missing"),
    ],
)
def test_facts_of_an_export_of_another_shape_are_refused_by_their_key(
    tmp_path, words, changed, message
):
    ours, path = words
    model = Seq2Seq(configure({"width": 32, "ffn": 64}, ours.size, "test"))
    native.write(tmp_path / "x", model, path, "janus", {}, {})
    table = json.loads((tmp_path / "x" / "config.json").read_text()) | changed
    (tmp_path / "x" / "config.json").write_text(json.dumps(table))
    with pytest.raises(Refused, match=rf"config\.json: .*{message}"):
        request.find(tmp_path / "x", "iwslt14", str(tmp_path))


@pytest.mark.parametrize("target", ["hf", "hf/config.json", "."])
def test_a_target_that_is_taken_is_left_alone(tmp_path, monkeypatch, capsys, target):
    huggingface(tmp_path / "hf")
    before = {file: file.read_bytes() for file in (tmp_path / "hf").iterdir()}
    capsys.readouterr()
    assert convert_by_command(monkeypatch, tmp_path / "hf", tmp_path / target) == 2
    assert "is not empty; name a new folder" in capsys.readouterr().err
    assert {file: file.read_bytes() for file in (tmp_path / "hf").iterdir()} == before
