"""What a source gives: inputs to share out among processes, and the documents inside each."""

import glob
import gzip
import io
import os
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import BinaryIO, Literal, cast

import zstandard

from januslm.config import Refused

# What to do with bytes that are not UTF-8 (or a lone surrogate in a JSON escape).
Invalid = Literal["replace", "drop", "refuse"]


CHUNK = 1 << 20  # bytes of a packed file read at a time
LONGEST = 1 << 30  # bytes of one line or file: more comes of a packed file made to fill the memory


@dataclass(frozen=True)
class Document:
    """One text.  `group` is what validation may hold out as a whole: a package, a file.

    facts: what its source and the filters found out about it, by name: a language, a score.
    """

    text: str
    group: str
    repaired: bool = False
    url: str = ""  # where it was read on the web, if it was
    facts: Mapping[str, str | float] = field(default_factory=dict)

    @cached_property
    def raw(self) -> bytes:
        """The text as UTF-8."""
        return self.text.encode()


@dataclass(frozen=True)
class Dropped:
    """A document that a source or a filter did not pass on; each is counted by its reason.

    number: what the rule measured, where it measured something.  words: those of the document that
    decided, where some did.
    """

    reason: str
    number: float | None = None
    words: str = ""


@dataclass(frozen=True)
class Input:
    """A piece of work for one process: `read()` gives its documents, the same ones every time.

    `read` travels to other processes, so it is a module's function or a functools.partial of one.
    """

    name: str
    bytes: int
    read: Callable[[], Iterator[Document | Dropped]]
    version: str = ""


def document(raw: bytes | str, group: str, invalid: str, where: str) -> Document | Dropped:
    """Make a document of raw text, treating what is not UTF-8 as the option `invalid` says."""
    if isinstance(raw, str):
        raw = raw.encode("utf-8", "surrogatepass")
    try:
        return Document(raw.decode("utf-8"), group)
    except UnicodeDecodeError as error:
        if invalid == "refuse":
            raise Refused(
                f"{where}: not UTF-8 at byte {error.start} ({error.reason}); "
                "invalid = 'replace' or 'drop' would read on"
            ) from None
    if invalid == "drop":
        return Dropped("invalid UTF-8")
    return Document(raw.decode("utf-8", "replace"), group, repaired=True)


def matching(root: Path, patterns: list[str]) -> list[tuple[str, Path]]:
    """The files that match any pattern under root, sorted, as (name under root, path)."""
    found = set()
    for pattern in patterns:
        names = glob.glob(pattern, root_dir=root, recursive=True)
        names = [name for name in names if (root / name).is_file()]
        if not names:
            raise Refused(f"no file matches {pattern!r} in {os.path.abspath(root)}")
        found.update(names)
    return [(name, root / name) for name in sorted(found)]


def lines(file: BinaryIO, where: str) -> Iterator[bytes]:
    """The lines of a file; Refused for one that no memory should hold."""
    while line := file.readline(LONGEST + 1):
        yield _bounded(line, where)


def whole(file: BinaryIO, where: str) -> bytes:
    """All of a file; Refused where no memory should hold it."""
    return _bounded(file.read(LONGEST + 1), where)


def _bounded(raw: bytes, where: str) -> bytes:
    if len(raw) > LONGEST:
        raise Refused(f"{where}: a document of more than {LONGEST:,} bytes; split it")
    return raw


@contextmanager
def opened(path: Path) -> Iterator[BinaryIO]:
    """A file for reading, unpacked if its name ends in .gz or .zst; Refused if it is damaged."""
    try:
        with open(path, "rb") as raw:
            if path.suffix == ".gz":
                yield cast(BinaryIO, gzip.GzipFile(fileobj=raw))
            elif path.suffix == ".zst":
                yield io.BufferedReader(_Unpacked(_frames(raw)))
            else:
                yield raw
    except (
        EOFError,
        gzip.BadGzipFile,
        zlib.error,
        zstandard.ZstdError,
        zipfile.BadZipFile,
    ) as error:
        raise Refused(f"{path}: damaged or cut short ({error})") from None
    except OSError as error:
        raise Refused(f"{path}: cannot be read ({error.strerror or error})") from None


class _Unpacked(io.RawIOBase):
    """Chunks of bytes as a file."""

    def __init__(self, chunks: Iterator[bytes]):
        self._chunks, self._left = chunks, b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer) -> int:
        while not self._left:
            if (chunk := next(self._chunks, None)) is None:
                return 0
            self._left = chunk
        size = min(len(buffer), len(self._left))
        buffer[:size], self._left = self._left[:size], self._left[size:]
        return size


def _frames(raw: BinaryIO) -> Iterator[bytes]:
    """A .zst unpacked frame by frame; zstandard's own reader is silent where a file is cut."""
    packed = raw.read(CHUNK)
    while packed:
        frame = zstandard.ZstdDecompressor().decompressobj()
        while not frame.eof:
            if not packed:
                raise EOFError("it ends in the middle of a frame")
            yield frame.decompress(packed)
            packed = frame.unused_data or raw.read(CHUNK)
