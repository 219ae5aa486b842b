"""The Python interface: what is loaded is a torch module, writes what the command writes, and says
of texts what training's loss says of them."""

import copy
import json
import pickle
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file

import januslm
from finetune import generate as command
from finetune.tasks import iwslt14
from januslm import registry
from januslm.config import Refused
from januslm.data import tokenizer
from januslm.inference import request
from januslm.interop import native
from januslm.interop.export_folder import read_facts
from januslm.layout import Example
from januslm.model.config import configure
from januslm.model.joint_loss import ModelWithLoss
from januslm.model.packing import Packer
from januslm.model.transformer import Seq2Seq
from tests.conftest import ROOT
from tests.samples import every_layout, resolved
from tests.test_distill import ENGLISH, GERMAN, root, teach  # noqa: F401

TINY = dict(width=16, ffn=32, heads=2, encoder_layers=1, decoder_layers=1, dropout=0.5)
TAUGHT = [  # some, like BERT, write neither way; semi asks for the first word of each block alone
    (name, given)
    for name, given in every_layout()
    if (made := resolved(name, **given)).ar_read or made.template
    if given.get("way") != "semi"
]


@pytest.fixture(scope="module")
def words(tmp_path_factory):
    place = tmp_path_factory.mktemp("words") / "tokenizer.json"
    tokenizer.train_tokenizer([*GERMAN, *ENGLISH], 300, place)
    return place


def exported(words, folder, name, options):
    """A lively random model of an objective, exported and loaded in fp64."""
    torch.manual_seed(5)
    size = tokenizer.Tokenizer.load(words).size
    extra = getattr(registry.find("januslm.objectives", name), "EXTRA_VECTORS", 0)
    sizes = TINY | {"max_positions": 80, "max_length": 64}
    model = Seq2Seq(configure(sizes, size, "test", extra))
    for p in model.parameters():
        torch.nn.init.normal_(p, std=0.5)
    native.write(folder, model, words, name, options, {})
    return januslm.load(folder).double()


def trained_loss(model, term, source, target, hide_all):
    """Training's sum of a term over one pair, by the packed pass."""
    objective = request.objective(model.facts)
    loss = replace(objective.loss, smoothing=0.0)
    pair = [np.asarray(one, np.int64) for one in model.tokenizer.encode([source, target])]
    special = model.tokenizer.special
    ids = [np.concatenate([[special.bos], one, [special.eos]]) for one in pair]
    hidden = np.full(len(ids[1]), hide_all)
    hidden[[0, -1]] = False
    if hide_all and model.facts.objective == "cmlm" and not model.facts.options["ends"]:
        hidden[-1] = True  # it writes its own end
    example = Example(ids[0], ids[1], objective.layout(ids[1], hidden, np.random.default_rng(0)))
    batch = Packer({term: 1.0})([example])
    with torch.no_grad():
        return ModelWithLoss(model, loss)(batch, {term: 1.0})[1][term].item()


TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=9)
PAIRS = st.lists(st.tuples(TEXTS, TEXTS), min_size=1, max_size=4)


@pytest.mark.slow
@pytest.mark.parametrize("case", TAUGHT, ids=str)
def test_score_is_what_training_sums(case, words, tmp_path):
    model = exported(words, tmp_path, *case)
    facts = request.taught(model.facts, ("greedy", "mask_predict"))

    @settings(max_examples=15)
    @given(PAIRS)
    def same(pairs):
        for way, term, hide in (("greedy", "ar", False), ("mask_predict", "nar", True)):
            if way not in facts or (hide and not all(target for _, target in pairs)):
                continue
            found = model.score(pairs, distribution=term)
            wanted = [-trained_loss(model, f"ce/{term}", *pair, hide) for pair in pairs]
            assert found == pytest.approx(wanted, rel=1e-9, abs=1e-9)

    same()


def test_a_way_that_was_not_taught_has_no_score(words, tmp_path):
    model = exported(words, tmp_path, "cmlm", {"ends": True})
    assert model.score([("a", "b")], distribution="nar")[0] < 0
    with pytest.raises(Refused, match="cannot write or rescore word by word"):
        model.score([("a", "b")])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("algorithm", "options"),
    [
        ("greedy", {}),
        ("beam", {"beam": 3, "n_best": 2}),
        ("mask_predict", {"iterations": 3}),
        ("semi", {}),
        ("speculative", {"max_length": 9}),
        ("sample", {"seed": 4}),
    ],
)
def test_it_writes_what_the_command_writes(root, monkeypatch, capsys, algorithm, options):  # noqa: F811
    run, out = teach(root), root.parent / "made.jsonl"
    given = [f"{key}={value}" for key, value in options.items()]
    line = [run, "--algorithm", algorithm, *given, "--batch", "3", "--out", out]
    monkeypatch.setattr(sys, "argv", ["generate", *map(str, line)])
    assert command.main() == 0
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    model = januslm.load(run)
    texts = [row["source"] for row in rows]
    made = model.outputs(texts, algorithm=algorithm, batch=3, **options)
    assert [one.text for one in made] == [row["prediction"] for row in rows]
    assert [one.score for one in made] == pytest.approx([row["score"] for row in rows])
    assert [one.passes for one in made] == [row["passes"] for row in rows]
    further = [[other["prediction"] for other in row.get("others", [])] for row in rows]
    assert [[other.text for other in one.others] for one in made] == further
    assert model.generate(texts, algorithm=algorithm, **options) == [one.text for one in made]


