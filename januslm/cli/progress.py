"""How far a long command is: a live line on a terminal, a line every few seconds in a log."""

import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from januslm.cli import live

EVERY = 4.0  # seconds between lines in a log
LOOKS = 0.5  # seconds between two looks at what cannot say how far it is

_last = time.monotonic()  # when this process has said something


def spoke() -> None:
    """This process has said something to people."""
    global _last
    _last = time.monotonic()


def silence() -> float:
    """Seconds since then."""
    return time.monotonic() - _last


class Progress:
    """`show` as often as you like; it writes no more often than a reader wants.

    A line on stderr: what: 1,200/4,000 pairs | 240 a second | eta 12 s.
    """

    def __init__(self, what: str, total: int = 0, unit: str = "", before: int = 0):
        """total: of what `show` counts, in `unit`.  before: done by an earlier process."""
        self.what, self.started = what, time.monotonic()
        self._screen, self._last = live.screen(), self.started
        self.phase(total, unit, before)

    def phase(self, total: int, unit: str, before: int = 0) -> None:
        """From here on count something else, with a pace of its own."""
        self.total, self.unit, self.before, self._began = total, unit, before, time.monotonic()

    @property
    def seconds(self) -> float:
        """Since the start."""
        return time.monotonic() - self.started

    def show(self, done: int, note: str = "") -> None:
        """How far it is: `done` of the total, those before counted in."""
        now = time.monotonic()
        if self._due(now):
            line = f"{self.what}: {self._line(done, now)}" + (f" | {note}" if note else "")
            self._write(live.State(line, done, self.total))

    def wait(self) -> None:
        """How long it takes already, where that is all there is to say."""
        if self._due(time.monotonic()):
            self._write(live.State(f"{self.what}: {duration(self.seconds)}"))

    def _due(self, now: float) -> bool:
        if now - self._last < (live.REDRAWN if self._screen.on else EVERY):
            return False
        self._last = now
        return True

    def _write(self, state: live.State) -> None:
        spoke()
        if self._screen.on:
            self._screen.draw(state)
        else:
            sys.stderr.write(f"{state.text}\n")
            sys.stderr.flush()

    def _line(self, done: int, now: float) -> str:
        parts = [f"{done:,}/{self.total:,} {self.unit}".rstrip()]
        mine, spent = done - self.before, now - self._began
        if mine > 0 and spent > 0:
            pace = mine / spent
            shown = f"{pace:,.0f}" if pace >= 10 else f"{pace:.2g}"
            parts += [f"{shown} a second", f"eta {duration((self.total - done) / pace)}"]
        return " | ".join(parts)

    def end(self) -> None:
        """Clear the line that was being redrawn."""
        self._screen.clear()


@contextmanager
def waiting(what: str, speaks: bool = True) -> Iterator[None]:
    """Say now and then that `what`, a call that cannot tell how far it is, goes on.

    speaks: not in every process of several.
    """
    if not speaks:
        yield
        return
    progress, over = Progress(what), threading.Event()

    def look() -> None:
        while not over.wait(LOOKS):
            progress.wait()

    thread = threading.Thread(target=look, daemon=True, name="waiting")
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
        progress.end()


def duration(seconds: float) -> str:
    """A time as people say it: 42 s, 3 m, 2 h 5 m."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} m" if minutes < 90 else f"{minutes // 60} h {minutes % 60} m"
