"""Many processes, on this machine or under mpirun, that share a queue of work and fail together."""

import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Executor, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from functools import partial
from multiprocessing import get_context, parent_process
from multiprocessing.connection import wait as wait_for
from typing import TypeVar, cast

from januslm import registry
from januslm.config import Refused

Result = TypeVar("Result")
TICK = 0.2  # seconds between looks at how far it is


@contextmanager
def pool(processes: int) -> Iterator[Executor]:
    """So many processes of this machine, which end with this one."""
    # spawn: a fork would copy whatever threads and locks the caller has at the moment
    context = get_context("spawn")
    start = partial(_start_worker, registry.extended())
    with ProcessPoolExecutor(processes, context, initializer=start) as executor:
        yield executor


@contextmanager
def ranks() -> Iterator[Executor | None]:
    """The ranks that mpirun started, for rank 0; None on the others, which only serve it."""
    from mpi4py import MPI  # starts MPI when imported
    from mpi4py.futures import MPICommExecutor

    _single_threaded()
    with MPICommExecutor(MPI.COMM_WORLD, root=0) as executor:
        yield cast(Executor | None, executor)


def _start_worker(plugins: Sequence[str]) -> None:
    for folder in plugins:
        registry.extend(folder)
    _single_threaded()
    threading.Thread(target=_follow_parent, daemon=True).start()


def _single_threaded() -> None:
    # one process per core already; the tokenizer's own threads would fight them
    os.environ["TOKENIZERS_PARALLELISM"] = "false"


def _follow_parent() -> None:
    """End this worker when the parent is killed; it would wait for work for ever."""
    if parent := parent_process():
        wait_for([parent.sentinel])
    os._exit(1)


def finished(
    executor: Executor, tasks: Sequence[Callable[[], Result]], tick: Callable[[int], object]
) -> Iterator[tuple[int, Result]]:
    """(place in tasks, result) as each `task()` ends; `tick(done)` runs all the time.

    tasks: functions of modules, or functools.partial of some: they travel to other processes.

    The first error is raised here, and what has not begun by then never begins.
    """
    waiting = {executor.submit(task): i for i, task in enumerate(tasks)}
    done_count = 0
    try:
        while waiting:
            done, _ = wait(waiting, timeout=TICK, return_when=FIRST_COMPLETED)
            for future in done:
                place = waiting.pop(future)
                done_count += 1
                yield place, future.result()
            tick(done_count)
    except BrokenProcessPool:
        raise Refused(
            "a worker process was killed (out of memory?); the finished shards are kept, "
            "the same command goes on from there"
        ) from None
    finally:
        for future in waiting:
            future.cancel()


def first_rank(mpi: bool) -> bool:
    """Whether this process speaks for all."""
    if not mpi:
        return True
    from mpi4py import MPI

    return MPI.COMM_WORLD.rank == 0
