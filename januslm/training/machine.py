"""What the machine can do and what it asks of us: its peak speed, its memory, its signals."""

import resource
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch


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


@contextmanager
def asked_to_stop() -> Iterator[list[int]]:
    """The signals that asked us to stop; the step that is under way is finished first."""
    asked: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield asked
        return
    kinds = (signal.SIGTERM, signal.SIGUSR1)
    before = [signal.signal(kind, lambda number, frame: asked.append(number)) for kind in kinds]
    try:
        yield asked
    finally:
        for kind, handler in zip(kinds, before, strict=True):
            signal.signal(kind, handler)
