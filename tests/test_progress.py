"""How far a long command is, as a person reads it on a terminal and in a log."""

import sys
import time

from januslm.cli import progress
from januslm.cli.progress import Progress, duration


def moved(monkeypatch) -> list[float]:
    """The clock in the test's hands: seconds, in a list of one."""
    clock = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    return clock


def test_a_log_has_a_line_every_four_seconds_with_pace_and_time_left(monkeypatch, capsys):
    clock = moved(monkeypatch)
    it = Progress("build", 4000, "pairs", before=1000)
    for second in range(13):
        clock[0] = 100.0 + second
        it.show(1000 + 100 * second, "2 M tokens" if second > 9 else "")
    it.end()
    assert capsys.readouterr().err == (
        "build: 1,400/4,000 pairs | 100 a second | eta 26 s\n"
        "build: 1,800/4,000 pairs | 100 a second | eta 22 s\n"
        "build: 2,200/4,000 pairs | 100 a second | eta 18 s | 2 M tokens\n"
    )


def test_a_phase_has_a_pace_of_its_own_and_nothing_done_has_none(monkeypatch, capsys):
    clock = moved(monkeypatch)
    it = Progress("build", 10, "parts")
    clock[0] += progress.EVERY
    it.show(0)
    it.phase(4, "shards")
    clock[0] += 2 * progress.EVERY
    it.show(3)
    assert capsys.readouterr().err == (
        "build: 0/10 parts\nbuild: 3/4 shards | 0.38 a second | eta 3 s\n"
    )


def test_a_terminal_has_one_line_that_is_cleared(monkeypatch, capsys):
    clock = moved(monkeypatch)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setenv("TERM", "xterm")
    it = Progress("verify", 2)
    clock[0] += 1
    it.show(1)
    it.end()
    line = " 50% |█████     | verify: 1/2 | 1 a second | eta 1 s"
    assert capsys.readouterr().err == f"\r\x1b[K{line}\r\x1b[K"


def test_times_are_written_as_people_say_them():
    assert [duration(s) for s in (5, 130, 7500)] == ["5 s", "2 m", "2 h 5 m"]
