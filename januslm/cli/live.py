"""A line at the bottom of a terminal that says how far a command is, below all others.

A rank of a run writes into its launcher's pipe: it hands what is to be drawn to the descriptor in
$JANUSLM_LIVE, and the launcher, which has the terminal, draws it.
"""

import json
import os
import re
import shutil
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass

VARIABLE = "JANUSLM_LIVE"
REDRAWN = 0.2  # seconds between two drawings
CLEARED = "\r\x1b[K"
NARROW = 100  # columns; a narrower terminal has a shorter bar
# What a line in a log says of an update: nothing that a live line has not said.
IN_A_LOG = re.compile(r"step [\d,]+/[\d,]+ \| ")


@dataclass(frozen=True)
class State:
    """How far something is.  total 0: nobody knows; the line then has no bar."""

    text: str = ""
    done: int = 0
    total: int = 0

    def line(self, columns: int) -> str:
        """In one line of at most so many columns, the end of a long text cut off."""
        if not self.total:
            return self.text if len(self.text) <= columns else self.text[: columns - 1] + "…"
        from tqdm import tqdm  # here: the launcher starts, and refuses, without any package

        width = 10 if columns < NARROW else 20
        layout = f"{{percentage:3.0f}}% |{{bar:{width}}}| {{desc}}"
        line = tqdm.format_meter(
            min(self.done, self.total), self.total, 0, prefix=self.text, bar_format=layout
        )
        return line if len(line) <= columns else line[: columns - 1] + "…"


class Terminal:
    """The line on stderr, where that is a terminal; else it draws nothing."""

    def __init__(self) -> None:
        self.on = sys.stderr.isatty() and os.environ.get("TERM") != "dumb"
        self.state: State | None = None
        self.lock = threading.RLock()

    def draw(self, state: State) -> None:
        """In the place of what was drawn before."""
        if self.on:
            with self.lock:
                self.state = state
                self._put(CLEARED + state.line(max(shutil.get_terminal_size().columns - 1, 20)))

    def clear(self) -> None:
        """Leave nothing."""
        with self.lock:
            if self.state is not None:
                self._put(CLEARED)
            self.state = None

    @contextmanager
    def above(self) -> Iterator[None]:
        """What is printed meanwhile stands above the line, which the next draw() brings back."""
        with self.lock:
            self.clear()
            yield

    def _put(self, text: str) -> None:
        try:
            sys.stderr.write(text)
            sys.stderr.flush()
        except UnicodeEncodeError:  # a terminal without blocks
            sys.stderr.write(text.encode("ascii", "replace").decode())
        except OSError:  # a closed one
            self.on = False


class Pipe:
    """The launcher's terminal; what it does not take at once is left out."""

    on = True

    def __init__(self, descriptor: int):
        self.descriptor = descriptor
        os.set_blocking(descriptor, False)

    def draw(self, state: State) -> None:
        with suppress(OSError):  # full, or nobody is there any more
            os.write(self.descriptor, json.dumps(asdict(state)).encode() + b"\n")

    def clear(self) -> None:
        self.draw(State())

    @contextmanager
    def above(self) -> Iterator[None]:
        """The launcher sees to it."""
        yield


def screen() -> Terminal | Pipe:
    """Where this process draws."""
    given = os.environ.get(VARIABLE, "")
    if given.isdecimal():
        with suppress(OSError):
            return Pipe(int(given))
    return Terminal()
