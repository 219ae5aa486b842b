"""Starting anew after a failure: a few times, later and later, and never twice at the same step."""

import queue
import time
from collections.abc import Callable

from januslm.launch.remote import Events
from januslm.launch.supervision import FAILED, RESUME, Ended

FIRST_WAIT = 5.0  # seconds; twice as many before each further start
LONGEST_WAIT = 600.0


def restarted(
    start: Callable[[], Ended], times: int, events: Events, log_line: Callable[[str], None]
) -> Ended:
    """Start, and at most so many times again; how the last one ended.

    A mistake and a stop are final, and so is a failure at the step at which the one before failed:
    what is wrong there would be wrong again.
    """
    ended = start()
    for number in range(times):
        if ended.code != FAILED:
            break
        seconds = min(FIRST_WAIT * 2**number, LONGEST_WAIT)
        log_line(ended.reason)
        log_line(f"restart {number + 1} of {times} in {seconds:.0f} s")
        if _asked_to_stop(events, seconds):
            return Ended(RESUME, "stopped on request; the same command goes on")
        before, ended = ended, start()
        if ended.code == FAILED and ended.step == before.step:
            where = "its first update" if ended.step in (None, -1) else f"step {ended.step:,}"
            return Ended(
                FAILED, f"{ended.reason}; no restart: twice it came to {where}", ended.step
            )
    return ended


def _asked_to_stop(events: Events, seconds: float) -> bool:
    """Wait, unless a signal comes; what hosts of a former start still say is of no interest."""
    end = time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0:
        try:
            host, _ = events.get(timeout=left)
        except queue.Empty:
            return False
        if host is None:
            return True
    return False
