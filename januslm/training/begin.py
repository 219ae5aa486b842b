"""From a run file to a process that trains: what can be refused is refused before torch comes."""

import argparse
import importlib
import os
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from januslm.cli.command import error_line
from januslm.cli.progress import waiting
from januslm.config import Refused
from januslm.training import rank_env
from januslm.training.run_dir import Start
from januslm.training.run_lock import RunLock, check_free

REFUSED = 2  # exit code: a mistake of the user's, named in one line


class Resolved(Protocol):
    """A run file with all that it names, found and checked (pretrain/ and finetune/settings)."""

    @property
    def run(self) -> Any: ...  # has out and train
    @property
    def about(self) -> dict: ...
    @property
    def fingerprint(self) -> dict: ...
    def check_folder(self, start: Start) -> dict: ...


@dataclass(frozen=True)
class Begun:
    """A rank that may train.  lock: rank 0's, of the run's folder."""

    resolved: Resolved
    start: Start
    lock: RunLock | None


def start_of(options: argparse.Namespace) -> Start:
    """How the user wants the run to start; what Slurm has requeued goes on, as any restart does."""
    requeued = os.environ.get("SLURM_RESTART_COUNT", "0") not in ("", "0")
    return Start(tuple(options.allow), options.from_scratch and not requeued)


def process(
    folder: Callable[[], str],
    resolve: Callable[[], Resolved],
    train: Callable[[Begun], int],
    options: argparse.Namespace,
) -> int:
    """Train in this process; the exit code is that of januslm.training.process.

    folder: of the run, by its file alone.  resolve: may take long.  train: imports torch.
    """
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # until there is something to save
    # A rank that ends makes the stores of others fail, which torch would show with C++ frames.
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    try:
        begun = _begun(folder(), resolve, start_of(options))
    except Refused as error:
        return refused(str(error))
    with waiting("loading torch", speaks=bool(begun.lock)):
        importlib.import_module("torch")
    return train(begun)


def _begun(folder: str, resolve: Callable[[], Resolved], start: Start) -> Begun:
    place = rank_env.resolve()
    meeting = f"{os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']}"
    check_free(folder, meeting if place.rank else "")
    resolved = resolve()
    resolved.check_folder(start)
    lock = None if place.rank else RunLock(Path(folder)).take(meeting)
    if lock and lock.problem:
        print(lock.problem, flush=True)
    return Begun(resolved, start, lock)


def refused(text: str, say: bool = True) -> int:
    """One line on stderr, and the exit code."""
    if say:
        print(error_line(text), file=sys.stderr, flush=True)
    return REFUSED
