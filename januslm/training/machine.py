"""What the machine can do and what it asks of us: its peak speed, its memory, its signals."""

import os
import resource
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch

from januslm.cli.command import called


def peak_flops(device: torch.device, precision: str) -> float:
    """Multiplications and additions per second of a large matrix product, measured for 0.3 s."""
    cuda = device.type == "cuda"
    size = 8192 if cuda else 1024
    kind = torch.bfloat16 if precision == "bf16" else torch.float32
    a, b = (torch.ones(size, size, device=device, dtype=kind) for _ in range(2))
    times: list[float] = []
    began = time.monotonic()
    while time.monotonic() - began < 0.3 or len(times) < 3:
        start = time.monotonic()
        torch.mm(a, b)
        if cuda:
            torch.cuda.synchronize()
        times.append(time.monotonic() - start)
    return 2 * size**3 / min(times)


def memory(device: torch.device) -> float:
    """The most memory this process has held so far, in GiB: of the GPU, else of the machine."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated() / 2**30
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


PARENT = "JANUSLM_PARENT"  # the id of the process that watches a rank


class StopRequest:
    """What asked this process to stop: a signal, or the end of the process that started it.

    The update that is under way is finished first.
    """

    KINDS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1)

    def __init__(self) -> None:
        self.reason = ""  # in words; "" until then
        # A process that was started alone outlives the shell that started it, as nohup has it.
        # Our launcher says who it is: it may be gone by now.
        given = os.environ.get(PARENT, "")
        usual = os.getppid() if "RANK" in os.environ else None
        self.parent = int(given) if given.isdecimal() else usual

    def __bool__(self) -> bool:
        return bool(self.reason)

    def look(self) -> None:
        """Notice that our launcher is gone; called now and then from any thread."""
        if self.parent not in (None, os.getppid()) and not self.reason:
            self.reason = "the end of its launcher"

    @contextmanager
    def leaving(self, leave: Callable[[str], object]) -> Iterator[None]:
        """Until the ranks have met: leave(reason), from a thread, when our launcher has ended.

        The process may wait for another rank then, in C++ and for minutes.  Nothing would be lost;
        a signal has its usual effect.
        """
        met = threading.Event()

        def watch() -> None:
            while not met.wait(1.0):
                self.look()
                if self:
                    leave(self.reason)
                    return

        threading.Thread(target=watch, daemon=True, name="launcher").start()
        try:
            yield
        finally:
            met.set()

    @contextmanager
    def listening(self) -> Iterator["StopRequest"]:
        """Take the signals in place of their usual effect; one that is ignored (nohup) stays so."""
        if threading.current_thread() is not threading.main_thread():
            yield self
            return
        kinds = [kind for kind in self.KINDS if signal.getsignal(kind) != signal.SIG_IGN]
        before = [signal.signal(kind, self._heard) for kind in kinds]
        try:
            yield self
        finally:
            for kind, handler in zip(kinds, before, strict=True):
                signal.signal(kind, handler)

    def _heard(self, number: int, _frame: object) -> None:
        self.reason = self.reason or called(number)
