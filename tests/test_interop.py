"""Weights that leave and come back are the same, and BART's mean what transformers says."""

import json

import numpy as np
import pytest
import torch

from januslm.config import Refused
from januslm.data import tokenizer
from januslm.data.sampler import sample_rng
from januslm.inference import request
from januslm.interop import bart, native
from januslm.interop.__main__ import convert, main
from januslm.model.config import configure
from januslm.model.packing import Packer
from januslm.model.transformer import Seq2Seq
from januslm.objective import LossSettings, resolve_objective

transformers = pytest.importorskip("transformers", reason="transformers is a dev dependency")


@pytest.fixture
def words(tmp_path):
    """A small tokenizer of ours."""
    texts = ["the quick brown fox jumps over the lazy dog " * 3]
    return tokenizer.train_tokenizer(
        texts, 300, tmp_path / "tokenizer.json"
    ), tmp_path / "tokenizer.json"


def huggingface(folder, size):
    """A random BART as transformers saves it, with a tokenizer whose <mask> comes last."""
    config = transformers.BartConfig(
        vocab_size=size,
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
    )
    model = transformers.BartForConditionalGeneration(config).eval()
    for p in model.parameters():
        torch.nn.init.normal_(p, std=0.2)
    model.save_pretrained(folder)
    return model


def with_mask_last(path, size):
    """Our tokenizer's JSON with BART's ids."""
    tree = json.loads(path.read_text())
    old = {i: int(j) for i, j in enumerate(bart.from_bart(size))}
    tree["model"]["vocab"] = {w: old[i] for w, i in tree["model"]["vocab"].items()}
    for added in tree["added_tokens"]:
        added["id"] = old[added["id"]]
    return tree


def test_bart_gives_the_logits_of_transformers(tmp_path, words):
    ours, path = words
    theirs = huggingface(tmp_path / "hf", ours.size)
    (tmp_path / "hf" / "tokenizer.json").write_text(json.dumps(with_mask_last(path, ours.size)))
    convert("bart", tmp_path / "hf", tmp_path / "ours")
    saved = native.read(tmp_path / "ours")
    assert (
        saved.tokenizer.encode(["the lazy fox"])[0].tolist()
        == ours.encode(["the lazy fox"])[0].tolist()
    )
    table = {"name": saved.objective, **saved.options}
    objective = resolve_objective(
        table, {"name": "none"}, LossSettings(), "nmt", ours.special, "test"
    )
    rng, order = np.random.default_rng(0), bart.from_bart(ours.size).numpy()
    source, target = (np.r_[0, rng.integers(4, ours.size, n), 2] for n in (9, 7))
    batch = Packer(objective.loss.weights)([objective.example(source, target, sample_rng(0, 0))])
    with torch.inference_mode():
        hidden, _ = saved.model(batch)
        mine = hidden @ saved.model.vocabulary_weight().t()
        start = torch.from_numpy(np.r_[2, order[target[:-1]]])[None]
        logits = theirs(torch.from_numpy(order[source])[None], decoder_input_ids=start).logits[0]
    torch.testing.assert_close(mine, logits[:, order], atol=2e-4, rtol=1e-4)


def test_bart_weights_survive_the_way_out_and_in(tmp_path, words):
    ours, path = words
    theirs = huggingface(tmp_path / "hf", ours.size)
    (tmp_path / "hf" / "tokenizer.json").write_text(json.dumps(with_mask_last(path, ours.size)))
    convert("bart", tmp_path / "hf", tmp_path / "ours")
    convert("bart-out", tmp_path / "ours", tmp_path / "back")
    state = native.load(tmp_path / "back" / "model.safetensors")
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


def test_a_missing_tensor_is_named(tmp_path, words):
    ours, path = words
    huggingface(tmp_path / "hf", ours.size)
    (tmp_path / "hf" / "tokenizer.json").write_text(path.read_text())
    state = native.load(tmp_path / "hf" / "model.safetensors")
    from safetensors.torch import save_file

    state.pop("model.decoder.layers.1.fc2.bias")
    save_file(state, tmp_path / "hf" / "model.safetensors")
    with pytest.raises(Refused, match=r"the tensor decoder\.layers\.1\.fc2\.bias is missing"):
        bart.load(tmp_path / "hf")


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
def test_a_target_that_is_taken_is_left_alone(tmp_path, words, monkeypatch, capsys, target):
    ours, path = words
    huggingface(tmp_path / "hf", ours.size)
    (tmp_path / "hf" / "tokenizer.json").write_text(path.read_text())
    before = {file: file.read_bytes() for file in (tmp_path / "hf").iterdir()}
    monkeypatch.setattr("sys.argv", ["x", "bart", f"{tmp_path}/hf", f"{tmp_path}/{target}"])
    assert main() == 2
    assert "is not empty; name a new folder" in capsys.readouterr().err
    assert {file: file.read_bytes() for file in (tmp_path / "hf").iterdir()} == before
