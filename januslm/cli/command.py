"""What all commands share: how they are called, and how a mistake ends them."""

import argparse
import json
import os
import signal
import sys
from collections.abc import Callable, Iterable
from typing import NoReturn

from januslm.config import Refused

EACH = 8  # threads a core: more are of no use, and at some number none can be started


def answered(command: Callable[[], int | None]) -> int:
    """The exit code of a command: its own, 0 for None; 2 and one line on stderr if it is refused.

    So for what the file system refuses, too: a full disk is no fault of the code's.  130 after
    Ctrl-C, as a shell has it.
    """
    try:
        return command() or 0
    except Refused as error:
        print(error_line(str(error)), file=sys.stderr)
    except OSError as error:
        place = f"{error.filename}: " if error.filename else ""
        print(error_line(f"{place}{error.strerror or error}"), file=sys.stderr)
    except (MemoryError, RuntimeError) as error:
        if not _out_of_memory(error):
            raise
        print(error_line(f"not enough memory: {error}"), file=sys.stderr)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    return 2


def _out_of_memory(error: Exception) -> bool:
    """Whether it is memory that ran out; torch, which is not imported here, has no one type."""
    named = type(error).__name__ == "OutOfMemoryError" or "can't allocate memory" in str(error)
    return isinstance(error, MemoryError) or named


def error_line(message: str) -> str:
    """The one line of a mistake: what a text from outside could do to a terminal is spelled out."""
    shown = (c if c.isprintable() else ascii(c)[1:-1] for c in message)
    return f"error: {''.join(shown)}"


def warn(lines: Iterable[str]) -> None:
    """A line on each thing that was changed or left out."""
    for line in lines:
        print(f"warning: {line}", file=sys.stderr, flush=True)


def whole(text: str) -> int:
    """A whole number of the command line; 1e3 is one, as in run files."""
    try:
        return int(text)
    except ValueError:
        number = float(text)
        if not number.is_integer() or abs(number) > 2**53:
            raise ValueError from None
        return int(number)


whole.__name__ = "int"  # in argparse's errors: invalid int value


def print_json(value) -> None:
    """One line for another program to read."""
    print(json.dumps(value), flush=True)


def check_counts(options, *names: str) -> None:
    """Refuse what is given and below 1, and more threads than can be started.

    options: as argparse gives them, with `threads` among them.
    """
    for name in names:
        value = getattr(options, name)
        if value is not None and value < 1:
            raise Refused(f"--{name} must be at least 1, got {value}")
    cores = os.cpu_count() or 1
    if options.threads is not None and options.threads > EACH * cores:
        raise Refused(
            f"--threads must be at most {EACH * cores:,}, {EACH} for each of {cores:,} cores, got "
            f"{options.threads:,}"
        )


def called(number: int) -> str:
    """A signal as people call it."""
    return "Ctrl-C" if number == signal.SIGINT else signal.Signals(number).name


def program() -> str:
    """What the user types in front of a verb: januslm, or launch.sh as it was called."""
    return os.environ.get("JANUSLM_PROGRAM", "januslm")


class Parser(argparse.ArgumentParser):
    """A parser whose errors are one line, like every other mistake."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, error_line(f"{message}; {self.prog} --help tells more") + "\n")


def parser(verb: str, description: str, usage: str | None = None) -> Parser:
    """For one verb; PROGRAM in its texts is what the user types, lines stay as they are."""
    described, used = (text and text.replace("PROGRAM", program()) for text in (description, usage))
    plain = argparse.RawDescriptionHelpFormatter
    return Parser(f"{program()} {verb}", used, described, formatter_class=plain)


def run_parser(verb: str, description: str) -> Parser:
    """For a verb that trains: what the user and the launcher hand to its processes."""
    known = parser(verb, description)
    known.add_argument("run", metavar="RUN", help="a run file: what is learnt")
    known.add_argument("changes", nargs="*", metavar="key=value", help="e.g. train.steps=100")
    known.add_argument("--ds", default="", help="a file of ds_configs/: how the run is spread")
    known.add_argument(
        "--allow",
        action="append",
        default=[],
        metavar="KEY",
        help="go on with another value of this key, e.g. train.seed",
    )
    known.add_argument(
        "--from-scratch",
        action="store_true",
        help="begin anew: what the run has left is moved into before-TIME/",
    )
    known.add_argument("--check", type=int, metavar="PROCESSES", help=argparse.SUPPRESS)
    known.add_argument("--estimate", type=int, metavar="PROCESSES", help=argparse.SUPPRESS)
    known.add_argument("--local_rank", help=argparse.SUPPRESS)  # DeepSpeed's launcher adds it
    return known


def step_parser(verb: str, description: str) -> Parser:
    """For a verb that looks at one update of a run."""
    known = parser(verb, description)
    known.add_argument("run", metavar="RUN", help="a run's folder")
    known.add_argument("step", metavar="STEP", type=int, help="an update, e.g. a skipped one")
    return known
