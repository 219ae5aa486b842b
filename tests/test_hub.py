"""What is exported for transformers is loaded by it as it is, and computes and writes the same."""

import json
import os
import re
import subprocess
import sys

import numpy as np
import pytest
import torch

import januslm
from januslm import registry
from januslm.config import Refused
from januslm.data import sealed, tokenizer
from januslm.hub import export as hub
from januslm.inference import request
from januslm.interop import native
from januslm.interop.export_folder import read_start
from januslm.model.config import configure
from januslm.model.transformer import Seq2Seq
from tests.conftest import ROOT
from tests.samples import OBJECTIVES, case_name
from tests.test_floors import imports

transformers = pytest.importorskip("transformers", reason="transformers is a dev dependency")

TEXTS = ["the lazy dog jumps", "a fox", "the quick <mask> fox jumps over", "dog dog over the fox"]
MOST = 40  # words
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
    "monotone": {"norm": "pre", "positions": "rotary_cross", "length_offset": True},
    "fairseq": {"positions": "sinusoidal", "embedding_norm": False, "activation": "relu"},
    "t5": {"positions": "none", "position_bias": "t5", "norm": "pre", "embedding_norm": False},
    "prophetnet": {"position_bias": "prophetnet", "norm_eps": 1e-2},
    "xlnet": {"positions": "none", "position_bias": "xlnet"},
    "token": {"norm": "pre", "positions": "learned", "length": "token"},
    "t5 token": {"positions": "none", "position_bias": "t5", "norm": "pre", "length": "token"},
}
EOS = 2
# Seeds, and a factor for the logit of EOS, with which texts end somewhere.
LIVELY = {
    "bart": (7, 2.4),
    "modern": (7, 2.4),
    "monotone": (7, 2.4),
    "fairseq": (6, 3.0),
    "t5": (4, 3.0),
    "prophetnet": (7, 3.0),
    "bang fairseq": (0, 2.0),
    "xlnet": (7, 2.4),
    "token": (7, 2.4),
    "t5 token": (5, 3.0),
}


@pytest.fixture(scope="module")
def words(tmp_path_factory):
    """A small tokenizer of ours."""
    place = tmp_path_factory.mktemp("words") / "tokenizer.json"
    tokenizer.train_tokenizer(["the quick brown fox jumps over the lazy dog " * 3], 290, place)
    return place


def run(words, folder, name, options, style, about=None):
    """An exported model of ours, lively and random."""
    seed, often = LIVELY.get(f"{name} {style}", LIVELY[style])
    torch.manual_seed(seed)
    size = tokenizer.Tokenizer.load(words).size
    vectors = getattr(registry.find("januslm.objectives", name), "EXTRA_VECTORS", 0)
    table = {"preset": "base"} | SMALL | STYLES[style]
    model = Seq2Seq(configure(table, size, "test", vectors))
    with torch.no_grad():
        for p in model.parameters():
            if p.dim() > 1:  # biases would say the same at every place
                torch.nn.init.normal_(p, std=0.5)
            else:
                p += torch.randn_like(p) * 0.1
        model.vocabulary_weight()[EOS] *= often
    native.write(folder, model, words, name, options, about or {})
    return januslm.load(folder)


def opened(folder):
    """What a user of transformers gets from the folder."""
    words = transformers.AutoTokenizer.from_pretrained(folder, trust_remote_code=True)
    model = transformers.AutoModelForSeq2SeqLM.from_pretrained(folder, trust_remote_code=True)
    return words, model


def decoded(words, written):
    """Texts as we have them: on one line."""
    found = words.batch_decode(written, skip_special_tokens=True)
    return [" ".join(text.split()) for text in found]


def ar_logits(ours, texts, tails):
    """[B, T, V]: ours, after each of the words int64 [B, T] behind the prefix."""
    decoder = ours.incremental()
    state = decoder.start(ours._tokens(texts, "refuse"))
    head = torch.tensor(decoder.prefix).expand(len(texts), -1)
    return decoder.block(state, torch.cat([head, tails], 1)[:, None])[:, 0], head


