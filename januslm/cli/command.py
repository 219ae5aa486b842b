"""What all commands share: how a mistake ends them, and where they write."""

import os
import sys
from collections.abc import Callable
from pathlib import Path

from januslm.config import Refused

THREADS = 1024  # more than any machine has cores for


def answered(command: Callable[[], int | None]) -> int:
    """The exit code of a command: its own, 0 for None; 2 and one line on stderr if it is refused.

    So for what the file system refuses, too: a full disk is no fault of the code's.
    """
    try:
        return command() or 0
    except Refused as error:
        print(f"error: {error}", file=sys.stderr)
    except OSError as error:
        place = f"{error.filename}: " if error.filename else ""
        print(f"error: {place}{error.strerror or error}", file=sys.stderr)
    return 2


def check_counts(options, *names: str) -> None:
    """Refuse what is given and below 1, and more threads than can be started.

    options: as argparse gives them, with `threads` among them.
    """
    for name in names:
        value = getattr(options, name)
        if value is not None and value < 1:
            raise Refused(f"--{name} must be at least 1, got {value}")
    if options.threads is not None and options.threads > THREADS:
        raise Refused(f"--threads must be at most {THREADS:,}, got {options.threads:,}")


def to_write(path: str) -> Path:
    """Where a command writes what it was told to by name: from where the user stands.

    launch.sh runs its commands in the project, and says where it was called.
    """
    return Path(os.environ.get("JANUSLM_STARTED_IN", "")) / path
