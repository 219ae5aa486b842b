"""How a training run may end, and the exit code it then has: real processes, real signals."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.launching import wait_until
from tests.tiny_run import ENDLESS, built, ranks, started, updates

pytestmark = pytest.mark.slow
GOES_ON = "the same command goes on"


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Path:
    """A corpus and a run file of a tiny model."""
    return built(tmp_path_factory.mktemp("codes"))


def _ended(place: Path, run: subprocess.Popen, out: Path) -> tuple[int, str]:
    """Exit code and what was said; no process of the run is left."""
    said, _ = run.communicate(timeout=120)
    assert ranks(out) == {}, said
    return run.returncode, said


def _training(base: Path, out: Path, *words, **variables: str) -> subprocess.Popen:
    """Two ranks without an end, once they have made an update more than before."""
    before = updates(out)
    words = ("pretrain", "run.toml", "--gpus", 2, f"out={out}", *ENDLESS, *words)
    run = started(base, *words, "train.log_every=1", **variables)
    wait_until(lambda: updates(out) > before or run.poll() is not None)
    return run


@pytest.mark.parametrize(
    ("number", "name"), [(signal.SIGUSR1, "SIGUSR1"), (signal.SIGINT, "Ctrl-C")]
)
def test_stopped_by_a_signal_it_is_85(base, number, name):
    out = base / "long"
    run = _training(base, out)
    run.send_signal(number)
    code, said = _ended(base, run, out)
    assert code == 85, said
    assert f"stopped on request ({name}); {GOES_ON} from {out}" in said
    assert list((out / "checkpoints").glob("step-*"))


def test_killed_it_is_1_and_the_rank_is_named(base):
    out = base / "killed"
    run = _training(base, out)
    [victim] = [pid for pid, rank in ranks(out).items() if rank == 1]
    os.kill(victim, signal.SIGKILL)
    code, said = _ended(base, run, out)
    assert code == 1, said
    assert re.search(rf"rank 1 was killed by SIGKILL .*; {GOES_ON}", said), said
    assert not (out / "done").exists()


RAISES = """
import os, sys

def look(event, arguments):
    if event == "open" and str(arguments[0]).endswith("shard-00000.bin"):
        raise RuntimeError("made to fail")

if os.environ.get("RANK") == "1":
    sys.addaudithook(look)
"""


def test_the_traceback_of_a_rank_that_fails_is_shown_once_and_the_others_end(base, tmp_path):
    (tmp_path / "sitecustomize.py").write_text(RAISES)
    words = ("pretrain", "run.toml", "--gpus", 2, f"out={tmp_path / 'run'}", *ENDLESS)
    run = started(base, *words, PYTHONPATH=str(tmp_path))
    code, said = _ended(base, run, tmp_path / "run")
    assert code == 1, said
    assert said.count("RuntimeError: made to fail") == 1, said
    assert "rank 1 failed with code 1 before its first update; 1 other rank ended with it" in said
    assert GOES_ON not in said
    log = tmp_path / "run" / "logs" / "rank-00001.log"
    assert f"(all: {log})" in said
    assert log.read_text().count("Traceback") == 1


# In every process, by PYTHONPATH: rank 1 is killed when it saves step 2, once if $ONCE is a file.
DIES = """
import os, signal, sys

def look(event, arguments):
    if event == "open" and ".saving-step-00000002/" in str(arguments[0]):
        if not os.path.exists(os.environ["SPARED"]):
            if os.environ["ONCE"]:
                open(os.environ["SPARED"], "x").close()
            os.kill(os.getpid(), signal.SIGKILL)

if os.environ.get("RANK") == "1":
    sys.addaudithook(look)