@pytest.fixture(scope="module", autouse=True)
def modules(tmp_path_factory):
    """Where transformers lays modelling files of models: not in the user's own cache."""
    place = "transformers.dynamic_module_utils.HF_MODULES_CACHE"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(place, str(tmp_path_factory.mktemp("modules")))
        yield


READS = [{"read": "past", "query_position": place} for place in ("input", "target")]


@pytest.mark.slow
@pytest.mark.long
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
    for kind in (torch.float32, torch.float64):
        want, head = ar_logits(ours.to(kind), TEXTS, tails)
        with torch.no_grad():
            got = theirs.to(kind)(**batch, decoder_input_ids=torch.cat([head, tails], 1)).logits
        close(got, want)
    most = {"max_length": head.shape[1] + MOST + 1}
    written = decoded(there, theirs.generate(**batch, num_beams=1, **most))
    assert written == ours.generate(TEXTS, max_length=MOST)
    assert len(set(written)) > 1
    # Where BOS is forced transformers counts it as a word: only without a penalty is it the same.
    forced = theirs.generation_config.forced_bos_token_id is not None
    penalty = 0.0 if forced and type(theirs) is transformers.BartForConditionalGeneration else 1.0
    beams = {"num_beams": 3, "length_penalty": penalty, "early_stopping": True}
    found = decoded(there, theirs.generate(**batch, **beams, **most))
    options = {"beam": 3, "length_penalty": penalty, "max_length": MOST}
    assert same_where_ended(ours, TEXTS, found, **options)


def close(got, want):
    """By the largest of the logits; what is left of it in fp64 is what tables hold in fp32."""
    most = want.abs().max()
    limit = {torch.float32: 1e-5, torch.float64: 1e-9}[want.dtype]
    torch.testing.assert_close(got / most, want / most, atol=limit, rtol=0)


def same_where_ended(ours, texts, found, **options):
    """Beam's texts are the same, and how many of them: those that ended by themselves.

    At the most words transformers takes the end as certain, and may prefer another beam.
    """
    wanted = ours.outputs(texts, algorithm="beam", **options)
    ended = [one.passes <= MOST for one in wanted]
    for one, text, judged in zip(wanted, found, ended, strict=True):
        assert not judged or one.text == text
    return sum(ended)


OWN = [
    ("janus", {"read": "next", "query_position": "input"}, "bart"),
    ("janus", {"read": "next", "query_position": "target"}, "modern"),
    ("janus", {"read": "past", "query_position": "input"}, "fairseq"),
    ("janus", {"read": "past", "query_position": "target"}, "t5"),
    ("ar", {"read": "next", "query_position": "target"}, "bart"),
    ("cmlm", {"ends": False}, "fairseq"),
    ("cmlm", {"ends": True}, "modern"),
    ("cmlm", {"ends": False}, "token"),
    ("janus", {"read": "past", "query_position": "target"}, "t5 token"),
    ("block", {"size": 4}, "bart"),
    ("block", {"size": 4}, "modern"),
    ("janus", {"read": "next", "query_position": "input"}, "xlnet"),
    ("prophetnet", {"prefix": "eos"}, "prophetnet"),
    ("prophetnet", {}, "modern"),
    ("bang", {"way": "streams", "ahead": 4}, "prophetnet"),
    ("bang", {"way": "semi", "ahead": 3}, "xlnet"),
    ("bang", {"way": "mixed"}, "fairseq"),
    ("bang", {"way": "nar"}, "prophetnet"),
]


