"""What all commands share: how a mistake ends them, and where they write."""

import os
import sys
from collections.abc import Callable
from pathlib import Path

from januslm.config import Refused


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


def to_write(path: str) -> Path:
    """Where a command writes what it was told to by name: from where the user stands.

    launch.sh runs its commands in the project, and says where it was called.
    """
    return Path(os.environ.get("JANUSLM_STARTED_IN", "")) / path
