"""Host processes, here and elsewhere: started, given orders, and read through one queue."""

import json
import queue
import shlex
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Iterable, Mapping
from contextlib import suppress
from types import TracebackType

from januslm.launch import hosts
from januslm.launch.environment import cloned, environment

# No password is asked for, and a connection that is cut is noticed within 15 seconds.
SSH = ["ssh", "-T", "-o", "BatchMode=yes", "-o", "ConnectTimeout=10"]
SSH += ["-o", "ServerAliveInterval=5", "-o", "ServerAliveCountMax=3", "--"]
LEAVES_WITHIN = 10.0  # seconds until a host process that has no ranks left must be gone

Events = queue.SimpleQueue  # of (Host or None, event); None: this process' own signals

Asked = tuple[str, str]  # a host and an order


class Stopped(Exception):
    """A signal came while hosts were asked; `number` is its."""

    def __init__(self, number: int):
        super().__init__(number)
        self.number = number


def python() -> str:
    """The interpreter of all ranks, on all hosts."""
    return sys.executable


def command(host: str) -> list[str]:
    """What starts the process that owns a host's ranks; all else comes by orders."""
    module = [python(), "-P", "-m", "januslm.launch.host"]
    if cloned():
        module = ["env", f"PYTHONPATH={environment()['PYTHONPATH']}", *module]
    return module if hosts.is_here(host) else [*SSH, host, f"exec {shlex.join(module)}"]


class Host:
    """One host process, and what became of it."""

    def __init__(self, name: str, events: Events):
        self.name, self.events = name, events
        self.gone, self.entered = False, False
        self.errors: deque[str] = deque(maxlen=5)
        self.process = subprocess.Popen(
            command(name),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,  # Ctrl-C is for us, who hand it on
        )
        self.reading = threading.Thread(target=self._read, daemon=True)
        self.reading.start()

    def _read(self) -> None:
        errors = threading.Thread(target=self._read_errors, daemon=True)
        errors.start()
        assert self.process.stdout
        for line in self.process.stdout:
            with suppress(ValueError):  # a shell's start-up file may print as well
                event = json.loads(line)
                if isinstance(event, dict) and "event" in event:
                    self.events.put((self, event))
        errors.join(timeout=1)
        self.events.put((self, {"event": "gone"}))

    def _read_errors(self) -> None:
        assert self.process.stderr
        for line in self.process.stderr:
            if text := line.decode("utf-8", "replace").strip():
                self.errors.append(text)

    @property
    def why_gone(self) -> str:
        """In one line, with what ssh or the process itself said last."""
        what = "the connection was lost" if self.entered else "cannot be reached"
        return f"{what}: {self.errors[-1]}" if self.errors else what

    def order(self, order: str, **fields) -> None:
        """Give an order; nothing happens if nobody is there any more."""
        assert self.process.stdin
        with suppress(OSError, ValueError):
            self.process.stdin.write(json.dumps({"order": order, **fields}).encode() + b"\n")
            self.process.stdin.flush()

    def hang_up(self) -> None:
        """No more orders: it ends when its ranks have."""
        assert self.process.stdin
        with suppress(OSError):
            self.process.stdin.close()


class Hosts:
    """The host processes of one start; a context that ends them all."""

    def __init__(self, names: Iterable[str], events: Events):
        self.events = events
        self.all = {name: Host(name, events) for name in names}

    def __enter__(self) -> "Hosts":
        return self

    def __exit__(
        self, kind: type | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for host in self.all.values():
            host.hang_up()
        end = time.monotonic() + LEAVES_WITHIN
        for host in self.all.values():
            try:
                host.process.wait(max(end - time.monotonic(), 0.1))
            except subprocess.TimeoutExpired:
                if not hosts.is_here(host.name):  # an ssh that has lost its host
                    host.process.kill()
                    host.process.wait()
            host.reading.join(timeout=1)

    def next(self, seconds: float) -> tuple[Host | None, dict] | None:
        """The next event of a host of ours or of this process; None after so many seconds."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            try:
                host, event = self.events.get(timeout=left)
            except queue.Empty:
                return None
            if host and event["event"] == "gone":
                host.gone = True
            if host is None or self.all.get(host.name) is host:  # not one of a former start
                return host, event
        return None

    def ask(self, orders: Mapping[Asked, Mapping], seconds: float) -> dict[Asked, dict]:
        """The answers to orders, each with facts of its own, given to hosts all at once.

        An answer with `refused` says why there is none.  Raises Stopped for a signal.
        """
        for (name, order), fields in orders.items():
            self.all[name].order(order, **fields)
        answers: dict[Asked, dict] = {}
        end = time.monotonic() + seconds
        while missing := orders.keys() - answers.keys():
            lost = [asked for asked in missing if self.all[asked[0]].gone]
            answers |= {asked: {"refused": self.all[asked[0]].why_gone} for asked in lost}
            if lost:
                continue
            got = self.next(end - time.monotonic())
            if got is None:
                late = {"refused": f"no answer within {seconds:.0f} s"}
                answers |= dict.fromkeys(missing, late)
            elif got[0] is None:
                raise Stopped(got[1]["number"])
            elif (asked := (got[0].name, got[1]["event"])) in orders:
                got[0].entered = True
                answers[asked] = got[1]
        return {asked: answers[asked] for asked in orders}
