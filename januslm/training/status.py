"""How far a run is, as people see it: a live line on a terminal, a line now and then elsewhere."""

import math
import sys
import time
from collections.abc import Mapping

from januslm.cli import live
from januslm.cli.progress import duration, silence, spoke
from januslm.training.pace import Pace
from januslm.training.watchdog import Watchdog

EVERY = 30.0  # seconds between two lines that say how far training is
SILENCE = 2.5  # seconds without a word until one says what is under way, where it is not training
TRAINING = ("updating", "waiting for its data")  # phases of the watchdog's that repeat


class Status:
    """Speaks only where `first` is true (rank 0).  The live line is never in a log."""

    def __init__(self, first: bool = True):
        self.first = first
        self.screen: live.Terminal | live.Pipe | None = live.screen() if first else None
        self.reported = -math.inf  # when a line has said how far training is
        self.drawn = -math.inf
        self.pace = Pace(time.monotonic())

    def line(self, text: str) -> None:
        """One line for people, above the live one."""
        if self.screen is None:
            return
        spoke()
        with self.screen.above():
            print(text, flush=True)

    def look(self, watchdog: Watchdog) -> None:
        """Where nobody has said anything for a while, say what is under way; from any thread."""
        if self.screen is None or watchdog.over.is_set():
            return
        training = watchdog.phase in TRAINING and math.isfinite(self.reported)
        if silence() < (EVERY if training else SILENCE):
            return
        text = _under_way(watchdog)
        if self.screen.on:
            spoke()
            self.screen.draw(live.State(text, watchdog.done, watchdog.total))
        else:
            self.line(text)

    def trained(
        self, step: int, steps: int, validations: int, result: Mapping, skipped: int, say: bool
    ) -> None:
        """What an update has come to.  validations: still to come.  say: in a line, too."""
        if self.screen is None:
            return
        now = time.monotonic()
        due = say or now - self.reported > EVERY
        draw = self.screen.on and (due or now - self.drawn > live.REDRAWN)
        if not due and not draw:
            return
        left = self.pace.left(steps - step, validations, now)
        speed = f"{self.pace.tokens_per_second(now):,.0f} tok/s"
        eta = "" if left is None else f"eta {duration(left)}"
        terms = " ".join(f"{name} {value:.3f}" for name, value in result["terms"].items())
        lost = f"{skipped} skipped" if skipped else ""
        loss = f"loss {result['loss']:.4f}"
        if due:
            self.reported = now
            rate = f"lr {result['lr']:.2e}"
            parts = (f"step {step:,}/{steps:,}", loss, terms, rate, speed, lost, eta)
            if not self._drawn_beside():
                self.line(_joined(parts))
        if draw:
            self.drawn = now
            spoke()
            text = _joined((f"{step:,}/{steps:,}", loss, speed, lost, eta, terms))
            self.screen.draw(live.State(text, step, steps))

    def _drawn_beside(self) -> bool:
        """Whether lines go to the very terminal that has the live one, which says the same."""
        own = isinstance(self.screen, live.Terminal) and self.screen.on
        return own and sys.stdout.isatty()

    def end(self) -> None:
        """No live line any more."""
        if self.screen is not None:
            self.screen.clear()


def _under_way(watchdog: Watchdog) -> str:
    """validating, step 1,000: 3 of 16, 12 s."""
    step = f", step {watchdog.step:,}" if watchdog.step else ""
    part = f"{watchdog.done:,} of {watchdog.total:,}, " if watchdog.total else ""
    return f"{watchdog.phase}{step}: {part}{duration(time.monotonic() - watchdog.entered)}"


def _joined(parts: tuple[str, ...]) -> str:
    return " | ".join(part for part in parts if part)
