"""What would break: a terminal without its live line, a log with one, a silence, a wrong eta."""

import fcntl
import json
import os
import pty
import struct
import subprocess
import sys
import termios
import time

import pytest

from januslm.cli import live, progress
from januslm.training import status
from januslm.training.pace import WARM_UP, Pace
from januslm.training.status import Status
from januslm.training.watchdog import Watchdog
from tests.conftest import ROOT
from tests.test_progress import moved
from tests.tiny_run import built

ESCAPE = "\x1b"


def test_a_live_line_has_a_bar_and_fits_the_terminal_that_it_is_drawn_on():
    state = live.State("1,000/4,000 | loss 2.5 | ce/ar 1.234 ce/nar 4.567", 1000, 4000)
    wide, narrow = state.line(120), state.line(40)
    assert wide == " 25% |█████               | " + state.text
    assert narrow == " 25% |██▌       | 1,000/4,000 | loss 2.…"
    assert live.State("starting").line(80) == "starting"
    assert live.State("x" * 90).line(40) == "x" * 39 + "…"


def test_the_time_left_knows_nothing_of_the_first_updates_and_all_of_validations():
    pace, now = Pace(100.0), 100.0
    for _ in range(WARM_UP):
        now += 20  # caches are filled, kernels compiled
        pace.updated(50, now)
        assert pace.left(10, 1, now) is None
    assert pace.tokens_per_second(now) == pytest.approx(50 / 20)
    for _ in range(4):
        now += 2
        pace.updated(50, now)
    pace.paused(30, validation=True)
    now += 30
    assert pace.tokens_per_second(now) == pytest.approx(25)
    assert pace.left(10, 2, now) == pytest.approx(10 * 2 + 2 * 30)


def result(loss: float) -> dict:
    return {"loss": loss, "terms": {"ce/ar": 1.0}, "lr": 1e-3}


def test_in_a_pipe_a_line_comes_every_thirty_seconds_and_no_colour(monkeypatch, capsys):
    clock = moved(monkeypatch)
    it = Status()
    for step in range(1, 90):
        clock[0] += 1
        it.pace.updated(10, clock[0])
        it.trained(step, 100, 0, result(step), 0, step == 1)
    said = capsys.readouterr()
    assert said.out.splitlines() == [
        f"step {step}/100 | loss {step}.0000 | ce/ar 1.000 | lr 1.00e-03 | 10 tok/s{eta}"
        for step, eta in ((1, ""), (32, " | eta 68 s"), (63, " | eta 37 s"))
    ]
    assert said.err == ""


def test_what_takes_long_is_said_within_five_seconds_with_how_far_it_is(
    monkeypatch, capsys, tmp_path
):
    clock = moved(monkeypatch)
    it, watchdog = Status(), Watchdog(tmp_path, 0, 1, 99.0)
    progress.spoke()
    watchdog.enter("validating", 1000, 16)
    for second in range(8):
        clock[0] += 1
        watchdog.touch()
        if second % 2:
            it.look(watchdog)  # as the watchdog's thread does
    watchdog.enter("updating", 1001)
    it.look(watchdog)
    said = capsys.readouterr().out
    assert said == ("validating, step 1,000: 4 of 16, 4 s\nvalidating, step 1,000: 8 of 16, 8 s\n")
    assert status.SILENCE + 2 <= 5  # the watchdog looks every two seconds


@pytest.mark.slow
def test_a_call_that_cannot_say_how_far_it_is_says_how_long_it_takes(monkeypatch, capsys):
    monkeypatch.setattr(progress, "EVERY", 0.2)
    monkeypatch.setattr(progress, "LOOKS", 0.05)
    with progress.waiting("learning"):
        time.sleep(0.5)
    with progress.waiting("loading", speaks=False):
        time.sleep(0.3)
    said = capsys.readouterr().err.splitlines()
    assert said
    assert set(said) <= {"learning: 0 s", "learning: 1 s"}


def on_a_terminal(place, *words: str) -> tuple[int, str]:
    """Exit code and all that a terminal of 110 columns gets of a command."""
    own, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 110, 0, 0))
    variables = {"JANUSLM_PYTHON": sys.executable, "OMP_NUM_THREADS": "1", "TERM": "xterm"}
    command = ["bash", str(ROOT / "launch.sh"), *words]
    process = subprocess.Popen(
        command, cwd=place, env=os.environ | variables, stdout=theirs, stderr=theirs
    )
    os.close(theirs)
    said = b""
    while True:
        try:
            block = os.read(own, 1 << 16)
        except OSError:  # so Linux says that nobody writes any more
            break
        if not block:
            break
        said += block
    os.close(own)
    return process.wait(timeout=60), said.decode()


@pytest.mark.slow
def test_a_terminal_has_a_live_line_and_the_logs_have_not(tmp_path):
    place = built(tmp_path)
    changes = ("train.steps=40", "train.validate_every=20", "out=run")
    code, said = on_a_terminal(place, "pretrain", "run.toml", "--gpus", "2", *changes)
    assert code == 0, said
    drawn = [part for part in said.split(live.CLEARED) if "% |" in part]
    assert any("/40 | loss " in part and "█" in part and " tok/s" in part for part in drawn), drawn
    assert max(map(len, drawn)) < 110
    assert not live.IN_A_LOG.search(said), "the live line has said it"
    kept = said.replace(live.CLEARED, "\n")
    for line in ("validation at step 20 | loss ", "done: step 40, loss "):
        assert line in kept
    assert said.rstrip().rpartition("\n")[2].replace(live.CLEARED, "") == "", "it is cleared"
    logs = [path.read_text() for path in sorted((place / "run" / "logs").iterdir())]
    assert "step 40/40 | loss " in logs[0]
    assert "done: step 40, loss " in logs[0]
    assert not [log for log in logs if ESCAPE in log or "█" in log]
    rows = [json.loads(row) for row in (place / "run" / "valid.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [0, 20, 40]
