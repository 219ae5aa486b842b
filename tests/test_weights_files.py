"""Weights of other projects come whole, in every kind of file, or are refused by their names."""

import json
import os
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file, save_file

from finetune import settings as finetune
from januslm import config
from januslm.config import Refused
from januslm.interop import start
from januslm.interop.export_folder import read_start
from pretrain import settings as pretrain
from tests.conftest import ROOT
from tests.hf_models import any_model, converted

KINDS = ("bart", "bert", "mpnet", "prophetnet")


def state_of(folder) -> dict[str, torch.Tensor]:
    """The tensors of a model that a run starts from this folder with, but for the new ones."""
    torch.manual_seed(0)
    facts = read_start(f"hf:{folder}")
    return start.created(facts.config, facts).state_dict()


def spread(folder, suffix: str) -> None:
    """The weights of a folder over two files and an index, as transformers has them."""
    whole = folder / "model.safetensors"
    state = load_file(whole)
    whole.unlink()
    stem = "model" if suffix == "safetensors" else "pytorch_model"
    names = sorted(state)
    halves = {f"{stem}-0000{i + 1}-of-00002.{suffix}": names[i::2] for i in range(2)}
    for file, part in halves.items():
        tensors = {name: state[name] for name in part}
        write = save_file if suffix == "safetensors" else torch.save
        write(tensors, folder / file)
    where = {name: file for file, part in halves.items() for name in part}
    index = {"metadata": {}, "weight_map": where}
    (folder / f"{stem}.{suffix}.index.json").write_text(json.dumps(index))


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_weights_are_the_same_in_every_file_that_they_come_in(tmp_path, kind):
    any_model(kind, tmp_path)
    want, whole = state_of(tmp_path), tmp_path / "model.safetensors"
    state = load_file(whole)

    def same(expected):
        found = state_of(tmp_path)
        assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())

    spread(tmp_path, "safetensors")
    same(want)
    (tmp_path / "model.safetensors.index.json").unlink()
    torch.save(state, tmp_path / "pytorch_model.bin")
    same(want)
    (tmp_path / "pytorch_model.bin").unlink()
    save_file(state, whole)
    spread(tmp_path, "bin")
    same(want)
    save_file({name: tensor.half() for name, tensor in state.items()}, whole)
    halves = state_of(tmp_path)
    save_file({name: tensor.half().float() for name, tensor in state.items()}, whole)
    same(halves)
    assert all(tensor.dtype == torch.float32 for tensor in halves.values())
    assert not all(torch.equal(halves[name], tensor) for name, tensor in want.items())


def refused(monkeypatch, capsys, kind, folder, place, words: str) -> None:
    """The command ends with one line, which says this, and leaves nothing."""
    before = sorted(place.iterdir())
    capsys.readouterr()
    assert converted(monkeypatch, kind, folder, place / "out") == 2
    said = capsys.readouterr().err
    assert words in said
    assert said.count("\n") == 1
    assert sorted(place.iterdir()) == before


