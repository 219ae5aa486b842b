"""The ranks of one host: started, listened to, stopped, and none of them left behind."""

import json
import os
import signal
import struct
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from selectors import EVENT_READ, BaseSelector
from typing import IO

from januslm.cli import live as live_line

PULSE = struct.Struct("<qd")  # step, time: what a rank writes at each update
PULSE_BYTES = 32
LINE = 1 << 16  # bytes; a longer line is cut in two
TAIL = 20  # last lines that are reported of a rank that failed
PATIENCE = 5.0  # seconds between SIGTERM and SIGKILL for ranks that have lost one of them
GOOD = (0, 85)  # done; stopped and saved


@dataclass
class Rank:
    """One process, and what is known of it."""

    number: int
    process: subprocess.Popen
    log: IO[bytes]
    pulse: Path
    # pipes to read: "out", "err", or "live", which never comes into a log
    streams: dict[int, str] = field(default_factory=dict)
    unfinished: dict[int, bytes] = field(default_factory=dict)  # half a line, by pipe
    tail: deque = field(default_factory=lambda: deque(maxlen=TAIL))
    code: int | None = None  # negative: the signal that killed it

    @property
    def step(self) -> int | None:
        """The update it began last, -1 before the first; None before it said any."""
        step, when = PULSE.unpack_from(self.pulse.read_bytes())
        return step if when else None


