"""launch.sh turns its verbs into the commands it says, and refuses what it does not know."""

import os
import subprocess
import sys

import pytest

from tests.conftest import ROOT

pytestmark = pytest.mark.slow  # bash in a process each


def launch(*words, cwd=ROOT, code=0) -> str:
    """What launch.sh prints on a machine that is set up; its exit code is checked."""
    environment = {**os.environ, "JANUSLM_PYTHON": sys.executable, "JANUSLM_DATA": "/data"}
    environment.pop("OMP_NUM_THREADS", None)
    done = subprocess.run(
        ["bash", str(ROOT / "launch.sh"), *map(str, words)],
        cwd=cwd, env=environment, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == code, (done.stdout, done.stderr)
    return done.stdout + done.stderr


def test_a_dry_run_prints_the_deepspeed_command_and_runs_nothing(tmp_path):
    text = launch(
        "pretrain", "--dry-run", "pretrain/runs/tiny.toml", "train.steps=3", "--gpus", 2,
        "--ds", "ds_configs/zero2_bf16.json", f"out={tmp_path / 'run'}",
    )  # fmt: skip
    assert "deepspeed.launcher.runner" in text
    assert "--num_gpus 2 --module pretrain" in text
    assert "pretrain/runs/tiny.toml train.steps=3" in text
    assert "--ds " in text
    assert "zero2_bf16.json" in text
    assert not (tmp_path / "run").exists()


def test_a_hostfile_is_handed_to_deepspeed(tmp_path):
    (tmp_path / "hosts").write_text("one slots=8\ntwo slots=8\n")
    text = launch(
        "pretrain", "--dry-run", "pretrain/runs/base.toml", "--hostfile", "hosts", cwd=tmp_path
    )
    assert f"--hostfile {tmp_path}/hosts" in text


@pytest.mark.parametrize(
    ("words", "module"),
    [
        (("data", "build", "x.toml"), "-m data_tools build x.toml"),
        (("generate", "runs/x", "--algorithm", "beam"), "-m finetune.generate runs/x --algorithm"),
        (("evaluate", "runs/x"), "-m finetune.evaluate runs/x"),
        (("tensorboard", "runs/x"), "-m tensorboard.main --logdir runs/x"),
        (("demo",), "-m data_tools build data_tools/corpora/docstrings.toml"),
        (("test",), "-m pytest"),
    ],
)
def test_each_verb_names_its_command(words, module):
    assert module in launch(*words, "--dry-run")


@pytest.mark.parametrize("verb", ["setup", "demo", "test", "pretrain", "finetune", "generate"])
@pytest.mark.parametrize("word", ["-h", "--help"])
def test_help_is_help_and_starts_nothing(verb, word):
    text = launch(verb, word)
    assert text.lower().startswith("usage: ")
    assert "error" not in text


def test_it_works_from_any_directory(tmp_path):
    (tmp_path / "mine.toml").write_text("")
    text = launch("pretrain", "--dry-run", "mine.toml", cwd=tmp_path)
    assert f"--module pretrain {tmp_path}/mine.toml" in text


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("pretend",), "error: no verb pretend; there are setup, demo, test"),
        (("pretrain",), "error: which run?"),
        (("pretrain", "tinny.toml"), "tinny.toml: no such run file; there are bart_janus.toml"),
        (("pretrain", "x", "--gpus", "two"), "--gpus must be a whole number from 1, got 'two'"),
        (("pretrain", "x", "--ds"), "error: --ds needs a value"),
    ],
)  # fmt: skip
def test_a_mistake_gets_one_line_and_code_2(words, message):
    text = launch(*words, code=2)
    assert message in text
    assert len(text.strip().splitlines()) == 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, ": no such file"),
        ("", ": names no host"),
        ("# one slots=8\n\n", ": names no host"),
        ("one slots=8\ntwo\n", ':2: must be "host slots=N", got "two"'),
        ("one slots=0\n", ':1: must be "host slots=N", got "one slots=0"'),
        ("one slots=8\none slots=8\n", ":2: host one comes twice"),
    ],
)  # fmt: skip
def test_a_hostfile_that_names_no_hosts_is_refused(text, message, tmp_path):
    """DeepSpeed would train on this machine alone if there is none."""
    if text is not None:
        (tmp_path / "hosts").write_text(text)
    said = launch("pretrain", "pretrain/runs/base.toml", "--hostfile", tmp_path / "hosts", code=2)
    assert said == f"error: {tmp_path / 'hosts'}{message}\n"
