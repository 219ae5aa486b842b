"""A line that says how far a long command is: redrawn on a terminal, repeated in a log.

tqdm draws the former only: in a log its carriage returns make one line of thousands.
"""

import sys
import time

EVERY = 5.0  # seconds between lines in a log
REDRAWN = 0.2  # and on a terminal


class Progress:
    """`show` as often as you like; it writes no more often than a reader wants.

    A line on stderr: what: 1,200/4,000 pairs | 240 a second | eta 12 s.
    """

    def __init__(self, what: str, total: int = 0, unit: str = "", before: int = 0):
        """total: of what `show` counts, in `unit`.  before: done by an earlier process."""
        self.what, self.started = what, time.monotonic()
        self._terminal, self._last = sys.stderr.isatty(), self.started
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
        if now - self._last < (REDRAWN if self._terminal else EVERY):
            return
        self._last = now
        line = f"{self.what}: {self._line(done, now)}" + (f" | {note}" if note else "")
        sys.stderr.write(f"\r\x1b[K{line}" if self._terminal else f"{line}\n")
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
        if self._terminal:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()


def duration(seconds: float) -> str:
    """A time as people say it: 42 s, 3 m, 2 h 5 m."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} m" if minutes < 90 else f"{minutes // 60} h {minutes % 60} m"
