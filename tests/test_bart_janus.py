"""The published recipe in small: a BART goes on as JANUS, is fine-tuned, writes, and goes back."""

import json
import os
import subprocess
import sys

import pytest
import torch

import januslm
from januslm.interop import native
from tests.conftest import ROOT
from tests.test_glge_runs import ARCHIVE
from tests.test_interop import huggingface, transformers

CORPUS = """
out = "corpus"
root = "."
validation = 0.2
tokenizer = "hf/tokenizer.json"
[sources.text]
files = ["*.txt"]
split = "line"
"""
# What the run files say of the real one: its size, and where its data lies.
PRETRAIN = (
    "start=hf:hf",
    "tokenizer=hf/tokenizer.json",
    "out=pre",
    "data.length=48",
    'data.train=[{corpus="corpus/train"}]',
    'data.valid=[{corpus="corpus/valid"}]',
    "data.valid_samples=4",
    "train.steps=3",
    "train.batch=4",
    "train.validate_every=3",
    "train.save_every=3",
    "schedule.warmup=1",
)
TUNE = (
    "task=squadqg",
    "start=pre",
    f"data.root={ARCHIVE}",
    "data.max_source=48",
    "data.max_target=32",
    "train.steps=2",
    "train.batch=2",
    "packing.samples=0",
)
WAYS = {"ar": "beam", "nar": "mask_predict", "janus": "speculative"}


def command(place, module: str, *words) -> str:
    """A program as its module, in the folder; it must end well."""
    known = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-m", module, *map(str, words)],
        cwd=place,
        env=known,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def recipe(tmp_path_factory):
    """The folder of all runs: hf, pre, and ar, nar, janus that were fine-tuned from pre."""
    place = tmp_path_factory.mktemp("recipe")
    huggingface(place / "hf")
    words = (ROOT / "README.md").read_text().split()
    lines = (" ".join(words[i : i + 12]) for i in range(0, len(words), 12))
    (place / "plain.txt").write_text("\n".join(lines))
    (place / "corpus.toml").write_text(CORPUS)
    command(place, "data_tools", "build", "corpus.toml")
    command(place, "januslm.launch", "pretrain", "bart_janus", *PRETRAIN)
    for way in WAYS:
        # BART's class reads AR from words, not from masks beside them.
        read = ["objective.read=past"] if way == "ar" else []
        command(place, "finetune", f"glge_{way}", *TUNE, f"out={way}", *read)
    return place


@pytest.mark.slow
@pytest.mark.long
def test_pretraining_begins_at_barts_weights_and_learns_all_three_ways(recipe):
    log = [json.loads(line) for line in (recipe / "pre" / "valid.jsonl").read_text().splitlines()]
    assert [row["step"] for row in log] == [0, 3]
    terms = {"ce/ar", "ce/nar", "ce/aux", "kl/nar~aux", "kl/ar~aux"}
    assert all(row[name] > 0 for row in log for name in terms)
    assert log[1]["loss"] < log[0]["loss"]
    bart = transformers.BartForConditionalGeneration.from_pretrained(recipe / "hf").state_dict()
    mine = native.read(recipe / "pre").model.state_dict()
    name = "decoder.layers.1.fc1.weight"
    change = (mine[name] - bart[f"model.{name}"]).abs().max()
    assert 0 < change < 1e-3  # three updates of 1e-4 at most, from BART's 0.2


@pytest.mark.slow
@pytest.mark.long
def test_each_way_of_fine_tuning_writes_its_own_way_and_goes_back_to_transformers(recipe):
    source = "the quick brown fox jumps over the lazy dog"
    for way, algorithm in WAYS.items():
        ours = januslm.load(recipe / way)
        written = ours.generate([source], algorithm=algorithm)
        assert len(written) == 1
    # Joint: the draft is checked by AR, so it is greedy's text.
    assert written == ours.generate([source], algorithm="greedy")
    command(recipe, "januslm.hub", "export", "ar", "out-ar", "--to", "bart")
    said = command(recipe, "januslm.hub", "export", "janus", "out-janus", "--to", "hf")
    assert "its own class" in said
    there = transformers.AutoTokenizer.from_pretrained(recipe / "out-ar")
    theirs = transformers.AutoModelForSeq2SeqLM.from_pretrained(recipe / "out-ar")
    batch = there([source], return_tensors="pt")
    with torch.no_grad():
        found = theirs.generate(**batch, num_beams=1, max_length=20)
    ours = januslm.load(recipe / "ar")
    text = there.batch_decode(found, skip_special_tokens=True)[0]
    greedy = ours.generate([source], algorithm="greedy", max_length=17)
    assert " ".join(text.split()) == greedy[0]
