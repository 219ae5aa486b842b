"""The verbs that train: look at the hosts, start their ranks, see them end, start anew."""

import importlib.util
import os
import sys
from collections.abc import Sequence
from itertools import chain, repeat

from januslm.cli.command import program
from januslm.cli.live import State, Terminal
from januslm.config import Refused
from januslm.launch import preflight, remote, signals
from januslm.launch.commands import Options, code_of, need
from januslm.launch.environment import of_ranks
from januslm.launch.job import HERE, Job, planned, spread
from januslm.launch.remote import Events, Hosts, Stopped
from januslm.launch.restarts import restarted
from januslm.launch.supervision import RESUME, Ended, Supervision

GRACE = 600.0  # seconds that ranks have for saving, unless they make a step meanwhile


def train(verb: str, words: Sequence[str], options: Options) -> int:
    """Pretrain or fine-tune: 0 done, 2 a mistake, 85 stopped and saved, 1 anything else.

    Refused before DeepSpeed or torch are imported, where it can be.
    """
    job = planned(verb, words, options)
    if options.dry:
        job.show()
        return _estimate(job)
    if list(job.hosts) == [HERE]:
        need("torch", "deepspeed")
    events: Events = Events()
    grace = _grace()
    with signals.received(events):
        jobs = chain([job], repeat(job.again))
        start = lambda: _started(next(jobs), events, grace)  # noqa: E731
        ended = restarted(start, options.restarts, events, log_line)
    if ended.reason:
        log_line(ended.reason)
    return ended.code


def _estimate(job: Job) -> int:
    """What the run will take, as a process of it sees it here."""
    if any(importlib.util.find_spec(name) is None for name in ("torch", "numpy")):
        print(f"# what it takes is shown once the environment is there: {program()} setup")
        return 0
    command = [sys.executable, "-P", *job.command, "--estimate", str(job.world)]
    return code_of(command, of_ranks(next(iter(job.hosts.values()))))


def _started(job: Job, events: Events, grace: float) -> Ended:
    """One start, from the first look at the hosts to the end of the last rank."""
    sys.stdout.flush()
    screen = Terminal()
    screen.draw(State("starting"))
    with Hosts(job.hosts, events) as hosts:
        try:
            meeting, found = preflight.ready(hosts, job)
        except Stopped:
            return Ended(RESUME, "stopped before anything was started")
        finally:
            screen.clear()
        for one in found:
            for warning in one.warnings:
                log_line(f"{one.host}: {warning}")
        ways = {one.host: one.interface.strip("-?") for one in found if len(found) > 1}

        def line(text: str) -> None:
            with screen.above():
                log_line(text)

        return Supervision(hosts, job, meeting, grace, line, screen).run(ways)


def _grace() -> float:
    given = os.environ.get("JANUSLM_GRACE", "")
    try:
        found = float(given or GRACE)
    except ValueError:
        found = -1.0
    if not 0 <= found < float("inf"):
        raise Refused(f"JANUSLM_GRACE must be a number of seconds, got {given!r}")
    return found


def check_hosts(words: Sequence[str], options: Options) -> int:
    """launch check [VERB RUN key=value ...]: the table of all hosts; 2 if something is wrong."""
    if not options.hostfile:
        raise Refused("launch check needs --hostfile FILE")
    verb, *rest = words or [""]
    if verb not in ("", "pretrain", "finetune"):
        raise Refused(f"launch check takes pretrain RUN or finetune RUN, got {verb!r}")
    job = planned(verb, rest, options) if verb else Job("", (), spread(options))
    if options.dry:
        for host in job.hosts:
            print(*remote.command(host))
        return 0
    events: Events = Events()
    with signals.received(events), Hosts(job.hosts, events) as hosts:
        try:
            text, well = preflight.table(hosts, job)
        except Stopped:
            return 130
    print(text, flush=True)
    return 0 if well else 2


def log_line(text: str) -> None:
    """A line for people on stderr, bold on a terminal."""
    print(f"\033[1m{text}\033[0m" if sys.stderr.isatty() else text, file=sys.stderr, flush=True)