def test_every_objective_that_writes_is_among_the_cases():
    writing = {
        name
        for name in OBJECTIVES
        if hasattr(plugin := registry.find("januslm.objectives", name), "ar_read")
        or hasattr(plugin, "template")
    }
    assert {name for name, _, _ in OWN} == writing


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.parametrize("case", OWN, ids=lambda case: f"{case_name(case[:2])}.{case[2]}")
def test_any_other_has_its_own_class_with_the_same_logits_and_words(tmp_path, words, case):
    name, options, style = case
    ours = run(words, tmp_path / "run", name, options, style)
    said = hub.export(tmp_path / "run", tmp_path / "out", "hf")
    there, theirs = opened(tmp_path / "out")
    objective = ours.incremental().objective
    assert said == f"wrote {tmp_path / 'out'} (its own class: trust_remote_code=True)"
    if objective.ar_read:
        same_ar(ours, there, theirs)
    else:
        with pytest.raises(ValueError, match=r"use (mask_predict|one_pass)"):
            theirs.generate(**there(TEXTS, return_tensors="pt", padding=True))
    if objective.template:
        same_nar(ours, there, theirs)
    able = {
        "draft": bool(objective.ar_read and objective.ar_read.drafts),
        "blockwise": bool(objective.ar_read and objective.ar_read.drafts),
        "one_pass": objective.row is not None,
    }
    for algorithm, known in able.items():
        write, batch = getattr(theirs, algorithm), there(TEXTS, return_tensors="pt", padding=True)
        if not known:
            with pytest.raises(ValueError, match="this model was not taught to"):
                write(**batch)
            continue
        assert f"model.{algorithm}(**batch)" in (tmp_path / "out" / "README.md").read_text()
        for most in (MOST, 5):
            written = decoded(there, write(**batch, max_words=most))
            assert written == ours.generate(TEXTS, algorithm=algorithm, max_length=most)


def same_nar(ours, there, theirs):
    """A pass over hidden words, and what mask-predict writes of it."""
    batch = there(TEXTS, return_tensors="pt", padding=True)
    for kind in (torch.float32, torch.float64):
        decoder, theirs = ours.to(kind).incremental(), theirs.to(kind)
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
            close(theirs.logits(x), want)
    for passes, lengths in ((1, 1), (4, 3), (10, 5)):
        written = theirs.mask_predict(**batch, iterations=passes, length_beam=lengths)
        assert decoded(there, written) == ours.generate(
            TEXTS, algorithm="mask_predict", iterations=passes, length_beam=lengths
        )


@pytest.mark.slow
@pytest.mark.long
def test_a_janus_may_go_as_a_bart_which_writes_ar_alone(tmp_path, words):
    ours = run(words, tmp_path / "run", "janus", READS[0], "bart")
    said = hub.export(tmp_path / "run", tmp_path / "out", "bart")
    assert said == f"wrote {tmp_path / 'out'} (BART); left behind: NAR and the length head"
    there, theirs = opened(tmp_path / "out")
    batch = there(TEXTS, return_tensors="pt", padding=True)
    assert decoded(there, theirs.generate(**batch, max_length=MOST + 2)) == ours.generate(
        TEXTS, max_length=MOST
    )


@pytest.mark.skipif(
    "text2text-generation" not in transformers.pipelines.SUPPORTED_TASKS,
    reason="transformers 5 has no pipeline from text to text",
)
def test_the_pipeline_of_transformers_4_loads_it(tmp_path, words):
    ours = run(words, tmp_path / "run", "ar", READS[0], "bart")
    hub.export(tmp_path / "run", tmp_path / "out", "hf")
    pipe = transformers.pipeline("text2text-generation", model=str(tmp_path / "out"))
    found = [" ".join(one["generated_text"].split()) for one in pipe(TEXTS, max_length=MOST + 2)]
    assert found == ours.generate(TEXTS, max_length=MOST)


def test_the_modelling_files_need_torch_and_transformers_alone():
    for name in hub.CODE:
        assert imports(hub.CLASS_FILES / name) <= {
            "math",
            "dataclasses",
            "typing",
            "torch",
            "torch.nn.functional",
            "transformers",
            "transformers.modeling_outputs",
            ".configuration_januslm",
        }


