"""A line that says how far a long command is: redrawn on a terminal, repeated in a log."""

import sys
import time

EVERY = 5.0  # seconds between lines in a log


class Progress:
    """`show` as often as you like; it writes no more often than a reader wants."""

    def __init__(self, task: str):
        self.task, self.started = task, time.monotonic()
        self._terminal, self._last = sys.stderr.isatty(), time.monotonic()

    @property
    def seconds(self) -> float:
        """Since the start."""
        return time.monotonic() - self.started

    def show(self, text: str) -> None:
        """How far it is."""
        now = time.monotonic()
        if now - self._last < (0.2 if self._terminal else EVERY):
            return
        self._last = now
        line = f"{self.task}: {text}, {self.seconds:.0f} s"
        sys.stderr.write(f"\r\x1b[K{line}" if self._terminal else f"{line}\n")
        sys.stderr.flush()

    def end(self) -> None:
        """Clear the line that was being redrawn."""
        if self._terminal:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()
