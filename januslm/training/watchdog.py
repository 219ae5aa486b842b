"""A thread in every rank that ends a run which no longer gets anywhere, and says who is to blame.

Each rank tells a store, every few seconds, what it is doing and when it last got on.  Rank 0 reads
what all say; its verdict is read by all.  Who hears nothing of rank 0 ends by itself.
"""

import faulthandler
import hashlib
import json
import os
import socket
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import TextIO

from torch.distributed import DistStoreError, TCPStore

SILENCE = 60.0  # seconds without a sign of life of a rank, where the limit is not shorter
BEAT = 2.0  # seconds between two signs of life, at most
START = 600.0  # seconds that each step of a start may take at least: imports, compilers
ASKING = 5.0  # seconds from the first rank's end to the last's, where all fail at once
HUNG = 1  # exit code


class Watchdog:
    """enter() and touch() say that this rank got on; whoever does not for `limit` s is ended.

    Until the first update has ended, a step may take START s.

    address, port: where the ranks meet.  look: called at each beat.  ended: called with the line
    that says why, before this process ends, in one rank.
    """

    def __init__(
        self,
        folder: Path,
        rank: int,
        size: int,
        limit: float,
        look: Callable[[], None] = lambda: None,
        ended: Callable[[str], None] = lambda line: None,
    ):
        self.folder, self.rank, self.size, self.limit = Path(folder), rank, size, limit
        self.look, self.ended = look, ended
        self.allowed = max(limit, START)  # seconds, for what is under way
        self.silence = min(SILENCE, limit)
        self.beat = min(BEAT, self.silence / 5)
        self.serial, self.phase, self.step = 0, "starting", 0
        self.done, self.total = 0, 0  # of what is under way, where its parts are known
        self.moved = self.entered = time.monotonic()
        self.numbers = 0  # beats so far
        self.beats: dict[int, tuple[int, float]] = {}  # rank -> its last beat, and when it came
        self.last: dict[int, dict] = {}  # rank -> what it said then
        self.hosts: Sequence[str] = ()  # of each rank, once all have agreed
        self.over = threading.Event()
        self.file: TextIO | None = None
        self.store: TCPStore | None = None
        self.verdict, self.fresh = "", time.monotonic()

    def start(self) -> "Watchdog":
        """Begin, once the ranks have met."""
        self.moved = self.fresh = time.monotonic()
        if self.size > 1:
            address, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
            patience = timedelta(seconds=max(self.silence / 2, 1))
            self.store = TCPStore(address, port, is_master=False, timeout=patience)
            threading.Thread(target=self._talk, daemon=True, name="watchdog's store").start()
        threading.Thread(target=self._watch, daemon=True, name="watchdog").start()
        return self

    def stop(self) -> None:
        """The run has ended by itself."""
        self.over.set()
        faulthandler.cancel_dump_traceback_later()

    def enter(self, phase: str, step: int, total: int = 0) -> None:
        """Something new is begun, on every rank in the same order.  total: of its parts."""
        self.phase, self.step, self.serial = phase, step, self.serial + 1
        self.done, self.total = 0, total
        self.moved = self.entered = time.monotonic()

    def updated(self) -> None:
        """An update has ended."""
        self.allowed = self.limit
        self.touch()

    def hold(self) -> None:
        """For whoever fails: wait for the end, where this run is being ended and all will fail."""
        if self.verdict:
            time.sleep(10 * self.beat)

    def touch(self) -> None:
        """What is under way has got on, by one of its parts."""
        self.done += 1
        self.moved = time.monotonic()

    def first_to_say(self, text: str) -> bool:
        """True in one rank of all that ask with the same text; and where nobody can be asked.

        The store ends with rank 0, which therefore stays until all have asked, or ASKING s.
        """
        if self.store is None:
            return True
        key, end = f"januslm/said/{_key(text)}", time.monotonic() + ASKING
        try:
            first = self.store.add(key, 1) == 1
            while not self.rank and time.monotonic() < end and self.store.add(key, 0) < self.size:
                time.sleep(0.02)
        except (DistStoreError, RuntimeError):
            return True
        return first

    def _watch(self) -> None:
        """The clock: it waits for nobody, not even for the store."""
        while not self.over.wait(self.beat):
            self.look()
            # Where even this thread cannot run, since a call holds the interpreter: C's thread.
            faulthandler.dump_traceback_later(
                self.allowed + SILENCE, exit=True, file=self._stacks_file()
            )
            if self.store is None:
                self._judge_alone()
            elif self.verdict:
                # Rank 0 gives the others time to hear it before its store ends with it; they wait
                # for that, since the first to end makes the others fail.
                self._end(self.verdict, speak=self.rank == 0, patience=2 + bool(self.rank))
            elif self.rank and time.monotonic() - self.fresh > self.silence:
                self._end(
                    f"{self._rank0()}, while rank {self.rank} on {_host()} was {self._doing()}"
                )

    def _talk(self) -> None:
        """Says what this rank does and hears the verdict on all; a store that is gone may block."""
        last = -1
        while not self.verdict and not self.over.wait(self.beat):
            with suppress(DistStoreError, RuntimeError, ValueError):
                found = self._exchange()
                if found["number"] != last:
                    last, self.fresh = found["number"], time.monotonic()
                self.verdict = found["line"]

    def _rank0(self) -> str:
        return f"rank 0 on {self._host_of(0)} is silent for {self.silence:.0f} s"

    def _host_of(self, rank: int) -> str:
        if self.hosts:
            return self.hosts[rank]
        return self.last[rank]["host"] if rank in self.last else "an unknown host"

    def _doing(self) -> str:
        return f"{self.phase}, step {self.step:,}"

    def _exchange(self) -> dict:
        """Say what this rank does, and hear the verdict on all; rank 0 makes it."""
        assert self.store is not None
        self.numbers += 1
        said = {
            "number": self.numbers,
            "host": _host(),
            "doing": self._doing(),
            "serial": self.serial,
            "idle": time.monotonic() - self.moved,
        }
        self.store.set(f"januslm/beat/{self.rank}", json.dumps(said))
        if self.rank:
            if not self.store.check(["januslm/verdict"]):
                return {"number": 0, "line": ""}
            found = json.loads(self.store.get("januslm/verdict"))
            self.last[0] = found["rank 0"]
            return found
        verdict = {"number": self.numbers, "line": self._judge(said), "rank 0": said}
        self.store.set("januslm/verdict", json.dumps(verdict))
        return verdict

    def _judge(self, said: dict) -> str:
        """Rank 0's look at all: the line that ends the run, or ""."""
        assert self.store is not None
        now = time.monotonic()
        keys = [f"januslm/beat/{rank}" for rank in range(self.size)]
        if not self.beats:
            self.beats = {rank: (0, now) for rank in range(self.size)}
        # Before its first beat a rank has no key; afterwards one question is enough for all.
        there = [rank for rank in range(self.size) if rank in self.last] or [0]
        new = [r for r in range(self.size) if r not in self.last and self.store.check([keys[r]])]
        asked = sorted({*there, *new})
        for rank, text in zip(asked, self.store.multi_get([keys[r] for r in asked]), strict=True):
            self.last[rank] = found = json.loads(text)
            if found["number"] != self.beats[rank][0]:
                self.beats[rank] = found["number"], now
        silent = [rank for rank, (_, when) in self.beats.items() if now - when > self.silence]
        if silent:
            return self._silent(silent)
        idle = min(one["idle"] for one in self.last.values())
        if idle <= self.allowed or len(self.last) < self.size:
            return ""
        return self._behind(idle)

    def _silent(self, ranks: list[int]) -> str:
        rank = ranks[0]
        doing = self.last[rank]["doing"] if rank in self.last else "never"
        more = f"; so are {len(ranks) - 1} others" if len(ranks) > 1 else ""
        return (
            f"rank {rank} on {self._host_of(rank)} is silent for {self.silence:.0f} s, at its last "
            f"beat: {doing}{more}"
        )

    def _behind(self, idle: float) -> str:
        last = min(one["serial"] for one in self.last.values())
        behind = [rank for rank, one in sorted(self.last.items()) if one["serial"] == last]
        one = self.last[behind[0]]
        if len(behind) == self.size:
            who = f"all {self.size} ranks stand, rank 0 on {one['host']}"
        else:
            more = f" and {len(behind) - 1} others" if len(behind) > 1 else ""
            who = f"rank {behind[0]} on {one['host']}{more} is behind"
        return f"no rank got on for {idle:.0f} s: {who}, {one['doing']}"

    def _judge_alone(self) -> None:
        idle = time.monotonic() - self.moved
        if idle > self.allowed:
            self._end(f"rank 0 on {_host()} did not get on for {idle:.0f} s, {self._doing()}")

    def _end(self, line: str, speak: bool = True, patience: int = 0) -> None:
        """Stacks into the rank's log, the line for people, and the end of this process."""
        if self.over.is_set():
            return
        line = f"error: {line}; train.timeout = {self.limit:g} s, stacks in {self._log_path()}"
        faulthandler.cancel_dump_traceback_later()
        try:
            file = self._stacks_file()
            print(line, file=file, flush=True)
            faulthandler.dump_traceback(file)
            file.flush()
        except OSError as error:
            print(f"no stacks: {error}", file=sys.stderr)
        if speak:
            if self.rank < 2:  # rank 1, where it is rank 0 that is gone
                self.ended(line)
            print(line, file=sys.stderr, flush=True)
        time.sleep(patience * self.beat)
        os._exit(HUNG)

    def _log_path(self) -> Path:
        return self.folder / "logs" / f"rank-{self.rank:05d}.log"

    def _stacks_file(self) -> TextIO:
        """The rank's own log, opened once: a launcher may write to it as well."""
        if self.file is None:
            try:
                self._log_path().parent.mkdir(parents=True, exist_ok=True)
                self.file = open(self._log_path(), "a", encoding="utf-8")  # noqa: SIM115
            except OSError:
                self.file = sys.stderr
        return self.file


def _host() -> str:
    return socket.gethostname()


def _key(text: str) -> str:
    return hashlib.sha256(text.encode(errors="replace")).hexdigest()[:16]