def contents(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*.*")}


@pytest.mark.slow
@pytest.mark.long
def test_the_same_export_again_changes_nothing_and_another_is_refused(tmp_path, words):
    run(words, tmp_path / "run", "ar", READS[0], "bart")
    run(words, tmp_path / "other", "ar", READS[1], "bart")
    hub.export(tmp_path / "run", tmp_path / "out", "hf")
    (tmp_path / "out" / "README.md").write_text("my own card")
    before = contents(tmp_path)
    said = hub.export(tmp_path / "run", tmp_path / "out", "hf")
    assert said == f"{tmp_path / 'out'}: is this export already (BART)"
    with pytest.raises(Refused, match="out: is not empty, and not this export; name a new folder"):
        hub.export(tmp_path / "other", tmp_path / "out", "hf")
    assert contents(tmp_path) == before
    (tmp_path / "out" / "README.md").unlink()
    with pytest.raises(Refused, match="out: is not empty, and not this export"):
        hub.export(tmp_path / "run", tmp_path / "out", "hf")


def test_damaged_weights_are_refused_and_leave_nothing(tmp_path, words):
    run(words, tmp_path / "run", "ar", READS[0], "bart")
    weights = tmp_path / "run" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    before = contents(tmp_path)
    with pytest.raises(Refused, match=r"model\.safetensors: not readable as safetensors"):
        hub.export(tmp_path / "run", tmp_path / "deep" / "out", "hf")
    assert contents(tmp_path) == before
    assert not list(tmp_path.rglob("*out*"))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "style", "to", "message"),
    [
        ("mpnet", "bart", "hf", "'mpnet' writes in no way that the exported modelling file knows"),
        ("mpnet", "bart", "bart", "'mpnet' does not write word by word, and BART does; --to hf"),
        ("xlnet", "xlnet", "hf", "'xlnet' writes in no way that the exported modelling file knows"),
        ("prophetnet", "bart", "bart", "its AR is read from masks beside the words"),
        ("cmlm", "bart", "bart", "'cmlm' does not write word by word, and BART does; --to hf"),
        ("block", "modern", "bart", "BART has model.norm 'post' and this one 'pre'; --to hf"),
        ("ar", "fairseq", "bart", "read = 'next'"),
        ("block", "bart", "bart", "BART has model.length 'mean' and this one 'token'; --to hf"),
    ],
)
def test_what_a_class_cannot_be_is_said_with_what_to_do(tmp_path, words, name, style, to, message):
    run(words, tmp_path / "run", name, {}, style)
    changes = {"ar": ("objective", "read", "next"), "block": ("model", "length", "token")}
    if name in changes:
        part, key, value = changes[name]
        edit = json.loads((tmp_path / "run" / "config.json").read_text())
        edit[part][key] = value
        (tmp_path / "run" / "config.json").write_text(json.dumps(edit))
    with pytest.raises(Refused, match=re.escape(message)):
        hub.export(tmp_path / "run", tmp_path / "out", to)
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
@pytest.mark.long
def test_the_tasks_own_decoding_is_what_generate_does_by_itself(tmp_path, words):
    about = {"task": "docsum", "data": {"root": "/home/me/docs", "max_source": 40}}
    about["train"] = {"steps": 12, "batch": 4, "seed": 1, "epochs": 0.0}
    ours = run(words, tmp_path / "run", "ar", READS[0], "bart", about)
    line = sealed.line({"step": 9, "loss": 2.5, "ce/ar": 2.25})
    (tmp_path / "run" / "valid.jsonl").write_text(line)
    hub.export(tmp_path / "run", tmp_path / "out", "hf")
    there, theirs = opened(tmp_path / "out")
    made = theirs.generation_config
    assert (made.num_beams, made.length_penalty, made.no_repeat_ngram_size) == (5, 1.0, 3)
    assert (made.max_length, there.model_max_length) == (42, 40)
    found = decoded(there, theirs.generate(**there(TEXTS, return_tensors="pt", padding=True)))
    assert same_where_ended(ours, TEXTS, found)
    card = (tmp_path / "out" / "README.md").read_text()
    for line in (
        "license: unknown",
        "| task | docsum |",
        "| data | docs |",
        "| training | steps 12, batch 4, seed 1 |",
        "| validation | loss 2.500, ce/ar 2.250 (nats a word) at update 9 |",
        'model = AutoModelForSeq2SeqLM.from_pretrained("out")',
        "written = model.generate(**batch)  # word by word",
        "Not known: it was not stated when the model was exported.",
    ):
        assert line in card.splitlines(), line
    assert "/home/me" not in card


