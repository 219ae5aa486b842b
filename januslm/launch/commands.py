"""A command of ours: the options that go anywhere behind a verb; printed, run, or become."""

import importlib.util
import os
import shlex
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from januslm.cli.command import Parser, program
from januslm.config import Refused

PROCESSES = 1024  # on one machine: more than any has GPUs or cores
RESTARTS = 1_000_000
SHOWN = ("DS_ACCELERATOR", "OMP_NUM_THREADS")  # variables that a dry run prints


@dataclass(frozen=True)
class Options:
    """How a command is run, not what it does."""

    dry: bool = False  # print, run nothing
    gpus: int | None = None  # processes on each machine
    hostfile: str = ""
    ds: str = ""  # a file of ds_configs/
    restarts: int = 0  # after a failure

    @property
    def spread(self) -> str:
        """The first option that is for training alone, if one is given."""
        given = {
            "--gpus": self.gpus,
            "--hostfile": self.hostfile,
            "--ds": self.ds,
            "--restarts": self.restarts,
        }
        return next((name for name, value in given.items() if value), "")


def split(verb: str, words: Sequence[str]) -> tuple[Options, list[str]]:
    """Our options, wherever they stand, and the verb's own words in their order."""
    known = Parser(f"{program()} {verb}", add_help=False, allow_abbrev=False)
    known.add_argument("--dry-run", action="store_true")
    for name in ("--gpus", "--hostfile", "--ds", "--restarts"):
        known.add_argument(name, default="")
    given, rest = known.parse_known_args(words)
    count = _whole("--gpus", given.gpus, PROCESSES)
    restarts = _whole("--restarts", given.restarts, RESTARTS) or 0
    return Options(given.dry_run, count, given.hostfile, given.ds, restarts), rest


def _whole(name: str, given: str, most: int) -> int | None:
    """A number from 1 that an option was given; None if it was not."""
    if not given:
        return None
    if not (given.isascii() and given.isdecimal() and int(given[:12])):
        raise Refused(f"{name} must be a whole number from 1, got {given!r}")
    if int(given[:12]) > most:
        raise Refused(f"{name} must be at most {most:,}, got {given}")
    return int(given)


def module(name: str, *words: str) -> list[str]:
    """python -m NAME WORDS."""
    return [sys.executable, "-m", name, *words]


def show(command: Sequence[str], environment: Mapping[str, str], stdin: str = "") -> None:
    """Print a command, and what it reads, as it could be typed."""
    new = [f"{n}={environment[n]}" for n in SHOWN if environment.get(n) != os.environ.get(n)]
    pipe = f"{shlex.join(['printf', '%s', stdin])} | " if stdin else ""
    print(pipe + shlex.join([*(["env", *new] if new else []), *command]), flush=True)


def become(command: list[str], environment: Mapping[str, str]) -> int:
    """Run a command in place of this process, so that its signals and its exit code are its own."""
    sys.stdout.flush()
    os.execve(command[0], command, environment)


def code_of(
    command: Sequence[str], environment: Mapping[str, str], dry: bool = False, stdin: str = ""
) -> int:
    """Run a command and wait for its exit code; with `dry`, print it.

    stdin: what the command reads; "": what we would.
    """
    if dry:
        show(command, environment, stdin)
        return 0
    sys.stdout.flush()
    pipe = stdin.encode() or None
    return shell_code(subprocess.run(command, env=environment, check=False, input=pipe).returncode)


def shell_code(code: int) -> int:
    """What a shell says for a code of Python's, where a signal is a negative number."""
    return code if code >= 0 else 128 - code


def need(*packages: str) -> None:
    """Refuse, without importing it, a package that is not installed."""
    for name in packages:
        if importlib.util.find_spec(name) is None:
            more = (
                " (on a machine without GPU its CPU build, see README)" if name == "torch" else ""
            )
            raise Refused(f"{name} is not installed for {sys.executable}{more}: pip install {name}")


def asks_for_help(words: Sequence[str]) -> bool:
    """Whether -h or --help is among the words."""
    return bool({"-h", "--help"} & set(words))
