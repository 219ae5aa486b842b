"""How a training run may end, and the exit code it then has: real processes, real signals."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.launching import wait_until
from tests.test_refusals import CORPUS, PRETRAIN

pytestmark = pytest.mark.slow
ENDLESS = ("train.steps=100000", "train.validate_every=100000", "train.save_every=100000")
GOES_ON = "the same command goes on"


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Path:
    """A corpus of this project's documentation and a run file of a tiny model."""
    place = tmp_path_factory.mktemp("codes")
    text = " ".join(path.read_text() for path in sorted((ROOT / "docs").glob("*.md")))
    words = text.split()
    lines = (" ".join(words[i : i + 9]) for i in range(0, 4500, 9))
    (place / "plain.txt").write_text("\n".join(lines))
    for name, content in (("corpus.toml", CORPUS), ("run.toml", PRETRAIN)):
        (place / name).write_text(content.format(base=place))
    for verb in ("tokenizer", "build"):
        done = _start(place, "data", verb, "corpus.toml")
        said, _ = done.communicate(timeout=120)
        assert done.returncode == 0, said
    return place


def _start(place: Path, *words, **variables: str) -> subprocess.Popen:
    """launch.sh, as a user starts it in that folder."""
    usual = {"JANUSLM_PYTHON": sys.executable, "OMP_NUM_THREADS": "1"}
    environment = os.environ | usual | variables
    return subprocess.Popen(
        ["bash", str(ROOT / "launch.sh"), *map(str, words)],
        cwd=place,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def _ended(place: Path, run: subprocess.Popen, out: Path) -> tuple[int, str]:
    """Exit code and what was said; no process of the run is left."""
    said, _ = run.communicate(timeout=120)
    assert _processes(out) == {}, said
    return run.returncode, said


def _processes(out: Path) -> dict[int, str]:
    """Process ids and command lines that name a run's folder."""
    found = subprocess.run(["pgrep", "-af", str(out)], capture_output=True, text=True).stdout
    return {int(pid): line for pid, _, line in (row.partition(" ") for row in found.splitlines())}


def test_stopped_by_a_signal_it_is_85_and_killed_it_is_none_of_the_codes(base):
    out = base / "long"
    words = ("pretrain", "run.toml", "--gpus", 2, f"out={out}", *ENDLESS, "train.log_every=1")
    log = out / "train.jsonl"
    run = _start(base, *words)
    wait_until(lambda: log.is_file() or run.poll() is not None)
    run.send_signal(signal.SIGUSR1)
    code, said = _ended(base, run, out)
    assert code == 85, said
    assert f"stopped on request; {GOES_ON} from {out}" in said
    before = log.stat().st_size

    run = _start(base, *words)
    wait_until(lambda: log.stat().st_size > before or run.poll() is not None)
    [rank] = [pid for pid, line in _processes(out).items() if " --local_rank=1 " in line]
    os.kill(rank, signal.SIGKILL)
    code, said = _ended(base, run, out)
    assert code not in (0, 2, 85), said
    assert f"the run ended without finishing (launcher's code {code}); {GOES_ON}" in said
    assert not (out / "done").exists()


def test_finished_it_is_0_and_a_mistake_is_2_without_a_word_of_going_on(base):
    out = base / "short"
    run = _start(base, "pretrain", "run.toml", f"out={out}", "packing.samples=0")
    code, said = _ended(base, run, out)
    assert code == 0, said
    assert "done: step 4" in said
    for words in (("--bogus",), ("train.stepz=3",), ("data.length=20",), ("--gpus", 5)):
        run = _start(base, "pretrain", "run.toml", f"out={out}", *words)
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
        run = _start(base, "pretrain", "run.toml", "--gpus", 2, f"out={base / 'flipped'}")
        code, said = _ended(base, run, base / "flipped")
    finally:
        shard.write_bytes(whole)
    assert code == 2, said
    errors = [line for line in said.splitlines() if not line.startswith("starting, ")]
    assert len(errors) == 1, said
    assert "do not match their hash" in errors[0]


def test_other_hosts_are_reported_the_variables_of_the_run_and_the_users_own(base, tmp_path):
    """Scripts in the place of ssh and pdsh, the programs that reach hosts, note what is asked."""
    (tmp_path / "ssh").write_text("#!/bin/bash\necho 127.0.0.1\n")
    (tmp_path / "ssh").chmod(0o755)
    pdsh = tmp_path / "pdsh"
    pdsh.write_text(f'#!/bin/bash\nprintf "%s\\n" "$@" >>{tmp_path}/asked\nexit 3\n')
    pdsh.chmod(0o755)
    (base / "hosts").write_text("one slots=1\ntwo slots=2\n")
    own = base / ".deepspeed_env"
    own.write_text("MINE=1\n")
    words = (
        "pretrain",
        "run.toml",
        "--hostfile",
        "hosts",
        f"out={base / 'hosted'}",
        "train.batch=3",
    )
    run = _start(base, *words, PATH=f"{tmp_path}:{os.environ['PATH']}")
    code, said = _ended(base, run, base / "hosted")
    assert code == 3, said
    assert "ended before its first update (launcher's code 3); the lines above say why" in said
    assert GOES_ON not in said
    asked = (tmp_path / "asked").read_text()
    for variable in ("MINE=1", "OMP_NUM_THREADS=1", "TOKENIZERS_PARALLELISM=false"):
        assert f"export {variable};" in asked, asked
    assert "one,two" in asked
    assert own.read_text() == "MINE=1\n"
    run = _start(base, *words[:-1], "train.batch=2")
    assert _ended(base, run, base / "hosted")[0] == 2