@pytest.mark.slow
def test_our_own_folder_is_half_the_size_and_brings_no_path(tmp_path, words):
    about = {"task": "multi30k", "data": {"root": "/home/me/data", "max_source": 40}}
    about |= {"tokenizer": "/home/me/words/tokenizer.json", "out": "runs/x"}
    ours = run(words, tmp_path / "run", "janus", {"read": "past"}, "modern", about)
    row = {"bleu": 41.5, "ms_per_sentence": 12.0, "file": "test.greedy.jsonl"}
    scores = [{"task": "multi30k", "split": "test", "modes": {"plain": {"greedy": row}}}]
    (tmp_path / "run" / "predictions").mkdir()
    (tmp_path / "run" / "predictions" / "scores.json").write_text(json.dumps(scores))
    said = hub.export(tmp_path / "run", tmp_path / "out", "januslm")
    assert said == f"wrote {tmp_path / 'out'} (this project's folder, in bf16)"

    theirs = januslm.load(tmp_path / "out")
    for name, tensor in ours.state_dict().items():
        assert torch.equal(theirs.state_dict()[name], tensor.bfloat16().float()), name
    large, small = ((tmp_path / one / "model.safetensors").stat().st_size for one in ("run", "out"))
    assert small < 0.55 * large
    assert theirs.tokenizer.sha256 == ours.tokenizer.sha256
    assert request.limits(theirs.facts) == request.limits(ours.facts)
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert config["about"] == {
        "task": "multi30k",
        "data": {"max_source": 40},
        "tokenizer": "tokenizer.json",
        "out": "runs/x",
    }
    card = (tmp_path / "out" / "README.md").read_text()
    assert "| multi30k test, greedy | bleu 41.50, 12.0 ms a text |" in card.splitlines()
    assert "/home/me" not in card
    [code] = example(tmp_path / "out" / "README.md")
    assert re.findall(r'algorithm="(\w+)"', code) == ["greedy", "mask_predict", "speculative"]
    again = hub.export(tmp_path / "run", tmp_path / "out", "januslm")
    assert again == f"{tmp_path / 'out'}: is this export already (this project's folder, in bf16)"


@pytest.mark.parametrize(
    ("name", "style", "says", "calls"),
    [
        ("mlm", "modern", "that writes nothing yet, and is there to be fine-tuned, trained", []),
        ("xlnet", "xlnet", "that writes in any order, trained", ["any_order"]),
        ("ar", "modern", "that writes word by word (AR), trained", ["greedy"]),
    ],
)
def test_our_own_card_says_what_a_model_can(tmp_path, words, name, style, says, calls):
    run(words, tmp_path / "run", name, {}, style)
    hub.export(tmp_path / "run", tmp_path / "out", "januslm")
    assert says in (tmp_path / "out" / "README.md").read_text()
    [code] = example(tmp_path / "out" / "README.md")
    assert re.findall(r'algorithm="(\w+)"', code) == calls


def test_a_class_of_its_own_is_nothing_to_start_from_and_says_what_is(tmp_path, words):
    run(words, tmp_path / "run", "cmlm", {}, "bart")
    hub.export(tmp_path / "run", tmp_path / "out", "hf")
    with pytest.raises(Refused, match=r"'januslm'; .*: start from the run that was exported"):
        read_start(f"hf:{tmp_path / 'out'}")


def example(page):
    return re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), re.S)


@pytest.mark.slow
@pytest.mark.long
def test_the_cards_example_runs_where_januslm_is_not(tmp_path, words):
    run(words, tmp_path / "run", "janus", {"read": "next"}, "bart")
    hub.export(tmp_path / "run", tmp_path / "out", "hf")
    [code] = example(tmp_path / "out" / "README.md")
    assert example(ROOT / "docs" / "interop.md") == [code]
    barred = "import sys\nsys.modules['januslm'] = None\n"
    known = os.environ | {"HF_HOME": str(tmp_path / "home"), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", barred + code],
        cwd=tmp_path,
        env=known | {"HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 2  # AR's text and NAR's
