"""Plain text to scores through the entry points, on real text, with two DeepSpeed processes."""

import json
import os
import subprocess
import sys
import time

import pytest
import torch

from januslm import config
from januslm.config import Refused
from pretrain.settings import PretrainRun, resolve
from tests.conftest import ROOT

CORPUS = """
out = "{out}"
vocabulary = 400
validation = 0.2
[sources.text]
files = ["*.txt"]
split = "line"
"""
RUN = """
out = "{out}"
tokenizer = "{corpus}/tokenizer.json"
[data]
length = 48
train = [{{ corpus = "{corpus}/train" }}]
valid = [{{ corpus = "{corpus}/valid" }}]
[model]
width = 32
ffn = 64
heads = 2
encoder_layers = 1
decoder_layers = 2
max_length = 64
positions = "learned"
[objective]
name = "janus"
[packing]
samples = 2
[schedule]
warmup = 2
[train]
steps = 4
batch = 8
validate_every = 2
save_every = 2
"""
TUNE = """
out = "{out}"
task = "docsum"
start = "{start}"
[data]
root = "{root}"
max_source = 40
max_target = 16
[loss]
rise = [1, 2]
[train]
steps = 2
batch = 4
log_every = 1
[validate]
metrics = ["rouge"]
texts = 4
[validate.options]
max_length = 9
[schedule]
warmup = 1
"""