"""


@pytest.mark.long
@pytest.mark.parametrize("once", [True, False])
def test_restarts_bring_a_run_to_its_end_unless_the_same_step_fails_twice(base, tmp_path, once):
    (tmp_path / "sitecustomize.py").write_text(DIES)
    own = {"PYTHONPATH": str(tmp_path), "ONCE": "yes" * once, "SPARED": str(tmp_path / "spared")}
    out = tmp_path / "run"
    words = ("pretrain", "run.toml", f"out={out}", "--gpus", 2, "train.save_every=2")
    run = started(base, *words, "--restarts", 3, **own)
    code, said = _ended(base, run, out)
    assert "rank 1 was killed by SIGKILL" in said
    assert "restart 1 of 3 in 5 s" in said
    assert "restart 2" not in said
    if once:
        assert code == 0, said
        assert (out / "done").is_file()
    else:
        assert code == 1, said
        assert "no restart: twice it came to " in said


def test_a_second_ctrl_c_ends_at_once_and_says_so(base):
    """The ranks are stopped, so that none of them can save."""
    out = base / "twice"
    run = _training(base, out)
    for pid in ranks(out):
        os.kill(pid, signal.SIGSTOP)
    run.send_signal(signal.SIGINT)
    time.sleep(1.5)  # sooner, it would be taken for the same Ctrl-C
    run.send_signal(signal.SIGINT)
    code, said = _ended(base, run, out)
    assert code == 1, said
    assert "Ctrl-C once more: ended without saving" in said


@pytest.mark.long
def test_who_does_not_stop_in_time_is_killed(base):
    out = base / "late"
    run = _training(base, out, JANUSLM_GRACE="2")
    for pid in ranks(out):
        os.kill(pid, signal.SIGSTOP)
    run.send_signal(signal.SIGTERM)
    code, said = _ended(base, run, out)
    assert code == 1, said
    assert "was killed by SIGKILL" in said


def test_a_killed_launcher_takes_its_ranks_with_it_once_they_have_saved(base):
    out = base / "orphans"
    run = _training(base, out)
    assert len(ranks(out)) == 2
    run.kill()
    wait_until(lambda: not ranks(out), 60)
    assert list((out / "checkpoints").glob("step-*"))
    run.communicate()


def test_ranks_whose_host_process_dies_while_they_start_do_not_train_on(base):
    """They have not looked who their parent is yet."""
    out = base / "fatherless"
    run = started(base, "pretrain", "run.toml", "--gpus", 2, f"out={out}", *ENDLESS)
    wait_until(lambda: len(ranks(out)) == 2)
    [host] = {int(Path(f"/proc/{pid}/stat").read_text().split()[3]) for pid in ranks(out)}
    os.kill(host, signal.SIGKILL)
    wait_until(lambda: not ranks(out), 60)
    said, _ = run.communicate(timeout=60)
    assert run.returncode == 1, said


STARTER = "import subprocess, sys; subprocess.run([sys.executable, '-P', *sys.argv[1:]])"


def test_a_rank_that_waits_for_others_ends_with_the_process_that_started_it(base):
    """Seen on two hosts: a host's process is killed, and its rank waits for one that is gone."""
    out = base / "alone"
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    place = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1"}
    starter = subprocess.Popen(
        [sys.executable, "-c", STARTER, "-m", "pretrain", "run.toml", f"out={out}"],
        cwd=base,
        env=os.environ | place | {"MASTER_PORT": str(port), "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        text=True,
    )

    def waits() -> bool:
        with socket.socket() as other:
            return other.connect_ex(("127.0.0.1", port)) == 0

    wait_until(waits)
    starter.kill()
    wait_until(lambda: not ranks(out), 20)
    said, _ = starter.communicate(timeout=20)
    assert "stopped by the end of its launcher before the ranks had met" in said


def test_each_rank_has_a_log_and_the_console_is_rank_0s(base):
    out = base / "short"
    run = started(base, "pretrain", "run.toml", "--gpus", 2, f"out={out}", "packing.samples=0")
    code, said = _ended(base, run, out)
    assert code == 0, said
    first, second = ((out / "logs" / f"rank-{n:05d}.log").read_text() for n in (0, 1))
    lines = [line for line in said.splitlines() if not line.startswith("starting, ")]
    assert [line for line in lines if line not in first.splitlines()] == []
    assert "done: step 4" in said
    assert "rank 1 of 2" in second
    assert second.endswith("--- ended with code 0\n")


def test_finished_it_is_0_and_a_mistake_is_2_without_a_word_of_going_on(base):
    out = base / "short"
    run = started(base, "pretrain", "run.toml", f"out={out}", "packing.samples=0")
    code, said = _ended(base, run, out)
    assert code == 0, said
    assert "done: step 4" in said
    for words in (("--bogus",), ("train.stepz=3",), ("data.length=20",), ("--gpus", 5)):
        run = started(base, "pretrain", "run.toml", f"out={out}", *words)
        code, said = _ended(base, run, out)
        assert code == 2, said
        assert said.startswith("error: ")
        assert GOES_ON not in said


def test_what_only_a_rank_finds_is_2_as_well(base):
    """Bytes of a shard that the check before the start does not hash."""
    shard = base / "corpus" / "train" / "shard-00000.bin"
    whole = shard.read_bytes()
    place = len(whole) // 2
    try:
        shard.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        run = started(base, "pretrain", "run.toml", "--gpus", 2, f"out={base / 'flipped'}")
        code, said = _ended(base, run, base / "flipped")
    finally:
        shard.write_bytes(whole)
    assert code == 2, said
    errors = [line for line in said.splitlines() if not line.startswith("starting, ")]
    assert len(errors) == 1, said
    assert "do not match their hash" in errors[0]


def test_a_host_that_cannot_be_reached_is_named_with_what_ssh_says(base, tmp_path):
    """A script in the place of ssh notes what it is asked, and what it is told on stdin."""
    ssh = tmp_path / "ssh"
    ssh.write_text(
        f'#!/bin/bash\nprintf "%s\\n" "$@" >>{tmp_path}/asked\nhead -n 1 >>{tmp_path}/told\n'
        "echo no way there >&2\nexit 255\n"
    )
    ssh.chmod(0o755)
    (base / "hosts").write_text("localhost slots=1\nelsewhere slots=2\n")
    own = base / ".deepspeed_env"
    own.write_text("MINE=a 'b' $(c)\n")
    words = ("pretrain", "run.toml", "--hostfile", "hosts", f"out={base / 'ho$(id)sted'}")
    path = f"{tmp_path}:{os.environ['PATH']}"
    run = started(base, *words, PATH=path, NCCL_DEBUG="INFO", OTHER="1")
    code, said = _ended(base, run, base / "ho")
    assert code == 2, said
    assert "error: " in said
    assert "elsewhere: cannot be reached: no way there" in said
    asked = (tmp_path / "asked").read_text()
    assert "BatchMode=yes" in asked
    assert "--\nelsewhere\nexec env PYTHONPATH=" in asked
    assert "$(id)" not in asked
    told = json.loads((tmp_path / "told").read_text())
    assert told["folder"] == str(base)
    assert told["variables"]["MINE"] == "a 'b' $(c)"
    assert told["variables"]["NCCL_DEBUG"] == "INFO"
    assert "OTHER" not in told["variables"]
    assert own.read_text() == "MINE=a 'b' $(c)\n"
    own.unlink()


def test_too_many_processes_are_refused_in_a_line(base):
    run = started(base, "pretrain", "run.toml", f"out={base / 'many'}", "--gpus", 1000)
    code, said = _ended(base, run, base / "many")
    assert code == 2, said
    assert re.fullmatch(r"error: 1000 processes on \d+ cores, at most \d+\n", said)
