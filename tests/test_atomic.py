"""A file is the old one or the new one, whatever ends the writing."""

import errno
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from januslm.data import atomic

KILLED = """
import os, signal, sys
from januslm.data import atomic
with getattr(atomic, sys.argv[1])(sys.argv[2]) as file:
    file.write("half")
    file.flush()
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize("way", ["plain", "durable"])
@pytest.mark.slow
def test_a_kill_leaves_the_former_file_and_the_next_writing_cleans_up(way, tmp_path):
    path = tmp_path / "facts.json"
    path.write_text("old")
    ended = subprocess.run([sys.executable, "-c", KILLED, way, path], check=False)
    assert ended.returncode == -signal.SIGKILL
    assert path.read_text() == "old"
    assert [p.name for p in sorted(tmp_path.iterdir())] == ["facts.json", "facts.json.new"]
    with getattr(atomic, way)(path) as file:
        file.write("new: \u00fc\n")
    assert [p.name for p in tmp_path.iterdir()] == ["facts.json"]
    assert path.read_bytes() == "new: \u00fc\n".encode()


@pytest.mark.parametrize("error", [ValueError(), KeyboardInterrupt(), OSError(errno.ENOSPC, "")])
def test_an_error_leaves_the_former_file_alone(error, tmp_path):
    path = tmp_path / "facts.json"
    path.write_text("old")

    def interrupted() -> None:
        with atomic.durable(path, "wb") as file:
            file.write(b"half")
            raise error

    with pytest.raises(type(error)):
        interrupted()
    assert [(p.name, p.read_text()) for p in tmp_path.iterdir()] == [("facts.json", "old")]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
def test_a_full_disk_at_the_last_flush_leaves_nothing_under_the_name(tmp_path):
    path = tmp_path / "facts.json"
    (tmp_path / f"facts.json{atomic.SUFFIX}").symlink_to("/dev/full")
    with pytest.raises(OSError, match="No space"), atomic.plain(path) as file:
        file.write("small enough for the buffer")
    assert not list(tmp_path.iterdir())
