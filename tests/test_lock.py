"""A run's folder has one owner, who is named to a second, and is free when the owner dies."""

import getpass
import os
import signal
import subprocess
import sys
import time

import pytest

from januslm.config import Refused
from januslm.training.run_lock import RunLock, check_free, holder
from tests.conftest import ROOT
from tests.launching import wait_until

pytestmark = pytest.mark.slow
OWNER = """
import sys, time
from januslm.training.run_lock import RunLock
lock = RunLock(sys.argv[1]).take("here:1", step=3)
for step in range(4, 1000):
    time.sleep(0.05)
    lock.note(step)
"""


@pytest.fixture
def owner(tmp_path):
    """A process that has the lock of tmp_path/run."""
    process = subprocess.Popen(
        [sys.executable, "-c", OWNER, str(tmp_path / "run")],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    wait_until(lambda: (holder(tmp_path / "run") or {}).get("step", 0) >= 3)
    yield process
    process.kill()
    process.wait()


def test_a_second_start_says_who_has_the_folder_and_the_dead_have_nothing(owner, tmp_path):
    folder = tmp_path / "run"
    found = holder(folder)
    assert found["pid"] == owner.pid
    assert found["user"] == getpass.getuser()
    assert found["host"] == os.uname().nodename
    for attempt in (lambda: check_free(folder), RunLock(folder).take):
        with pytest.raises(Refused) as error:
            attempt()
        start = f"{folder} is being trained in by process {owner.pid} of {getpass.getuser()} on "
        assert str(error.value).startswith(start)
        assert f" since {time.strftime('%Y-')}" in str(error.value)
        assert ", now at step " in str(error.value)
    wait_until(lambda: holder(folder)["step"] > 10)
    owner.send_signal(signal.SIGKILL)
    owner.wait()
    assert holder(folder) is None
    RunLock(folder).take()
    assert holder(folder)["pid"] == os.getpid()


def test_looking_does_not_take_the_lock_away(owner, tmp_path):
    for _ in range(3):
        assert holder(tmp_path / "run")["pid"] == owner.pid


def test_ranks_of_the_same_run_are_not_kept_out_by_their_own_rank_0(owner, tmp_path):
    check_free(tmp_path / "run", "here:1")
    with pytest.raises(Refused, match="is being trained in by process"):
        check_free(tmp_path / "run", "elsewhere:2")


def test_what_the_file_says_may_be_damaged_and_the_lock_holds(owner, tmp_path):
    folder = tmp_path / "run"
    os.kill(owner.pid, signal.SIGSTOP)
    for content in (b"", b"\xff\x00", b"[]", b'{"began": 1e400, "step": "x"}', b'{"began": {}}'):
        (folder / "lock").write_bytes(content)
        with pytest.raises(Refused, match=f"trained in by process {owner.pid} of "):
            check_free(folder)
    assert holder(tmp_path) is None
