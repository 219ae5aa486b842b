"""A start from its first rank to its last: its lines, the signals it gets, and why it ended."""

import os
import re
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from januslm.cli import live
from januslm.cli.command import called
from januslm.launch.job import Job
from januslm.launch.preflight import Meeting
from januslm.launch.remote import Host, Hosts

DONE, FAILED, REFUSED, RESUME = 0, 1, 2, 85
BEAT = 5.0  # seconds between two words to hosts, and to the user while ranks start
SILENCE = 4.0  # seconds after which the user gets such a word
TWICE = 1.0  # seconds within which two signals are one: some programs send them so
FORCE = (signal.SIGINT, signal.SIGTERM)  # sent a second time, they end the run at once
NOISE = "real_accelerator.py"  # DeepSpeed says on each import which accelerator it took
NAMED = re.compile(r"error: rank \d+ on ")  # a rank that says it of another
# What a rank says that has lost another: hardly the reason why a run ended.
CONSEQUENCES = ("closed by peer", "reset by peer", "Broken pipe", "Connection refused")


@dataclass(frozen=True)
class Ended:
    """How a start ended; step: the last one of the rank that failed, None if it is not known."""

    code: int
    reason: str = ""  # a line for people
    step: int | None = None
    lost: bool = False  # a host is, and its ranks may still be saving


@dataclass(frozen=True)
class Exit:
    """The end of one rank."""

    host: str
    rank: int
    code: int  # negative: the signal that killed it
    step: int | None
    tail: list[str]  # its last lines on stderr
    asked: bool  # whether it had been asked to end

    @property
    def bad(self) -> bool:
        return self.code not in (DONE, RESUME)

    @property
    def consequence(self) -> bool:
        return any(word in line for line in self.tail for word in CONSEQUENCES)


