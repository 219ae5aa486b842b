"""The files of a source, here or far away: found by patterns, looked at, opened, unpacked."""

import bz2
import glob
import gzip
import io
import lzma
import os
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import BinaryIO, cast
from urllib.parse import unquote, urlsplit

import zstandard
from xxhash import xxh3_128

from data_tools import remote
from data_tools.formats import HEAD, refuse_other
from januslm.config import Refused

CHUNK = 1 << 20  # bytes of a packed file read at a time
BLOCK, BLOCKS = 1 << 16, 128  # what is hashed of a file that is larger than both together
PIECE = 1 << 10  # of a .zst at a time: it may become 32,768 times as much
WINDOW = 1 << 31  # of `zstd --long=31`
MAGIC = {".gz": b"\x1f\x8b", ".bz2": b"BZh", ".xz": b"\xfd7zXZ\x00", ".zst": b"\x28\xb5\x2f\xfd"}
DAMAGE = (
    EOFError,
    gzip.BadGzipFile,
    zlib.error,
    lzma.LZMAError,
    zstandard.ZstdError,
    zipfile.BadZipFile,
)


@dataclass(frozen=True)
class File:
    """A file of a source.

    name: below root, or its address.  place: the path or address to open.  version: changes when
    the content does.
    """

    name: str
    place: str
    bytes: int
    version: str

    @property
    def suffix(self) -> str:
        """The end of its name: ".gz"."""
        path = urlsplit(self.place).path if remote.is_remote(self.place) else self.place
        return PurePosixPath(path).suffix.lower()

    @property
    def packed(self) -> bool:
        """Whether it can only be read from its beginning."""
        return self.suffix in MAGIC

    @property
    def shared(self) -> bool:
        """Whether processes can share it where each record is packed by itself, or none is."""
        return not self.packed or self.suffix == ".gz"


def matching(root: Path, patterns: list[str], *reads: str) -> list[File]:
    """The files that match any pattern, sorted by name; Refused for one without files.

    A pattern is a path below root, ** for any depth, or an address: https://, s3://, memory://.
    reads: names of formats (formats.py); a local file that looks like another one is refused now,
    a remote one when it is opened.
    """
    found: dict[str, File] = {}
    for pattern in patterns:
        if pattern.startswith("file://"):
            pattern = unquote(urlsplit(pattern).path)
        if remote.is_remote(pattern):
            found_there = remote.matching(pattern)
            files = [File(one.address, one.address, one.bytes, one.version) for one in found_there]
        else:
            names = glob.glob(pattern, root_dir=root, recursive=True)
            files = [local(root, name) for name in names if (root / name).is_file()]
            if not files:
                raise Refused(f"no file matches {pattern!r} in {os.path.abspath(root)}")
            _look_at(files, reads)
        found |= {file.name: file for file in files}
    return [found[name] for name in sorted(found)]


def local(root: Path, name: str) -> File:
    """A file on a disk of this machine."""
    place = str(root / name)
    try:
        return File(name, place, os.stat(place).st_size, _content(place))
    except OSError as error:
        raise Refused(f"{place}: cannot be read ({error.strerror or error})") from None


def _content(place: str) -> str:
    """A hash of all of a file up to 8 MiB, and of 128 blocks spread over a larger one.

    Not its time: a corpus that was copied is the same corpus.  What is packed ends in checksums,
    so that a change anywhere in it changes the last block.
    """
    size, seen = os.path.getsize(place), xxh3_128()
    with open(place, "rb", buffering=0) as file:
        if size <= BLOCK * BLOCKS:
            seen.update(file.readall())
        else:
            for number in range(BLOCKS):
                file.seek((size - BLOCK) * number // (BLOCKS - 1))
                seen.update(file.read(BLOCK))
    return seen.hexdigest()


def _look_at(files: Iterable[File], reads: tuple[str, ...]) -> None:
    for file in files if reads else ():
        with opened(file, *reads):
            pass


@contextmanager
def opened(file: File, *reads: str) -> Iterator[BinaryIO]:
    """A file for reading, unpacked as its name says: .gz, .bz2, .xz, .zst.

    Refused where it is damaged, or looks like none of the formats that the source reads; all are
    welcome if none is named.
    """
    with raw(file) as packed, damage_of(file):
        stream = unpacked(packed, file)
        if reads:
            refuse_other(stream.peek(HEAD)[:HEAD], file.place, reads)
        yield cast(BinaryIO, stream)


@contextmanager
def raw(file: File) -> Iterator[io.BufferedReader]:
    """The bytes of a file as they lie there; they can be read from any place."""
    stream: io.BufferedReader
    if remote.is_remote(file.place):
        stream = io.BufferedReader(remote.opened(file.place, file.bytes, file.version), BLOCK)
    else:
        try:
            stream = open(file.place, "rb")  # noqa: SIM115
        except OSError as error:
            raise Refused(f"{file.place}: cannot be read ({error.strerror or error})") from None
    with stream:
        far = remote.is_remote(file.place)
        if not far and os.fstat(stream.fileno()).st_size != file.bytes:
            raise Refused(f"{file.place}: changed since the build began")
        yield stream


@contextmanager
def damage_of(file: File) -> Iterator[None]:
    """Refused, with the file's name, where reading it goes wrong inside."""
    try:
        yield
    except DAMAGE as error:
        raise Refused(f"{file.place}: damaged or cut short ({error})") from None
    except OSError as error:  # of bz2, too: "Invalid data stream"
        raise Refused(f"{file.place}: cannot be read ({error.strerror or error})") from None


def unpacked(packed: io.BufferedReader, file: File) -> io.BufferedReader:
    """The stream that a packed one holds; BadGzipFile for one that cannot be what its name says."""
    if not file.packed:
        return packed
    head = packed.peek(len(MAGIC[file.suffix]))
    if not head:
        raise EOFError(f"0 bytes, which no {file.suffix} has")
    if file.suffix == ".zst":
        return buffered(frames(packed))
    if not head.startswith(MAGIC[file.suffix]):
        raise gzip.BadGzipFile(f"it does not begin as a {file.suffix} does")
    if file.suffix == ".gz":
        return cast(io.BufferedReader, gzip.GzipFile(fileobj=packed))
    if file.suffix == ".bz2":
        return cast(io.BufferedReader, bz2.BZ2File(packed))
    return cast(io.BufferedReader, lzma.LZMAFile(packed))


class Chunks(io.RawIOBase):
    """Chunks of bytes as a file."""

    def __init__(self, chunks: Iterator[bytes]):
        self._chunks, self._left = chunks, memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer) -> int:
        while not self._left:
            if (chunk := next(self._chunks, None)) is None:
                return 0
            self._left = memoryview(chunk)
        size = min(len(buffer), len(self._left))
        buffer[:size], self._left = self._left[:size], self._left[size:]
        return size


def buffered(chunks: Iterator[bytes]) -> io.BufferedReader:
    """Chunks of bytes as a file with lines."""
    return io.BufferedReader(Chunks(chunks), BLOCK)


def frames(packed: BinaryIO) -> Iterator[bytes]:
    """A .zst unpacked frame by frame; zstandard's own reader is silent where a file is cut.

    A small piece at a time: each may unpack to 30,000 times its size.
    """
    piece = packed.read(PIECE)
    while piece:
        frame = zstandard.ZstdDecompressor(max_window_size=WINDOW).decompressobj()
        while not frame.eof:
            if not piece:
                raise EOFError("it ends in the middle of a frame")
            yield frame.decompress(piece)
            piece = frame.unused_data or packed.read(PIECE)