def launch(*words, code=0) -> str:
    """Run launch.sh as a user would; its exit code is checked, its output returned."""
    environment = {**os.environ, "JANUSLM_PYTHON": sys.executable, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        ["bash", str(ROOT / "launch.sh"), *map(str, words)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


def sentences() -> list[str]:
    """Real English: the project's own documentation."""
    text = " ".join(path.read_text() for path in sorted((ROOT / "docs").glob("*.md")))
    words = text.split()
    return [" ".join(words[i : i + 14]) for i in range(0, min(len(words), 5000), 14)]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A corpus, a pretrained and a fine-tuned model, all tiny; and what was printed."""
    base = tmp_path_factory.mktemp("pipeline")
    lines = sentences()
    (base / "plain.txt").write_text("\n".join(lines))
    (base / "corpus.toml").write_text(CORPUS.format(out=base / "corpus"))
    said = {}
    root = f"root={base}"
    said["tokenizer"] = launch("data", "tokenizer", base / "corpus.toml", root)
    said["build"] = launch("data", "build", base / "corpus.toml", root)
    run = RUN.format(out=base / "pre", corpus=base / "corpus")
    (base / "run.toml").write_text(run)
    said["pretrain"] = launch("pretrain", base / "run.toml", "--gpus", 2)
    (base / "docsum").mkdir()
    for split, part in (("train", lines[:40]), ("valid", lines[40:50]), ("test", lines[50:60])):
        rows = [
            {"id": f"{split}-{i}", "package": split, "source": line, "target": line[:30]}
            for i, line in enumerate(part)
        ]
        (base / "docsum" / f"{split}.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n")
    tune = TUNE.format(out=base / "tuned", start=base / "pre", root=base / "docsum")
    (base / "tune.toml").write_text(tune)
    said["finetune"] = launch("finetune", base / "tune.toml", "--gpus", 2)
    return base, said


@pytest.mark.slow
def test_two_processes_train_to_the_end_and_leave_logs_and_weights(trained):
    base, said = trained
    assert "done: step 4" in said["pretrain"]
    rows = [json.loads(line) for line in (base / "pre" / "valid.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [0, 2, 4]
    assert {"ce/ar", "ce/nar", "ce/aux", "kl/nar~aux", "kl/ar~aux"} <= rows[0].keys()
    assert all(0 < row[f"accept/ar~{name}"] <= 1 for row in rows for name in ("nar", "aux"))
    assert (base / "pre" / "export" / "model.safetensors").is_file()
    assert list((base / "pre" / "board").glob("events*"))
    assert "Traceback" not in said["pretrain"]
    assert "Warning" not in said["pretrain"]


@pytest.mark.slow
def test_kl_counts_from_the_update_that_the_run_file_names(trained):
    base, _ = trained
    kl = {"kl/ar~nar": 1.0, "kl/ar~aux": 3.0, "kl/nar~aux": 1.0}
    weights = {"ce/ar": 1.0, "ce/nar": 0.5, "ce/aux": 0.5, "ce/length": 0.1}
    rows = [json.loads(line) for line in (base / "tuned" / "train.jsonl").read_text().splitlines()]
    for row, these in zip(rows, (weights, weights | kl), strict=True):
        assert all(row[name] > 0 for name in kl)
        assert row["loss"] == pytest.approx(sum(w * row[n] for n, w in these.items()), rel=1e-5)


@pytest.mark.slow
def test_scores_during_training_are_those_of_generate_and_evaluate_after_it(trained):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    base, said = trained
    tuned = base / "tuned"
    rows = [json.loads(line) for line in (tuned / "valid.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [0, 2]
    assert all({"rouge-1", "rouge-2", "rouge-l"} <= row.keys() for row in rows)
    words = ("--split", "valid", "--limit", 4, "--batch", 16, "max_length=9")
    launch("generate", tuned, *words, "--output", base / "four.jsonl")
    table = launch("evaluate", base / "four.jsonl", "--metric", "rouge")
    for name in ("rouge-1", "rouge-2", "rouge-l"):
        assert f"{rows[-1][name]:.2f}" in table, (rows[-1], table)
        assert f"| {name} {rows[-1][name]:.4f}" in said["finetune"]
    events = EventAccumulator(str(tuned / "board" / "valid"))
    events.Reload()
    assert [e.step for e in events.Scalars("rouge-l")] == [0, 2]
    assert "\x1b" not in said["finetune"]


@pytest.mark.slow
def test_a_second_start_says_that_the_run_is_done(trained):
    base, _ = trained
    assert "is done: step 4" in launch("pretrain", base / "run.toml", "--gpus", 2)


@pytest.mark.slow
def test_every_way_of_writing_is_scored_in_one_table(trained):
    base, _ = trained
    for algorithm, *options in (("greedy",), ("beam", "beam=2"), ("mask_predict", "iterations=2")):
        launch("generate", base / "tuned", "--algorithm", algorithm, *options, "--batch", 4)
    table = launch("evaluate", base / "tuned" / "predictions")
    for word in ("ar greedy", "ar beam 2", "nar 2 iterations", "lead-1", "rouge-1"):
        assert word in table.lower(), table
    files = sorted((base / "tuned" / "predictions").glob("*.jsonl"))
    assert len(files) == 3
    for file in files:
        rows = [json.loads(line) for line in file.read_text().splitlines()]
        assert [row["id"] for row in rows] == [f"test-{i}" for i in range(10)]


@pytest.mark.slow
def test_the_exported_model_starts_where_the_pretrained_one_ended(trained):
    from januslm.interop import native

    base, _ = trained
    before, after = (native.read(base / name).model.state_dict() for name in ("pre", "tuned"))
    moved = [name for name in before if not torch.equal(before[name], after[name])]
    assert moved
    near = max((before[n] - after[n]).abs().max().item() for n in before)
    assert near < 0.05, near  # two steps at 5e-4, not another initialisation


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("train.stepz=3", "train: unknown key 'stepz'; there are accumulate"),
        ("train.steps=many", "train: steps must be a whole number, got 'many'"),
        ("train.batch=0", "train: batch must be at least 1, got 0"),
        (
            "objective.name=janos",
            "no 'janos' in objectives/; there are ar, bang, block, ",
        ),
        ("objective.read=later", "objective: read must be one of next, past, got 'later'"),
        ("noise.ratio=1.5", "noise: ratio must be more than 0 and at most 1, got 1.5"),
        ("noise.name=spams", "no 'spams' in noise/"),
        ("data.length=5000", "needs model.max_positions of at least 5001, got 1024"),
        ('loss.weights."ce/later"=1.0', "no loss term 'ce/later'"),
        ("model.preset=huge", "no model preset 'huge'; there are base, iwslt, large, tiny"),
        ("model.heads=5", "width 32 is not a multiple of heads 5"),
        ("tokenizer=nowhere.json", "nowhere.json"),
        ("start=nowhere", "nowhere: no model.safetensors"),
    ],
)
def test_a_mistake_in_a_run_is_one_line(trained, change, message):
    base, _ = trained
    with pytest.raises(Refused) as refused:
        resolve(config.load(PretrainRun, base / "run.toml", [change]), "run.toml")
    assert message in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.slow
def test_one_flipped_bit_of_a_shard_is_refused_before_training(trained):
    base, _ = trained
    shard = base / "corpus" / "train" / "shard-00000.bin"
    whole = shard.read_bytes()
    place = len(whole) // 2
    try:
        shard.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        with pytest.raises(Refused, match=r"shard-00000\.bin: bytes .* do not match their hash"):
            resolve(config.load(PretrainRun, base / "run.toml"), "run.toml")
    finally:
        shard.write_bytes(whole)


@pytest.mark.slow
def test_a_mistake_ends_all_processes_with_code_2_and_one_line(trained):
    base, _ = trained
    shard = base / "corpus" / "train" / "shard-00000.bin"
    whole = shard.read_bytes()
    try:
        shard.write_bytes(whole[:-2])
        text = launch("pretrain", base / "run.toml", f"out={base / 'bad'}", "--gpus", 2, code=2)
    finally:
        shard.write_bytes(whole)
    assert f"error: {shard}: has {len(whole) - 2} bytes" in text
    lines = [line for line in text.strip().splitlines() if not line.startswith("starting, ")]
    assert len(lines) == 1, text
    assert not (base / "bad").exists()


@pytest.mark.slow
def test_a_folder_that_cannot_be_made_ends_all_processes_with_one_line(trained):
    base, _ = trained
    taken = base / "corpus.toml"
    text = launch("pretrain", base / "run.toml", f"out={taken}", "--gpus", 2, code=2)
    errors = [line for line in text.splitlines() if "rror" in line]
    assert errors == [f"error: {taken}: cannot be a run's folder, {taken} is a file"]


@pytest.mark.slow
def test_sigterm_to_launch_sh_saves_and_leaves_no_process_behind(trained, tmp_path):
    base, _ = trained
    environment = {**os.environ, "JANUSLM_PYTHON": sys.executable, "OMP_NUM_THREADS": "1"}
    words = ["pretrain", base / "run.toml", "train.steps=100000", f"out={tmp_path / 'run'}"]
    changes = ["train.validate_every=100000", "train.save_every=100000", "train.log_every=1"]
    child = subprocess.Popen(
        ["bash", str(ROOT / "launch.sh"), *map(str, words), *changes, "--gpus", "2"],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    log = tmp_path / "run" / "train.jsonl"
    end = time.monotonic() + 120
    while not log.is_file() and time.monotonic() < end and child.poll() is None:
        time.sleep(0.2)
    child.terminate()
    said, _ = child.communicate(timeout=120)
    assert child.returncode == 85, said
    assert "the same command goes on" in said
    assert list((tmp_path / "run" / "checkpoints").glob("step-*"))
    running = subprocess.run(["pgrep", "-f", str(tmp_path)], capture_output=True, text=True).stdout
    assert running == ""


@pytest.mark.slow
def test_mpnet_learns_with_t5_buckets_under_deepspeed_and_comes_back_with_them(trained):
    from januslm.interop import native

    base, _ = trained
    changes = ["objective.name=mpnet", "model.position_bias=t5", "optimizer.lr=5e-3"]
    changes += ["train.steps=30", "train.save_every=30", "train.validate_every=30"]
    out = base / "mpnet"
    said = launch("pretrain", base / "run.toml", f"out={out}", *changes, "--gpus", 2)
    assert "done: step 30" in said
    before, after = (json.loads(row) for row in (out / "valid.jsonl").read_text().splitlines())
    assert after["ce/aux"] < 0.95 * before["ce/aux"], (before, after)
    saved = native.read(out)
    assert (saved.objective, saved.model.config.position_bias) == ("mpnet", "t5")
    for side in (saved.model.encoder, saved.model.decoder):
        assert side.position_bias.table.weight.std() > 0
