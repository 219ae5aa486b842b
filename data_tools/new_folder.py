"""A folder that is whole or not there: filled aside, then renamed."""

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from januslm.config import Refused
from januslm.data import atomic


@contextmanager
def new_folder(out: str | Path) -> Iterator[Path]:
    """A folder to fill, beside `out`, whose name it gets when the block ends without an error.

    What a kill has left of an earlier one is deleted.  Raises Refused where `out` holds anything,
    or where another process fills it.
    """
    out = Path(os.path.abspath(out))
    if out.exists() and not (out.is_dir() and not any(out.iterdir())):
        raise Refused(f"{out}: is there already; name a new folder")
    aside = out.with_name(f".{out.name}.unfinished")
    aside.mkdir(parents=True, exist_ok=True)
    handle = os.open(aside, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        for path in aside.iterdir():
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
        yield aside
        atomic.sync_folder(aside)
        os.rename(aside, out)
        atomic.sync_folder(out.parent)
    except BlockingIOError:
        raise Refused(f"{out}: another command is writing it") from None
    except BaseException:
        shutil.rmtree(aside, ignore_errors=True)
        raise
    finally:
        os.close(handle)


def place(source: Path, target: Path, copy: bool) -> None:
    """The file under another name: a hard link, or a copy, as asked or where none is possible."""
    if not copy:
        with suppress(OSError):  # another file system, or one without links
            os.link(source, target)
            return
    with open(source, "rb") as old, atomic.durable(target, "wb") as new:
        shutil.copyfileobj(old, new, 1 << 20)
