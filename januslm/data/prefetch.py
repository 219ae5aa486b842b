"""Makes the next items while the present one is used: in a thread, or in processes of their own."""

import io
import pickle
import queue
import signal
import threading
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset


@contextmanager
def ahead(
    make: Callable[[Any], Any], keys: Iterable, workers: int = 0, depth: int = 2
) -> Iterator[Iterator]:
    """make(key) of each key, in order, up to `depth` ahead, in a thread or so many processes.

    A thread holds the interpreter while it makes an item; a process leaves it to whoever launches
    kernels on a GPU.  An error is raised where its item would be taken.
    """
    with _processes(make, keys, workers, depth) if workers else _thread(make, keys, depth) as it:
        yield it


@contextmanager
def _thread(make: Callable, keys: Iterable, depth: int) -> Iterator[Iterator]:
    waiting: queue.Queue = queue.Queue(depth)
    stop = threading.Event()

    def offer(item) -> bool:
        while not stop.is_set():
            try:
                waiting.put(item, timeout=0.2)
                return True
            except queue.Full:
                pass
        return False

    def work() -> None:
        try:
            if all(offer((make(key), None)) for key in keys):
                offer((None, StopIteration()))
        except BaseException as error:  # raised again where the item is taken
            offer((None, error))

    def taken() -> Iterator:
        while True:
            item, error = waiting.get()
            if isinstance(error, StopIteration):
                return
            if error:
                raise error
            yield item

    thread = threading.Thread(target=work, daemon=True, name="ahead")
    thread.start()
    try:
        yield taken()
    finally:
        stop.set()
        thread.join()


@contextmanager
def _processes(make: Callable, keys: Iterable, workers: int, depth: int) -> Iterator[Iterator]:
    """torch's DataLoader, forked: `make` and what it holds need not be copied."""
    loader = DataLoader(
        _Made(make),
        batch_size=None,
        sampler=keys,
        num_workers=workers,
        prefetch_factor=depth,
        worker_init_fn=_deaf,
        multiprocessing_context="fork",
        generator=torch.Generator(),  # it draws a seed, which must not come from the run's
    )
    items = _unpacked(iter(loader))
    try:
        yield items
    finally:
        items.close()


def _unpacked(sent: Iterator[bytes]) -> Generator:
    try:
        for made in sent:
            item, error = pickle.loads(made)
            if error:
                raise error
            yield item
    finally:
        del sent  # the last reference, whose end is that of the processes: an error keeps a frame


class _Made(Dataset):
    """(make(key), None) or (None, error), as bytes."""

    def __init__(self, make: Callable):
        self.make = make

    def __getitem__(self, key) -> bytes:
        try:
            return _bytes((self.make(key), None))
        except Exception as error:  # torch would turn it into another of the same type
            return _bytes((None, error))


def _deaf(worker: int) -> None:
    """A signal to the whole group is for the run, which saves first."""
    for name in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1):
        signal.signal(name, signal.SIG_IGN)


class _Pickler(pickle.Pickler):
    """Tensors as numpy arrays: torch would send each through shared memory, 0.1 ms apiece."""

    def reducer_override(self, value):
        if isinstance(value, torch.Tensor):
            return torch.from_numpy, (value.numpy(),)
        return NotImplemented


def _bytes(value) -> bytes:
    buffer = io.BytesIO()
    _Pickler(buffer, pickle.HIGHEST_PROTOCOL).dump(value)
    return buffer.getvalue()