def test_it_is_the_torch_module_that_the_file_holds(root):  # noqa: F811
    run = teach(root)
    model = januslm.load(run / "export")
    file = load_file(run / "export" / "model.safetensors")
    assert isinstance(model, torch.nn.Module)
    assert not model.training
    assert model.state_dict().keys() == file.keys()
    assert all(torch.equal(model.state_dict()[name], tensor) for name, tensor in file.items())
    wide = model.double()
    assert wide is model
    assert {p.dtype for p in model.parameters()} == {torch.float64}


def test_writing_has_no_dropout_and_leaves_the_mode_as_it_was(words, tmp_path):
    model = exported(words, tmp_path, "janus", {}).float()
    before = model.generate(GERMAN, max_length=9)
    model.train()
    assert model.generate(GERMAN, max_length=9) == before
    scores = model.score(list(zip(GERMAN, ENGLISH, strict=True)))
    assert model.training
    model.eval()
    assert model.score(list(zip(GERMAN, ENGLISH, strict=True))) == scores


@pytest.mark.slow
def test_weights_that_change_are_noticed(root):  # noqa: F811
    model = januslm.load(teach(root))
    before, kept = model.generate(GERMAN, max_length=9), copy.deepcopy(model.state_dict())
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    for p in model.parameters():
        p.grad = torch.ones_like(p) * torch.arange(p.numel()).view(p.shape).sin()
    optimizer.step()
    assert model.generate(GERMAN, max_length=9) != before
    model.load_state_dict(kept)
    assert model.generate(GERMAN, max_length=9) == before


@pytest.mark.slow
def test_a_copy_and_a_pickled_one_write_the_same_and_make_no_tokens_of_texts(root):  # noqa: F811
    model = januslm.load(teach(root))
    texts = ["<mask> satz </s>", GERMAN[1]]
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert other.generate(texts, max_length=9) == model.generate(texts, max_length=9)
        assert (
            other.tokenizer.encode(texts)[0].tolist() == model.tokenizer.encode(texts)[0].tolist()
        )
        assert other.tokenizer.special.mask not in other.tokenizer.encode(texts)[0]


@pytest.mark.slow
def test_texts_come_back_in_their_order_whatever_the_batch(root):  # noqa: F811
    model = januslm.load(teach(root))
    alone = [model.generate([text], max_length=9)[0] for text in GERMAN]
    assert model.generate(iter(GERMAN), batch=3, max_length=9) == alone
    assert model.generate([]) == model.score([]) == []


def test_options_of_the_task_are_the_defaults_and_those_of_others_a_warning(root):  # noqa: F811
    run = teach(root)
    model = januslm.load(run)
    facts = read_facts(run)
    assert request.usual(facts) == iwslt14.DECODE
    with pytest.warns(UserWarning, match="mask_predict has no use for max_length: left out"):
        made = model.generate(GERMAN, algorithm="mask_predict", max_length=9)
    assert made == model.generate(GERMAN, algorithm="mask_predict")


def test_a_model_that_was_taught_no_lengths_says_so(root):  # noqa: F811
    model = januslm.load(teach(root))
    model.facts = replace(model.facts, about={"loss": {"weights": {"ce/nar": 1.0}}})
    with pytest.warns(UserWarning, match="has not been taught how long texts are"):
        model.generate(GERMAN, algorithm="mask_predict")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda m: m.generate("one text"), "a list of texts is wanted, got one text: 'one text'"),
        (lambda m: m.generate([3]), "text 0 must be a str, got 3"),
        (lambda m: m.generate(["a", "\ud83d"]), "text 1 has half of a surrogate pair"),
        (lambda m: m.generate(["a"], algorithm="beem"), "Did you mean 'beam'"),
        (lambda m: m.generate(["a"], beem=3), "greedy: unknown key 'beem'"),
        (lambda m: m.generate(["a"], batch=0), "batch must be at least 1, got 0"),
        (lambda m: m.generate(["a"], longer="skip"), "longer must be refuse or cut"),
        (lambda m: m.generate(["a", "b " * 99]), "1 of 2 texts, number 1 the first, are longer"),
        (lambda m: m.score([("a", "b")], distribution="aux"), "must be one of ar, nar, got 'aux'"),
        (lambda m: m.score([("a", "b " * 99)]), "the second text of pair 0 has "),
    ],
)
def test_a_mistake_is_a_value_error_of_one_line(root, call, message):  # noqa: F811
    with pytest.raises(ValueError, match=message) as caught:
        call(januslm.load(teach(root)))
    assert "\n" not in str(caught.value)


def test_what_is_no_model_is_refused_by_name(tmp_path):
    with pytest.raises(Refused, match="not an exported model"):
        januslm.load(tmp_path)
    with pytest.raises(AttributeError, match="has no attribute 'lode'"):
        januslm.lode  # noqa: B018


def test_long_texts_are_cut_where_that_is_asked_for(root):  # noqa: F811
    model = januslm.load(teach(root))
    long = "satz " * 99
    assert model.generate([long], longer="cut", max_length=9)[0] != ""


@pytest.mark.slow
def test_importing_it_imports_nothing_heavy():
    code = (
        "import sys, januslm; januslm.load; dir(januslm)\n"
        "print(sorted({'deepspeed', 'transformers', 'datasets'} & set(sys.modules)))"
    )
    early = "import sys, januslm; print('torch' in sys.modules, 'numpy' in sys.modules)"
    for text, wanted in ((early, "False False\n"), (code, "[]\n")):
        done = subprocess.run(
            [sys.executable, "-c", text], cwd=ROOT, capture_output=True, text=True
        )
        assert (done.returncode, done.stdout) == (0, wanted), done.stderr
