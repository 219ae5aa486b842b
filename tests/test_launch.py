"""launch.sh turns its verbs into the commands it says, and refuses what it does not know."""

import os
import re
import shutil
import subprocess
import sys

import pytest

from tests.conftest import ROOT

pytestmark = pytest.mark.slow  # each starts a process


def launch(*words, cwd=ROOT, code=0) -> str:
    """What launch.sh prints on a machine that is set up; its exit code is checked."""
    environment = {**os.environ, "JANUSLM_PYTHON": sys.executable, "JANUSLM_DATA": "/data"}
    environment.pop("OMP_NUM_THREADS", None)
    done = subprocess.run(
        ["bash", str(ROOT / "launch.sh"), *map(str, words)],
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == code, (done.stdout, done.stderr)
    return done.stdout + done.stderr


def test_a_dry_run_prints_the_command_of_each_rank_and_runs_nothing(tmp_path):
    text = launch(
        "pretrain",
        "--dry-run",
        "pretrain/runs/tiny.toml",
        "train.steps=300",
        "--gpus",
        2,
        "--ds",
        "ds_configs/zero2_bf16.json",
        f"out={tmp_path / 'run'}",
        f"tokenizer={tmp_path / 'none.json'}",
        code=2,
    )
    *ranks, error = text.splitlines()
    assert error.startswith(f"error: {tmp_path / 'none.json'}: ")
    assert len(ranks) == 2
    for rank, line in enumerate(ranks):
        assert line.startswith(f"env RANK={rank} LOCAL_RANK={rank} WORLD_SIZE=2 {sys.executable} ")
        assert "-P -m pretrain pretrain/runs/tiny.toml train.steps=300" in line
        assert "--ds ds_configs/zero2_bf16.json" in line
    assert not (tmp_path / "run").exists()


def test_a_dry_run_says_how_each_host_is_reached_and_what_its_ranks_are(tmp_path):
    (tmp_path / "hosts").write_text("one slots=1\ntwo slots=2\n")
    words = ("pretrain", "--dry-run", "x y.toml", "--hostfile", "hosts")
    *lines, error = launch(*words, cwd=tmp_path, code=2).splitlines()
    assert error.startswith("error: x y.toml: ")
    assert [line.split()[:2] for line in lines] == [
        ["ssh", "-T"],
        ["env", "RANK=0"],
        ["ssh", "-T"],
        ["env", "RANK=1"],
        ["env", "RANK=2"],
    ]
    assert re.search(r"ServerAliveInterval=5 .* -- two 'exec env PYTHONPATH=", lines[2])
    assert lines[4].startswith("env RANK=2 LOCAL_RANK=1 WORLD_SIZE=3 ")
    assert lines[4].endswith(" -P -m pretrain 'x y.toml'")


@pytest.mark.parametrize(
    ("words", "module"),
    [
        (("data", "build", "x.toml"), "-m data_tools build x.toml"),
        (("generate", "runs/x", "--algorithm", "beam"), "-m finetune.generate runs/x --algorithm"),
        (("evaluate", "runs/x"), "-m finetune.evaluate runs/x"),
        (("tensorboard", "runs/x"), "-m januslm.runs.board runs/x"),
        (("demo",), "-m data_tools build docstrings"),
        (("demo", "--say", "a b", "--say", "c"), "printf %s 'a b\nc\n' | "),
        (("test",), "-m pytest -q -n 2 --dist loadfile -m 'not long'\n"),
        (("test", "--all"), "-m pytest -q -n 2 --dist loadfile\n"),
        (("test", "tests/x.py"), "-m pytest -q -n 2 --dist loadfile tests/x.py\n"),
        (("test", "--quick", "-x"), "-m pytest -q -n 2 --dist loadfile -m 'not slow' -x\n"),
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
    text = launch("pretrain", "--dry-run", "mine.toml", cwd=tmp_path, code=2)
    assert "-m pretrain mine.toml" in text
    assert text.endswith("\nerror: mine.toml: out is missing\n")
    assert launch("pretrain", "mine.toml", cwd=tmp_path, code=2) == (
        "error: mine.toml: out is missing\n"
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, ": no such file"),
        ("", ": names no host"),
        ("# one slots=8\n\n", ": names no host"),
        ("one slots=8\ntwo\n", ':2: must be "host slots=N", got "two"'),
        ("one slots=0\n", ':1: must be "host slots=N", got "one slots=0"'),
        ("one slots=8\none slots=8\n", ":2: host one comes twice"),
        ("-oProxyCommand=x slots=1\n", ":1: '-oProxyCommand=x' is no name of a host"),
        ("one;id slots=1\n", ":1: 'one;id' is no name of a host"),
    ],
)
def test_a_hostfile_that_names_no_hosts_is_refused(text, message, tmp_path):
    """Nor does ssh see a name that is an option of it, or a shell one that is a command."""
    if text is not None:
        (tmp_path / "hosts").write_text(text)
    said = launch("pretrain", "pretrain/runs/base.toml", "--hostfile", tmp_path / "hosts", code=2)
    assert said == f"error: {tmp_path / 'hosts'}{message}\n"


def alone(tmp_path, *words, **environment) -> subprocess.CompletedProcess:
    """launch.sh in a clone that nothing is set up in."""
    clone = tmp_path / "clone"
    clone.mkdir()
    for name in ("launch.sh", "pyproject.toml", "constraints.txt", "README.md"):
        shutil.copy(ROOT / name, clone)
    for name in ("januslm", "pretrain", "finetune", "data_tools", "ds_configs"):
        (clone / name).symlink_to(ROOT / name)
    return subprocess.run(
        ["bash", str(clone / "launch.sh"), *words],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        env={"PATH": os.environ["PATH"], "HOME": str(tmp_path), **environment},
        timeout=300,
    )


def programs(tmp_path, *without: str, **scripts: str) -> str:
    """A PATH with bash's usual programs, without some, and with scripts in place of others."""
    place = tmp_path / "bin"
    place.mkdir()
    names = ("bash", "cat", "cksum", "sed", "awk", "df", "dirname", "python3", "mktemp", "rm")
    for name in names:
        if name in scripts:
            (place / name).write_text(f"#!/bin/bash\n{scripts[name]}\n")
            (place / name).chmod(0o755)
        elif name not in without:
            found = sys.executable if name == "python3" else shutil.which(name)
            (place / name).symlink_to(found)
    return str(place)


def refused(done: subprocess.CompletedProcess) -> str:
    """The last line on stderr of what ended with code 2."""
    assert done.returncode == 2, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    return done.stderr.splitlines()[-1]


def test_without_a_python_setup_says_which_it_needs(tmp_path):
    done = alone(tmp_path, "setup", PATH=programs(tmp_path, "python3"))
    assert refused(done) == "error: Python 3.11 or newer is needed; on the PATH is none"


def test_an_old_python_is_named(tmp_path):
    old = 'if [ "$1" = --version ]; then echo Python 3.8.10; else exit 1; fi'
    done = alone(tmp_path, "demo", PATH=programs(tmp_path, python3=old))
    assert refused(done) == "error: Python 3.11 or newer is needed; on the PATH is Python 3.8.10"


def test_a_python_that_is_named_but_not_there_is_refused(tmp_path):
    done = alone(tmp_path, "demo", JANUSLM_PYTHON="/no/python")
    assert "$JANUSLM_PYTHON = /no/python: not there, or older" in refused(done)


def test_a_full_disk_is_reported_before_anything_is_installed(tmp_path):
    full = "printf 'Filesystem 1024-blocks Used Available\\nx 9 9 20480 y z\\n'"
    done = alone(tmp_path, "setup", PATH=programs(tmp_path, df=full))
    assert re.search(r"clone: 20 MB are free, the environment needs \d+$", refused(done))
    assert not (tmp_path / "clone" / ".venv").exists()


@pytest.mark.parametrize("words", [("pretend",), ("pretrain", "x", "--gpus", "two"), ("demo", "x")])
def test_a_mistake_is_reported_before_the_environment_is_made(tmp_path, words):
    assert refused(alone(tmp_path, *words)).startswith("error: ")
    assert not (tmp_path / "clone" / ".venv").exists()


def test_help_and_dry_runs_need_no_environment(tmp_path):
    assert alone(tmp_path).stdout.startswith("Usage: ")
    shutil.rmtree(tmp_path / "clone")
    assert "-m pretrain tiny" in alone(tmp_path, "pretrain", "tiny", "--dry-run").stdout
    assert not (tmp_path / "clone" / ".venv").exists()


@pytest.mark.long
def test_without_a_network_setup_says_so_in_a_line(tmp_path):
    away = {"PIP_CONFIG_FILE": "/dev/null", "PIP_INDEX_URL": "http://127.0.0.1:9/simple"}
    done = alone(tmp_path, "setup", PIP_RETRIES="0", **away)
    assert refused(done).endswith(
        "installed: the package index does not answer: is there a network?"
    )
    assert not (tmp_path / "clone" / ".venv" / "ready").exists()