class Ranks:
    """All ranks of a job on this host.

    order: what januslm/launch/supervision.py says of this host.  say(event, **facts): tells it.
    """

    def __init__(
        self,
        order: Mapping,
        environment: Mapping[str, str],
        selector: BaseSelector,
        say: Callable[..., None],
    ):
        self.order, self.selector, self.say = order, selector, say
        self.deadline = float("inf")
        self.asked: float | None = None  # when they were asked to stop
        self.mute = False
        self.folder = tempfile.TemporaryDirectory(prefix="januslm-")
        self.variables, self.all = environment, list[Rank]()

    def start(self) -> None:
        """All of them; OSError where a log cannot be written or a process not be started."""
        logs = Path(self.order["folder"], "logs")
        logs.mkdir(parents=True, exist_ok=True)
        for local in range(self.order["count"]):
            self.all.append(self._started(local, logs))

    def _own(self, local: int, pulse: Path) -> dict[str, str]:
        """The variables by which a rank knows who it is."""
        return {
            "RANK": str(self.order["first"] + local),
            "LOCAL_RANK": str(local),
            "WORLD_SIZE": str(self.order["world"]),
            "LOCAL_WORLD_SIZE": str(self.order["count"]),
            "MASTER_ADDR": self.order["address"],
            "MASTER_PORT": str(self.order["port"]),
            "JANUSLM_PULSE": str(pulse),
            "JANUSLM_PARENT": str(os.getpid()),
            "PYTHONUNBUFFERED": "1",  # a log is whole when its rank is killed
        }

    def _started(self, local: int, logs: Path) -> Rank:
        number = self.order["first"] + local
        pulse = Path(self.folder.name, str(number))
        pulse.write_bytes(bytes(PULSE_BYTES))
        command = [sys.executable, "-P", *self.order["command"]]
        log = (logs / f"rank-{number:05d}.log").open("ab", buffering=0)
        (out, out_end), (err, err_end) = os.pipe(), os.pipe()
        live = os.pipe() if number == 0 and self.order.get("live") else ()
        own = self._own(local, pulse) | ({live_line.VARIABLE: str(live[1])} if live else {})
        # The rank also holds the ends that we read from: if we are killed, its next line waits in
        # the pipe instead of ending it before it has saved.
        process = subprocess.Popen(
            command,
            env={**self.variables, **own},
            stdin=subprocess.DEVNULL,
            stdout=out_end,
            stderr=err_end,
            pass_fds=(out, err, *live),
            start_new_session=True,
        )
        rank = Rank(number, process, log, pulse)
        when = datetime.now(UTC).isoformat(timespec="seconds")
        who = f"rank {number} of {self.order['world']} on {self.order['host']}"
        self._write(rank, f"--- {when} {who}, process {process.pid}".encode())
        pipes = [(out_end, out, "out"), (err_end, err, "err")]
        pipes += [(live[1], live[0], "live")] if live else []
        for end, reading, stream in pipes:
            os.close(end)
            os.set_blocking(reading, False)
            rank.streams[reading], rank.unfinished[reading] = stream, b""
            self.selector.register(reading, EVENT_READ, partial(self._read, rank, reading))
        return rank

    def _read(self, rank: Rank, pipe: int) -> bool:
        """Take what is there; False once the pipe is at its end or empty."""
        try:
            block = os.read(pipe, LINE)
        except BlockingIOError:
            return False
        *lines, rest = (rank.unfinished[pipe] + block).split(b"\n")
        if len(rest) >= LINE or (not block and rest):
            lines, rest = [*lines, rest], b""
        rank.unfinished[pipe] = rest
        for line in lines:
            self._heard(rank, line, rank.streams[pipe])
        if not block:
            self._close(rank, pipe)
        return bool(block)

    def _close(self, rank: Rank, pipe: int) -> None:
        self.selector.unregister(pipe)
        os.close(pipe)
        del rank.streams[pipe], rank.unfinished[pipe]

    def _heard(self, rank: Rank, line: bytes, stream: str) -> None:
        if stream == "live":
            with suppress(ValueError):  # half a line of a pipe that was full
                self.say("live", state=json.loads(line))
            return
        self._write(rank, line)
        text = line.decode("utf-8", "replace").rstrip("\r")
        if stream == "err":
            rank.tail.append(text)
        if rank.number == 0 or text.startswith("error: "):
            self.say("line", rank=rank.number, stream=stream, text=text)

    def _write(self, rank: Rank, line: bytes) -> None:
        try:
            rank.log.write(line + b"\n")
        except OSError as error:
            if not self.mute:
                self.say("note", text=f"{rank.log.name}: {error.strerror}; lines are lost")
            self.mute = True

    def stop(self, grace: float) -> None:
        """Ask them to save and end; killed `grace` seconds after they have last made a step."""
        if self.asked is None:
            self.asked, self.grace = time.time(), grace
            self.deadline = time.monotonic() + grace
            self._tell(signal.SIGTERM)

    def end(self) -> None:
        """They have lost one of them and cannot go on: end them, soon by force."""
        self._tell(signal.SIGTERM)
        self.asked, self.grace = self.asked or time.time(), 0.0
        self.deadline = min(self.deadline, time.monotonic() + PATIENCE)

    def kill(self) -> None:
        """At once."""
        self.asked = self.asked or time.time()
        self._tell(signal.SIGKILL)

    def _tell(self, number: int) -> None:
        for rank in self.all:
            if rank.code is None:
                with suppress(ProcessLookupError):
                    rank.process.send_signal(number)

    def look(self) -> bool:
        """Notice who has ended; True when all have."""
        for rank in self.all:
            if rank.code is None and rank.process.poll() is not None:
                self._ended(rank)
        if time.monotonic() > self.deadline and not self._moved():
            self.kill()
        return all(rank.code is not None for rank in self.all)

    def _moved(self) -> bool:
        """Whether a rank has made a step within the grace; it then gets another one."""
        last = max(PULSE.unpack_from(rank.pulse.read_bytes())[1] for rank in self.all)
        left = last + self.grace - time.time()
        if left > 0:
            self.deadline = time.monotonic() + left
        return left > 0

    def _ended(self, rank: Rank) -> None:
        rank.code = rank.process.returncode
        with suppress(ProcessLookupError):  # what it has left behind, such as packing processes
            os.killpg(rank.process.pid, signal.SIGKILL)
        for pipe in tuple(rank.streams):
            while self._read(rank, pipe):
                pass
            if pipe in rank.streams:  # held open by somebody else
                self._close(rank, pipe)
        tail = [] if rank.code in GOOD else list(rank.tail)
        self._write(rank, f"--- ended with code {rank.code}".encode())
        rank.log.close()
        asked = self.asked is not None
        self.say("exit", rank=rank.number, code=rank.code, step=rank.step, tail=tail, asked=asked)

    def close(self) -> None:
        """Whatever happens, nobody stays behind us."""
        for rank in self.all:
            with suppress(ProcessLookupError):
                os.killpg(rank.process.pid, signal.SIGKILL)
        self.folder.cleanup()
