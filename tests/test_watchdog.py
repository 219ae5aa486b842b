"""A run that no longer gets anywhere ends by itself and names the rank that is to blame."""

import os
import signal
import struct
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from torch.distributed import TCPStore

from januslm.training import history
from januslm.training.run_lock import holder
from januslm.training.watchdog import Watchdog
from tests.launching import finish, start, wait_until
from tests.ranks import environment, free_port, laid, started
from tests.test_resume import asked, lines
from tests.tiny_run import ENDLESS

pytestmark = [pytest.mark.slow, pytest.mark.long]
LIMIT = 15.0  # seconds; each step of a start takes less, on a busy machine as well


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return laid(tmp_path_factory.mktemp("watchdog"))


def logged(out: Path) -> int:
    """Updates in the run's log."""
    log = out / "train.jsonl"
    return len(log.read_bytes().splitlines()) if log.exists() else 0


def running(base: Path, name: str):
    """Two ranks of a run that are past their first updates, and the run's folder."""
    words = (f"out={base / name}", f"train.timeout={LIMIT}", "train.log_every=1", *ENDLESS)
    ranks = started(base, *words)
    ended = lambda: any(rank.poll() is not None for rank in ranks)  # noqa: E731
    wait_until(lambda: logged(base / name) >= 3 or ended())
    return ranks, base / name


def stopped_rank_is_named(base: Path, rank: int) -> tuple[str, Path]:
    """What the other rank says after one got SIGSTOP, in how many seconds it did."""
    ranks, out = running(base, f"stopped{rank}")
    ranks[rank].send_signal(signal.SIGSTOP)
    began = time.monotonic()
    other = 1 - rank
    try:
        said, _ = ranks[other].communicate(timeout=10 * LIMIT)
        took = time.monotonic() - began
    finally:
        for one in ranks:
            one.kill()
            one.wait()
    assert ranks[other].returncode == 1, said
    assert took < LIMIT + 15, said
    return said, out


def test_a_rank_that_is_stopped_is_named_by_the_other_with_all_stacks(base):
    said, out = stopped_rank_is_named(base, 1)
    host = os.uname().nodename
    [line] = [line for line in said.splitlines() if line.startswith("error: ")]
    assert line.startswith(f"error: rank 1 on {host} is silent for 15 s, at its last beat: ")
    assert f"train.timeout = 15 s, stacks in {out / 'logs' / 'rank-00000.log'}" in line
    stacks = (out / "logs" / "rank-00000.log").read_text()
    assert "Current thread" in stacks
    assert "in all_reduce" in stacks or "in update" in stacks
    assert "Traceback" not in said
    last = history.read(out)[-1]
    assert (last["event"], last["code"]) == ("stop", 1)
    assert "rank 1" in last["reason"]
    assert holder(out) is None


def test_rank_0_keeps_the_store_until_all_have_asked_who_says_it(tmp_path):
    port = int(free_port())
    ranks = [Watchdog(tmp_path, rank, 2, LIMIT) for rank in range(2)]
    ranks[0].store = TCPStore("127.0.0.1", port, is_master=True, wait_for_workers=False)
    ranks[1].store = TCPStore("127.0.0.1", port, is_master=False)
    with ThreadPoolExecutor(1) as threads:
        first = threads.submit(ranks[0].first_to_say, "the same mistake")
        with pytest.raises(TimeoutError):
            first.result(timeout=0.5)
        assert not ranks[1].first_to_say("the same mistake")
        assert first.result(timeout=2)


def test_a_rank_0_whose_store_does_not_answer_is_named(base):
    said, out = stopped_rank_is_named(base, 0)
    [line] = [line for line in said.splitlines() if line.startswith("error: ")]
    assert line.startswith(
        f"error: rank 0 on {os.uname().nodename} is silent for 15 s, while rank 1"
    )
    assert "step " in line
    assert "Current thread" in (out / "logs" / "rank-00001.log").read_text()


