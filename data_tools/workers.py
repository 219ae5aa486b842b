"""Many processes, on this machine or under mpirun, that share a queue of work and fail together."""

import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Executor, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import get_context, parent_process
from multiprocessing.connection import wait as wait_for

from januslm.config import Refused

TICK = 0.2  # seconds between looks at how far it is


@contextmanager
def pool(processes: int, mpi: bool = False) -> Iterator[Executor | None]:
    """An executor; under mpi None on the ranks that only serve rank 0, whose number counts then."""
    if mpi:
        from mpi4py import MPI  # starts MPI when imported
        from mpi4py.futures import MPICommExecutor

        _single_threaded()
        with MPICommExecutor(MPI.COMM_WORLD, root=0) as executor:
            yield executor
        return
    # spawn: a fork would copy whatever threads and locks the caller has at the moment
    context = get_context("spawn")
    with ProcessPoolExecutor(processes, context, initializer=_start_worker) as executor:
        yield executor


def _start_worker() -> None:
    _single_threaded()
    threading.Thread(target=_follow_parent, daemon=True).start()


def _single_threaded() -> None:
    # one process per core already; the tokenizer's own threads would fight them
    os.environ["TOKENIZERS_PARALLELISM"] = "false"


def _follow_parent() -> None:
    """End this worker when the parent is killed; it would wait for work for ever."""
    wait_for([parent_process().sentinel])
    os._exit(1)


def finished(
    executor: Executor, function: Callable, tasks: list[tuple], tick: Callable[[int], None]
) -> Iterator[tuple[int, object]]:
    """(place in tasks, result) as each `function(*task)` ends; `tick(done)` runs all the time.

    The first error is raised here, and what has not begun by then never begins.
    """
    waiting = {executor.submit(function, *task): i for i, task in enumerate(tasks)}
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
