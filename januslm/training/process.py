"""One process of a training run, from its first collective to its exit code."""

import sys
import traceback
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from januslm.cli.paths import SPREADS, shipped
from januslm.cli.progress import waiting
from januslm.config import Refused
from januslm.training import begin, history
from januslm.training.agreement import agree
from januslm.training.begin import REFUSED, Begun
from januslm.training.ds_config import precision, read
from januslm.training.engine import RESUME, World, connect, leave
from januslm.training.job import Job
from januslm.training.machine import StopRequest
from januslm.training.status import Status
from januslm.training.trainer import Guards, RunPlan, train
from januslm.training.watchdog import START, Watchdog

FAILED = 1  # exit code: anything that is neither the user's mistake nor a stop
MARGIN = 60.0  # seconds that a collective waits longer than the watchdog, which knows more


def spread(asked: str, world: World) -> Path:
    """The file of ds_configs/ that was asked for, else the usual one for this machine."""
    usual = "zero1_bf16" if world.device.type == "cuda" else "cpu_fp32"
    return Path(shipped(asked or usual, SPREADS))


def run_process(
    begun: Begun,
    build: Callable[[Any, World], tuple[RunPlan, Job]],
) -> int:
    """Join the ranks, train, and return the exit code.

    0 done, 85 stopped and saved, 2 refused, 1 anything else.  build makes what resolving does not.
    """
    process = _Process(begun)
    try:
        code = process.run(build)
        process.status.end()
    except Refused as error:
        process.status.end()
        code = process.refuse(str(error))
    except BaseException as error:  # shown as Python would, but ended as `leave` does
        if process.watchdog:
            process.watchdog.hold()
        process.status.end()
        traceback.print_exc()
        code = FAILED
        process.note_stop(code, "".join(traceback.format_exception_only(error)).strip())
    if process.watchdog:
        process.watchdog.stop()
    leave(code)


class _Process:
    """What there is to clear up, and to tell, however far this process came."""

    def __init__(self, begun: Begun):
        self.begun = begun
        self.folder = Path(begun.resolved.run.out)
        self.watchdog: Watchdog | None = None
        self.status = Status(bool(begun.lock))

    def run(self, build: Callable) -> int:
        resolved, stop = self.begun.resolved, StopRequest()
        limit = resolved.run.train.timeout
        with stop.leaving(_left), waiting("starting DeepSpeed", self.status.first):
            world = connect(minutes=(max(limit, START) + MARGIN) / 60)

        def look() -> None:
            stop.look()
            if self.watchdog:
                self.status.look(self.watchdog)

        with stop.listening():
            self.watchdog = Watchdog(
                self.folder, world.rank, world.size, limit, look, self._hung
            ).start()
            ds = spread(resolved.about["ds"], world)
            shared = resolved.fingerprint
            hosts = self.watchdog.hosts = agree(world, _facts(shared, ds, world))
            self.watchdog.enter("making its data and its model", 0)
            plan, job = build(resolved, world)
            facts = {"hosts": hosts, "code": shared["code"], "versions": shared["versions"]}
            lock, start = self.begun.lock, self.begun.start
            guards = Guards(stop, self.watchdog, self.status, lock, start, facts)
            outcome = train(plan, job, world, guards)
        if outcome.reason:
            self.note_stop(outcome.code, outcome.reason, outcome.step)
        return outcome.code

    def refuse(self, text: str) -> int:
        """One line, in one rank of those that met with the same mistake."""
        self.note_stop(REFUSED, text)
        say = not self.watchdog or self.watchdog.first_to_say(text)
        return begin.refused(text, say)

    def note_stop(self, code: int, reason: str, step: int | None = None) -> None:
        """Into the run's history, by rank 0; a full disk is borne."""
        if self.begun.lock:
            self._note(code, reason, step)

    def _note(self, code: int, reason: str, step: int | None = None) -> None:
        at = self.watchdog.step if step is None and self.watchdog else step
        with suppress(OSError):
            history.add(self.folder, "stop", step=at, code=code, reason=reason[:2000])

    def _hung(self, line: str) -> None:
        self._note(FAILED, line)


def _left(reason: str) -> None:
    """Leave before the ranks have met: there is nothing to save yet."""
    sys.stdout.write(f"stopped by {reason} before the ranks had met\n")
    leave(RESUME)


def _facts(fingerprint: dict, ds: Path, world: World) -> dict:
    """All that every rank must share, with what only a started process knows."""
    table = read(ds)
    device = {"type": world.device.type, "precision": precision(table)}
    return fingerprint | {"ds_config": table, "device": device}