@dataclass
class Supervision:
    """Follows the events of all hosts until each has said that its ranks are over, or is lost."""

    hosts: Hosts
    job: Job
    meeting: Meeting
    grace: float  # seconds that ranks have for saving when they are asked to stop
    log_line: Callable[[str], None]
    screen: live.Terminal = field(default_factory=live.Terminal)
    exits: list[Exit] = field(default_factory=list)
    refused: str = ""  # by a host that could not start its ranks
    lost: dict[str, str] = field(default_factory=dict)
    over: set[str] = field(default_factory=set)
    said: set[str] = field(default_factory=set)  # error lines
    stopped: signal.Signals | None = None
    stopped_at: float = 0.0
    killed: bool = False
    started: bool = False  # rank 0 has printed a line
    spoken: float = 0.0  # when we have printed or drawn something
    deaf: bool = False  # nobody reads what we print

    def run(self, interfaces: dict[str, str]) -> Ended:
        """Start the ranks and see them end.  interfaces: by host, that lead to the first one."""
        for name, host in self.hosts.all.items():
            host.order(
                "start",
                host=name,
                command=self.job.command,
                count=self.job.hosts[name],
                first=self.job.first[name],
                world=self.job.world,
                address=self.meeting.address,
                port=self.meeting.port,
                folder=self.meeting.folder,
                spread=interfaces.get(name, ""),
                grace=self.grace,
                live=self.screen.on,
            )
        began = beat = self.spoken = time.monotonic()
        while len(self.over | self.lost.keys()) < len(self.hosts.all):
            got = self.hosts.next(max(beat + BEAT - time.monotonic(), 0.01))
            if got:
                self._take(*got)
            if time.monotonic() >= beat + BEAT:
                beat = time.monotonic()
                self._all("beat")
                self._waits(beat - began)
        self.screen.clear()
        return self._verdict()

    def _waits(self, seconds: float) -> None:
        """Rank 0 has nothing to say yet, or no more."""
        if time.monotonic() < self.spoken + SILENCE or self.stopped:
            return
        if self.exits:
            number = self.job.world - len(self.exits)
            self._wait(f"ending, {number} of {self.job.world} ranks are left")
        elif not self.started:
            self._wait(f"starting, {seconds:.0f} s")

    def _wait(self, text: str) -> None:
        if self.screen.on:
            self.screen.draw(live.State(text))
        else:
            self._print(text)

    def _take(self, host: Host | None, event: dict) -> None:
        kind = event["event"]
        if host is None:
            self._signal(signal.Signals(event["number"]))
        elif kind == "line":
            self._line(host.name, event)
        elif kind == "live":
            self.spoken = time.monotonic()
            self.screen.draw(live.State(**event["state"]))
        elif kind == "note":
            self.log_line(f"{host.name}: {event['text']}")
        elif kind == "exit":
            fields = (event[key] for key in ("rank", "code", "step", "tail", "asked"))
            self.exits.append(Exit(host.name, *fields))
            if self.exits[-1].bad:
                self._all("end")
        elif kind == "start" and "refused" in event:
            self.refused = self.refused or self._where(host.name) + event["refused"]
            self.over.add(host.name)
            self._all("end")
        elif kind == "over":
            self.over.add(host.name)
        elif kind == "gone" and host.name not in self.over:
            self.lost[host.name] = host.why_gone
            self.log_line(f"{host.name}: {host.why_gone}; its ranks save and end by themselves")
            self._all("stop")

    def _signal(self, number: signal.Signals) -> None:
        """The first asks all ranks to save and end; Ctrl-C or SIGTERM once more ends them."""
        now = time.monotonic()
        if self.stopped is None:
            self.stopped, self.stopped_at = number, now
            self.log_line(f"{called(number)}: all ranks save and end; once more ends them at once")
            self._all("stop")
        elif number in FORCE and now > self.stopped_at + TWICE and not self.killed:
            self.killed = True
            self.log_line(f"{called(number)} once more: ended without saving")
            self._all("kill")

    def _all(self, order: str) -> None:
        for host in self.hosts.all.values():
            host.order(order)

    def _where(self, host: str) -> str:
        return f"{host}: " if len(self.job.hosts) > 1 else ""

    def _line(self, host: str, event: dict) -> None:
        text, rank = event["text"], event["rank"]
        if NOISE in text:
            return
        if text.startswith("error: "):
            if text in self.said:
                return
            self.said.add(text)
            who = "" if NAMED.match(text) else self.job.who(host, rank)
            text = f"error: {who}: {text.removeprefix('error: ')}" if who else text
        elif event["stream"] == "out":
            self.started = True
        if self.screen.on and sys.stdout.isatty() and live.IN_A_LOG.match(text):
            return
        self._print(text, sys.stderr if event["stream"] == "err" else sys.stdout)

    def _print(self, text: str, stream=None) -> None:
        """What cannot be printed is in the logs; a closed console ends no run."""
        self.spoken = time.monotonic()
        if self.deaf:
            return
        with self.screen.above():
            self._put(text, stream)

    def _put(self, text: str, stream=None) -> None:
        try:
            print(text, file=stream or sys.stdout, flush=True)
        except UnicodeEncodeError:
            print(ascii(text), file=stream or sys.stdout, flush=True)
        except OSError:
            self.deaf = True
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())

    def _verdict(self) -> Ended:
        bad = [one for one in self.exits if one.bad]
        folder = self.meeting.folder
        if self.refused:
            return Ended(REFUSED, f"error: {self.refused}")
        if self.killed:
            return Ended(FAILED, "the same command goes on from the last checkpoint")
        if self.stopped and any(one.code == -signal.SIGTERM for one in bad):
            return Ended(RESUME, f"{called(self.stopped)}: stopped before an update was made")
        if bad:
            return self._failure(bad)
        if self.lost:
            saved = any(one.code == RESUME for one in self.exits)
            what = "; ".join(f"{host}: {why}" for host, why in self.lost.items())
            end = f"the same command goes on from {folder}"
            return Ended(RESUME if saved else FAILED, f"{what}; {end}", lost=True)
        if any(one.code == RESUME for one in self.exits):
            why = f" ({called(self.stopped)})" if self.stopped else ""
            return Ended(RESUME, f"stopped on request{why}; the same command goes on from {folder}")
        return Ended(DONE)

    def _failure(self, bad: list[Exit]) -> Ended:
        """Of all that failed, the one that did so by itself and first."""
        own = [one for one in bad if not one.asked] or bad
        order = [one.code == REFUSED for one in own], [one.code < 0 for one in own]
        ranked = sorted(
            range(len(own)),
            key=lambda at: (not order[0][at], own[at].consequence, not order[1][at], at),
        )
        first = own[ranked[0]]
        if first.code == REFUSED:
            return Ended(REFUSED, "", first.step)
        who = self.job.who(first.host, first.rank) or "the run"
        what = f"failed with code {first.code}"
        if first.code < 0:
            what = f"was killed by {called(signal.Signals(-first.code))}"
        elif any(line.startswith("error: ") for line in first.tail):
            who, what = "the run", "ended"  # the line has been printed, and may blame another rank
        else:
            self._show_tail(first)
        began = first.step is not None and first.step >= 0
        when = f"at step {first.step:,}" if began else "before its first update"
        if first.step is None and self.started:
            when = "without finishing"
        others = len(bad) - 1
        more = f"; {others} other rank{'s' * (others > 1)} ended with it" if others else ""
        hint = "the same command goes on from its last checkpoint"
        if when == "before its first update" and first.code > 0:
            hint = "the lines above say why"
        line = f"{who} {what} {when}{more}; {hint}"
        return Ended(FAILED, line, first.step, bool(self.lost))

    def _show_tail(self, first: Exit) -> None:
        """Rank 0's lines are on the console already."""
        if first.rank == 0 or first.code < 0 or not first.tail:
            return
        log = Path(self.meeting.folder, "logs", f"rank-{first.rank:05d}.log")
        who = self.job.who(first.host, first.rank)
        self._print(f"the last lines of {who} (all: {log}):", sys.stderr)
        for line in first.tail:
            self._print(f"  {line}", sys.stderr)
