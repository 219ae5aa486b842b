"""Files that are whole or not there: written aside, then renamed; a kill leaves old or new."""

import os
from pathlib import Path
from types import TracebackType
from typing import IO

SUFFIX = ".new"  # of what is being written, after the file's own name


class Replacement:
    """A file to write; it takes the place of `path` when its `with` block ends.

    An error inside the block leaves the former file, and nothing beside it.
    """

    def __init__(self, path: str | Path, mode: str, durable: bool):
        self.path, self.durable = Path(path), durable
        self.aside = self.path.with_name(self.path.name + SUFFIX)
        encoding, newline = (None, None) if "b" in mode else ("utf-8", "\n")
        self.file: IO = open(self.aside, mode, encoding=encoding, newline=newline)  # noqa: SIM115

    def __enter__(self) -> IO:
        return self.file

    def __exit__(
        self, error: type[BaseException] | None, _: BaseException | None, __: TracebackType | None
    ) -> None:
        try:
            with self.file:
                if error is None:
                    self.file.flush()
                    if self.durable:
                        os.fsync(self.file.fileno())
            if error is None:
                os.replace(self.aside, self.path)
        finally:
            self.aside.unlink(missing_ok=True)
        if error is None and self.durable:
            sync_folder(self.path.parent)


def plain(path: str | Path, mode: str = "w") -> Replacement:
    """For what can be made again: outlives a kill; a power cut may take it.  Text is UTF-8."""
    return Replacement(path, mode, durable=False)


def durable(path: str | Path, mode: str = "w") -> Replacement:
    """As `plain`, and on the disk, name and content, when the block has ended."""
    return Replacement(path, mode, durable=True)


def sync_folder(folder: str | Path) -> None:
    """Make renames inside the folder durable; without it a power cut may undo them."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
