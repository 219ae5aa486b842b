"""One run at a time in a folder: a lock that works on NFS and dies with the process that has it."""

import fcntl
import json
import os
import pwd
import socket
import struct
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from januslm.config import Refused

LOCK = "lock"
REFRESH = 1.0  # seconds between two notes of the step that the run is at
PATIENCE = 3  # looks, half a second apart, at whose lock it is
_FLOCK = "hhqqi"  # struct flock of Linux: type, whence, start, length, process
_mine: dict[str, dict] = {}  # locks of this process: fcntl tells nobody of its own


class RunLock:
    """RUN/lock, from `take` until this process ends, however it ends.

    The lock is fcntl's: closing the file anywhere in this process would give it away, so nothing
    here ever does.  A child does not have it.
    """

    def __init__(self, folder: Path):
        self.path = Path(folder) / LOCK
        self.handle: int | None = None
        self.facts: dict[str, Any] = {}
        self.noted = 0.0
        self.problem = ""  # why this file system gives no locks

    def take(self, meeting: str = "", step: int = 0) -> "RunLock":
        """Make the folder and lock it, or raise Refused, which says who has it.

        meeting: where the ranks of this run meet, by which they know their own lock.
        """
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.handle = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.lockf(self.handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError):
            raise Refused(refusal(self.path.parent, _content(self.handle))) from None
        except OSError as error:
            self.problem = f"{self.path}: {error.strerror}: nothing keeps a second start out"
        self.facts = {
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "user": _user(),
            "began": time.time(),
            "meeting": meeting,
        }
        self.note(step)
        with suppress(OSError):  # ranks on other hosts of an NFS know their run by it
            os.fsync(self.handle)
        return self

    def note(self, step: int) -> None:
        """Say at which step the run is, at most once a second; a full disk is borne."""
        if self.handle is None or time.monotonic() - self.noted < REFRESH:
            return
        self.noted = time.monotonic()
        self.facts |= {"step": step, "time": time.time()}
        _mine[str(self.path.resolve())] = dict(self.facts)
        # Always as long: it is rewritten in place, and a reader never sees two halves.
        text = json.dumps(self.facts).ljust(511) + "\n"
        try:
            os.pwrite(self.handle, text.encode(), 0)
        except OSError:
            self.noted += 60


def holder(folder: str | Path) -> dict | None:
    """Who trains in the folder: host, pid, user, began, step, time; None if nobody does.

    Looks without taking the lock.  What the file says may be damaged: then only a few keys.
    """
    path = Path(folder) / LOCK
    if (mine := _mine.get(str(path.resolve()))) is not None:
        return mine
    try:
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        asked = struct.pack(_FLOCK, fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
        kind, *_, process = struct.unpack(_FLOCK, fcntl.fcntl(handle, fcntl.F_GETLK, asked))
        if kind == fcntl.F_UNLCK:
            return None
        return {"pid": process} | _content(handle)
    except OSError:
        return None
    finally:
        os.close(handle)


def check_free(folder: str | Path, meeting: str = "") -> None:
    """Raise Refused if a run has the folder, unless its ranks meet where ours do."""
    found = holder(folder)
    for _ in range(PATIENCE):
        if not (found and meeting and found.get("meeting") != meeting):
            break
        time.sleep(0.5)  # our own rank 0 may just have taken it, and not yet said so
        found = holder(folder)
    if found and not (meeting and found.get("meeting") == meeting):
        raise Refused(refusal(folder, found))


def refusal(folder: str | Path, who: dict) -> str:
    """The line for a second start."""
    since = _ago(who.get("began"))
    at = f", now at step {who['step']:,}" if isinstance(who.get("step"), int) else ""
    return (
        f"{folder} is being trained in by process {who.get('pid', '?')} of {who.get('user', '?')} "
        f"on {who.get('host', '?')}{since}{at}: wait for it, stop it, or choose another folder"
    )


def _ago(began: object) -> str:
    try:
        return time.strftime(" since %Y-%m-%d %H:%M:%S", time.localtime(began))  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError, OSError):
        return ""


def _content(handle: int) -> dict:
    try:
        found = json.loads(os.pread(handle, 4096, 0))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _user() -> str:
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return str(os.getuid())