LAST = {  # a tensor of the last layer of each
    "bart": "model.decoder.layers.1.fc2.bias",
    "bert": "bert.encoder.layer.0.output.dense.bias",
    "mpnet": "mpnet.encoder.layer.0.output.dense.bias",
    "prophetnet": "prophetnet.decoder.ngram_embeddings.weight",
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_a_partial_or_foreign_file_is_refused_with_all_names(tmp_path, monkeypatch, capsys, kind):
    folder = tmp_path / "hf"
    any_model(kind, folder)
    weights = folder / "model.safetensors"
    state = load_file(weights)
    name = LAST[kind]
    short = name.partition(".")[2]

    def spoilt(words: str, **more) -> None:
        kept = {n: x for n, x in (state | more).items() if n not in lacking}
        save_file(kept, weights)
        refused(monkeypatch, capsys, kind, folder, tmp_path, words)

    lacking = {name}
    spoilt(f"hf: not the weights of this {kind}: missing: {short}\n")
    extra = {f"more.{i}": torch.zeros(1) for i in range(7)}
    listed = ", ".join(list(extra)[:5])
    spoilt(f"missing: {short}; without a place in it: {listed} and 2 more\n", **extra)
    lacking = set()
    spoilt(f"more than once: {short}", **{short: state[name].clone()})
    if kind == "prophetnet":  # below the words
        spoilt("do not lie one below the other: word_embeddings", **{name: torch.zeros(2, 5)})
        rows = torch.zeros(10, state[name].shape[1])
        spoilt(f"and {short} has shape [", **{name: rows})
    else:
        spoilt(f"hf: {short} has shape [17], the model wants", **{name: torch.zeros(17)})
    whole = weights.read_bytes()
    weights.write_bytes(whole[: len(whole) // 2])
    refused(monkeypatch, capsys, kind, folder, tmp_path, "not readable as safetensors")


def test_an_embedding_that_is_another_elsewhere_is_refused(tmp_path, monkeypatch, capsys):
    folder = tmp_path / "hf"
    any_model("bart", folder)
    weights = folder / "model.safetensors"
    state = load_file(weights)
    save_file(state | {"lm_head.weight": state["model.shared.weight"] + 1}, weights)
    said = "lm_head.weight is not shared.weight, and they are one tensor here"
    refused(monkeypatch, capsys, "bart", folder, tmp_path, said)


def test_an_index_that_names_what_is_not_there_is_refused(tmp_path, monkeypatch, capsys):
    folder = tmp_path / "hf"
    any_model("bart", folder)
    spread(folder, "safetensors")
    index = folder / "model.safetensors.index.json"
    table = json.loads(index.read_text())
    for name, words in (
        ("classification_head.bias", ".index.json says: classification_head.bias"),
        ("../model", "'../x.safetensors' is not a file beside it"),
    ):
        more = {name: "../x.safetensors" if "/" in name else "model-00001-of-00002.safetensors"}
        index.write_text(json.dumps({"weight_map": table["weight_map"] | more}))
        refused(monkeypatch, capsys, "bart", folder, tmp_path, words)
    index.write_text("{}")
    said = "weight_map must give a file for each tensor"
    refused(monkeypatch, capsys, "bart", folder, tmp_path, said)
    index.write_text(json.dumps(table))
    (folder / "model-00002-of-00002.safetensors").unlink()
    said = "model.safetensors.index.json: model-00002-of-00002.safetensors is not there"
    refused(monkeypatch, capsys, "bart", folder, tmp_path, said)


@pytest.mark.parametrize(
    ("kind", "change", "words"),
    [
        ("bert", {"hidden_act": "gelu_new"}, "activation must be one of gelu, relu, got"),
        ("bert", {"position_embedding_type": "relative_key"}, "possible is 'absolute'"),
        ("bert", {"hidden_size": None}, "width must be a whole number, got None"),
        ("mpnet", {"relative_attention_num_buckets": 16}, "num_buckets is 16; possible is 32"),
        ("mpnet", {"max_position_embeddings": None}, "a size is no number"),
        ("prophetnet", {"relative_max_distance": 512}, "max_distance is 512; possible is 128"),
        ("prophetnet", {"ngram": 10}, "ngram is 10; possible are 1 to 9"),
        ("prophetnet", {"decoder_start_token_id": 0}, "possible are 6 (</s>) and 5 (<s>)"),
        ("prophetnet", {"num_decoder_attention_heads": 1}, "attention_heads differ"),
        ("prophetnet", {"eos_token_id": 9}, "eos_token_id is 9, tokenizer.json has </s> as 6"),
        ("bart", {"decoder_attention_heads": 4}, "encoder and decoder differ in attention_heads"),
        ("bart", {"encoder_layers": 0}, "it has no layer that reads the source"),
        ("bart", {"model_type": "bert"}, "no 'hidden_size', which a bert's has"),
        ("bart", {"model_type": "xlm-prophetnet"}, "possible are bang, bart, bert, mpnet, proph"),
        ("bart", {"model_type": ["bart"]}, "model_type is ['bart']; possible are"),
    ],
    ids=str,
)
def test_a_configuration_that_ours_cannot_be_is_refused_by_its_key(
    tmp_path, monkeypatch, capsys, kind, change, words
):
    folder = tmp_path / "hf"
    any_model(kind, folder)
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    refused(monkeypatch, capsys, kind, folder, tmp_path, words)


def test_what_an_architecture_has_no_use_for_is_refused(tmp_path, monkeypatch, capsys):
    folder = tmp_path / "hf"
    any_model("bart", folder)
    said = "model_type is 'bart', not 'bert'"
    refused(monkeypatch, capsys, "bert", folder, tmp_path, said)
    with pytest.raises(Refused, match=r"start_decoder = 'encoder': .*hf is no encoder alone"):
        read_start(f"hf:{folder}", "encoder")
    file = folder / "model.safetensors"
    refused(monkeypatch, capsys, "bart", file, tmp_path, "of 'bart' a folder is read; of bang,")
    refused(monkeypatch, capsys, "bang", file, tmp_path, "--tokenizer is missing")


TUNE = """
out = "tuned"
task = "docsum"
start = "hf:{folder}"
[data]
max_source = 20
max_target = 20
[objective]
name = "{objective}"
[train]
steps = 1
batch = 1
"""


@pytest.mark.slow
@pytest.mark.parametrize("objective", ["janus", "bang", "prophetnet", "xlnet"])
@pytest.mark.parametrize("kind", KINDS)
def test_any_objective_starts_from_any_of_them_with_new_vectors_of_its_own(
    tmp_path, kind, objective
):
    any_model(kind, tmp_path / "hf")
    file = tmp_path / "run.toml"
    file.write_text(TUNE.format(folder=tmp_path / "hf", objective=objective))
    changes = ["start_decoder=encoder"] if kind in ("bert", "mpnet") else []
    found = finetune.resolve(finetune.load(file, changes), str(file), "")
    asked = {"bang": 1, "prophetnet": 9, "xlnet": 1}.get(objective, 0)
    assert found.model.extra_vectors == (9 if kind == "prophetnet" else asked)
    if kind == "prophetnet" and objective != "janus" and objective != "xlnet":
        assert found.objective.options["prefix"] == "eos"  # as its weights have it
    model = start.created(found.model, found.start)
    theirs = state_of(tmp_path / "hf")["embedding.weight"]
    rows = found.model.vocabulary + found.start.options.get("ahead", 0)  # a ProphetNet's streams
    assert torch.equal(model.embedding.weight[:rows], theirs[:rows])
    assert len(model.embedding.weight) == found.model.vocabulary + found.model.extra_vectors


PRETRAIN = """
out = "pre"
tokenizer = "{folder}/tokenizer.json"
start = "hf:{folder}"
[data]
length = 20
train = [{{ corpus = "none" }}]
valid = [{{ corpus = "none" }}]
[model]
{model}
[train]
steps = 1
batch = 1
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("model", "words"),
    [
        ("", "none"),  # what is missing is the corpus alone
        ("dropout = 0.2", "none"),
        ("heads = 1", "has model.heads 2, this run 1"),
        ('activation = "relu"', "has model.activation gelu, this run relu"),
        ("norm_eps = 1e-6", "has model.norm_eps 1e-05, this run 1e-06"),
        ('preset = "base"', "has model.width 16, this run 768"),
    ],
)
def test_pretraining_has_the_sizes_of_its_start(tmp_path, model, words):
    any_model("bart", tmp_path / "hf")
    file = tmp_path / "run.toml"
    file.write_text(PRETRAIN.format(folder=tmp_path / "hf", model=model))
    with pytest.raises(Refused) as caught:
        pretrain.resolve(config.load(pretrain.PretrainRun, file), str(file))
    assert words in str(caught.value)
    assert ("has model." in str(caught.value)) == (words != "none")


@pytest.mark.slow
def test_names_that_do_not_fit_are_refused_before_torch_is_there(tmp_path):
    any_model("bert", tmp_path / "hf")
    weights = tmp_path / "hf" / "model.safetensors"
    state = load_file(weights)
    del state["bert.embeddings.token_type_embeddings.weight"]
    save_file(state, weights)
    code = (
        "import sys\n"
        "from januslm.config import Refused\n"
        "from januslm.interop.export_folder import read_start\n"
        "try:\n    read_start(sys.argv[1])\n"
        "except Refused as refused:\n    print(refused)\n"
        "print('torch' in sys.modules)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, f"hf:{tmp_path / 'hf'}"],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    said, torch_is_there = done.stdout.splitlines()
    assert said.endswith("bert: missing: embeddings.token_type_embeddings.weight")
    assert torch_is_there == "False"


@pytest.mark.slow
def test_an_old_berts_names_are_known(tmp_path):
    any_model("bert", tmp_path)
    want, weights = state_of(tmp_path), tmp_path / "model.safetensors"
    state = {
        name.replace("Norm.weight", "Norm.gamma").replace("Norm.bias", "Norm.beta"): tensor
        for name, tensor in load_file(weights).items()
    }
    state["bert.embeddings.position_ids"] = torch.arange(200)[None]
    state["bert.pooler.dense.weight"] = torch.zeros(8, 8)
    save_file(state, weights)
    assert all(torch.equal(state_of(tmp_path)[name], tensor) for name, tensor in want.items())