def test_a_rank_that_hangs_in_its_data_is_named_as_the_one_behind(tmp_path):
    """Both ranks show signs of life; the other waits for it in a collective."""
    order = asked(tmp_path / "run", work={"hangs": 30}, timeout=LIMIT, workers=0)
    codes, said = finish(start("tiny_worker.py", order))
    assert codes == [1, 1], said
    [line] = [line for line in said.splitlines() if line.startswith("error: ")]
    assert "no rank got on for " in line
    assert f"rank 1 on {os.uname().nodename} is behind, waiting for its data, step 4;" in line
    assert len(lines(tmp_path / "run")) == 3
    for rank in (0, 1):
        stacks = (tmp_path / "run" / "logs" / f"rank-{rank:05d}.log").read_text()
        assert "tiny_worker.py" in stacks


def test_a_validation_that_takes_longer_than_the_limit_but_gets_on_is_left_alone(tmp_path):
    work = {"slow_validation": 0.4 * LIMIT, "validations": 3}
    order = asked(tmp_path / "run", work=work, timeout=LIMIT, steps=1, validate_every=9)
    codes, said = finish(start("tiny_worker.py", order))
    assert codes == [0, 0], said


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGINT])
def test_a_hangup_and_an_interrupt_save_as_any_stop_does(base, number):
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a job of a shell may ignore it
    ranks, out = running(base, f"signal{number}")
    ranks[1].send_signal(number)
    codes, said = finish(ranks)
    assert codes == [85, 85], said
    assert "stopped by a signal to another rank and saved" in said
    [saved] = (out / "checkpoints").glob("step-*")
    stop = history.read(out)[-1]
    assert (stop["event"], stop["code"]) == ("stop", 85)
    assert saved.name == f"step-{stop['step']:08d}"


def test_ranks_save_when_their_launcher_is_gone(base, tmp_path):
    """A shell in the launcher's place is killed; its ranks are told by nobody."""
    script, out = tmp_path / "launcher.sh", base / "orphans"
    words = " ".join([str(base / "run.toml"), f"out={out}", "train.log_every=1", *ENDLESS])
    script.write_text(
        "for rank in 0 1; do\n"
        f"  RANK=$rank LOCAL_RANK=$rank {sys.executable} -P -m pretrain {words} &\n"
        "done\nwait\n"
    )
    meeting = environment(WORLD_SIZE="2", MASTER_ADDR="127.0.0.1", MASTER_PORT=free_port())
    with open(tmp_path / "said", "w") as said:
        shell = subprocess.Popen(["bash", str(script)], env=meeting, stdout=said, stderr=said)
    try:
        wait_until(lambda: logged(out) >= 3 or shell.poll() is not None)
    finally:
        shell.kill()
        shell.wait()
    wait_until(lambda: history.read(out)[-1]["event"] == "stop")
    stop = history.read(out)[-1]
    assert stop["code"] == 85
    assert stop["reason"] in ("the end of its launcher", "a signal to another rank")
    assert list((out / "checkpoints").glob("step-*"))
    wait_until(lambda: holder(out) is None)


def test_the_pulse_tells_the_step_that_a_killed_rank_was_at(base, tmp_path):
    pulses = [tmp_path / f"pulse{rank}" for rank in (0, 1)]
    for pulse in pulses:
        pulse.write_bytes(bytes(32))
    each = [{"JANUSLM_PULSE": str(pulse)} for pulse in pulses]
    out = base / "pulse"
    ranks = started(base, f"out={out}", "train.log_every=1", *ENDLESS, each=each)
    wait_until(lambda: logged(out) >= 3 or ranks[0].poll() is not None)
    ranks[1].kill()
    codes, said = finish(ranks)
    assert codes == [1, -signal.SIGKILL], said
    steps = []
    for pulse in pulses:
        step, when = struct.unpack_from("<qd", pulse.read_bytes())
        assert abs(time.time() - when) < 60
        steps.append(step)
    assert abs(steps[0] - steps[1]) <= 1
    assert steps[0] >= logged(out) - 1
