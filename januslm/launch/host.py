"""The process that owns a job's ranks on one host: orders on stdin, events on stdout.

Both are JSON tables, one a line; no order goes through a shell.  januslm/launch/remote.py starts
it, here or by ssh.  It ends when its orders do: its ranks save and end first.
"""

import json
import os
import selectors
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress

from januslm.config import Refused
from januslm.launch import facts
from januslm.launch.environment import environment, of_ranks
from januslm.launch.ranks import Ranks

STOPS = (signal.SIGTERM, signal.SIGHUP, signal.SIGINT, signal.SIGUSR1)
TICK = 0.2  # seconds between two looks at what no file descriptor tells
BLOCK = 1 << 16  # bytes read or written at once
UNSENT = 1 << 23  # bytes; lines beyond that are in the logs alone


class Host:
    """Orders in, events out, ranks between; one thread does all but answering questions."""

    def __init__(self) -> None:
        self.selector = selectors.DefaultSelector()
        self.lock = threading.Lock()
        self.unread, self.unsent, self.dropped = b"", bytearray(), 0
        self.connected, self.leaving, self.writing = True, False, False
        self.ranks: Ranks | None = None
        self.running, self.grace = False, 600.0
        self.last_order, self.silence = time.monotonic(), float("inf")
        self.door: facts.Door | None = None
        self.checking: list[subprocess.Popen] = []
        self.woken, self.wake = os.pipe()
        for end in (0, 1, self.woken, self.wake):
            os.set_blocking(end, False)
        self.selector.register(0, selectors.EVENT_READ, self._hear)
        self.selector.register(self.woken, selectors.EVENT_READ, self._awake)
        signal.set_wakeup_fd(self.wake, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        for number in STOPS:
            signal.signal(number, self._leave)

    def serve(self) -> None:
        """Until there are no more orders, and the last rank has ended and been reported."""
        while self.running or (self.connected and (self.unsent or not self.leaving)):
            for key, _ in self.selector.select(TICK):
                key.data()
            if self.connected and time.monotonic() - self.last_order > self.silence:
                self._lost()
            if self.ranks and self.running:
                if self.leaving:
                    self._stop()
                if self.ranks.look():
                    self.running = False
                    self.say("over")
            self._send()

    def close(self) -> None:
        """Leave nothing running."""
        if self.ranks:
            self.ranks.close()
        for process in self.checking:
            process.kill()

    def _hear(self) -> None:
        try:
            block = os.read(0, BLOCK)
        except BlockingIOError:
            return
        except OSError:
            block = b""
        self.last_order = time.monotonic()
        *lines, self.unread = (self.unread + block).split(b"\n")
        for line in lines:
            self._obey(json.loads(line))
        if not block:
            self._lost()

    def _stop(self) -> None:
        if self.ranks:
            self.ranks.stop(self.grace)

    def _leave(self, *_: object) -> None:
        """A signal to us, or no launcher any more: the ranks save and end, and so do we."""
        self.leaving = True

    def _lost(self) -> None:
        self.leaving, self.connected = True, False
        self.selector.unregister(0)

    def _awake(self) -> None:
        with suppress(BlockingIOError):
            os.read(self.woken, BLOCK)

    def say(self, event: str, **fields) -> None:
        """Tell the launcher, as soon as it listens; any thread may."""
        with self.lock:
            if event in ("line", "live") and len(self.unsent) > UNSENT:
                self.dropped += event == "line"
                return
            if self.dropped and len(self.unsent) < UNSENT:
                text, self.dropped = f"{self.dropped:,} lines are in the logs alone", 0
                self.unsent += json.dumps({"event": "note", "text": text}).encode() + b"\n"
            self.unsent += json.dumps({"event": event, **fields}).encode() + b"\n"
        with suppress(BlockingIOError):
            os.write(self.wake, b"\0")

    def _send(self) -> None:
        with self.lock:
            try:
                del self.unsent[: os.write(1, self.unsent[:BLOCK]) if self.unsent else 0]
            except BlockingIOError:
                pass
            except OSError:  # the launcher is gone; stdin says so too
                self.unsent.clear()
            more = bool(self.unsent)
        if more and not self.writing:
            self.selector.register(1, selectors.EVENT_WRITE, lambda: None)
        elif self.writing and not more:
            self.selector.unregister(1)
        self.writing = more

    def _obey(self, order: dict) -> None:
        kind = order.pop("order")
        if kind in ("stop", "end", "kill") and self.ranks:
            {"stop": self._stop, "end": self.ranks.end, "kill": self.ranks.kill}[kind]()
        elif kind == "enter":
            self._answer(kind, self._enter, order)
        elif kind == "start":
            self._answer(kind, self._start, order)
        elif kind != "beat":
            answer = {
                "facts": facts.facts,
                "check": self._check,
                "mark": lambda folder, name: {"path": facts.mark(folder, name)},
                "sees": lambda path: {"seen": facts.sees(path)},
                "unmark": lambda path: os.unlink(path),
                "open": self._open,
                "reach": lambda **what: {"reached": facts.reached(**what)},
            }[kind]
            threading.Thread(target=self._answer, args=(kind, answer, order), daemon=True).start()

    def _answer(self, kind: str, work: Callable[..., Mapping | None], order: Mapping) -> None:
        """The event that answers an order has its name; `refused` in it says why it failed."""
        try:
            self.say(kind, **(work(**order) or {}))
        except Exception as error:  # whatever it is: the launcher waits for an answer
            self.say(kind, refused=_why(error))

    def _enter(self, folder: str, variables: Mapping[str, str], silence: float | None) -> None:
        """Stand where the user stands, with the user's variables."""
        os.environ.update(variables)
        self.silence = silence or float("inf")
        try:
            os.chdir(folder)
        except OSError:
            raise Refused(f"there is no folder {folder}, in which the run is started") from None

    def _check(self, command: list[str]) -> dict:
        """What a verb says of a run without starting it, or why it refuses."""
        process = subprocess.Popen(
            [sys.executable, "-P", *command],
            env=environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.checking.append(process)
        out, err = process.communicate()
        return {"code": process.returncode, "out": out, "err": err}

    def _open(self, word: str) -> dict:
        self.door = facts.Door(word)
        return {"port": self.door.port, "addresses": facts.addresses()}

    def _start(self, **order) -> None:
        if self.door:
            self.door.close()
        self.grace = order["grace"]
        variables = of_ranks(order["count"])
        if order["spread"]:  # over several hosts: by the way on which they reach each other
            for name in ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME"):
                variables.setdefault(name, order["spread"])
        self.ranks = Ranks(order, variables, self.selector, self.say)
        self.ranks.start()
        self.running = True


def _why(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    return str(error) if isinstance(error, Refused) else f"{type(error).__name__}: {error}"


def main() -> None:
    host = Host()
    try:
        host.serve()
    finally:
        host.close()


if __name__ == "__main__":
    main()
    os._exit(0)  # threads that still wait for an answer are of no use any more
