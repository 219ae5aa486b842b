"""Lines of text files in bounded memory: byte order marks, encodings, spans of large files."""

import codecs
from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO

from data_tools.documents import Span
from data_tools.files import CHUNK, File, buffered, opened
from data_tools.formats import MARKS, mark_of

# Encodings in which the byte of a line feed is a line feed wherever it stands.
BYTEWISE = ("utf-8", "ascii", "latin-1", "iso8859-1", "cp1252", "iso8859-15", "cp1251", "koi8-r")


# A line with its end, or None for one that is longer than it may be; its number, 0 where the lines
# before it were not counted; its first byte.  No class: there are millions of them.
Line = tuple[bytes | None, int, int]


@contextmanager
def text(file: File, *reads: str, encoding: str = "utf-8") -> Iterator[BinaryIO]:
    """A text file as UTF-8 without a byte order mark; a mark says more than `encoding` does.

    What is not valid in its encoding becomes what is not valid in UTF-8, for `document` to treat.
    """
    with opened(file, *reads) as stream:
        yield decoded(stream, encoding)


def decoded(stream: BinaryIO, encoding: str = "utf-8") -> BinaryIO:
    """The same for a stream that is open, at its beginning."""
    mark = mark_of(stream.peek(4)[:4])  # type: ignore[attr-defined]
    encoding = MARKS.get(mark, encoding)
    if codecs.lookup(encoding) == codecs.lookup("utf-8"):
        return stream
    if encoding == "utf-8-sig":
        stream.read(len(mark))
        return stream
    return buffered(_as_utf8(stream, encoding))


def divisible(file: File, encoding: str = "utf-8") -> bool:
    """Whether a file's lines can be found from any place in it."""
    if file.packed or codecs.lookup(encoding).name not in map(_codec, BYTEWISE):
        return False
    with opened(file) as stream:
        return MARKS.get(mark_of(stream.peek(4)[:4]), "utf-8-sig") == "utf-8-sig"  # type: ignore


def _codec(name: str) -> str:
    return codecs.lookup(name).name


def _as_utf8(stream: BinaryIO, encoding: str) -> Iterator[bytes]:
    decoder = codecs.getincrementaldecoder(encoding)(errors="januslm.invalid")
    while chunk := stream.read(CHUNK):
        yield decoder.decode(chunk).encode("utf-8", "surrogatepass")
    yield decoder.decode(b"", final=True).encode("utf-8", "surrogatepass")


def _invalid(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeDecodeError):
        raise error
    return "\udc80", error.end  # half a letter, which UTF-8 cannot spell


codecs.register_error("januslm.invalid", _invalid)


def lines(stream: BinaryIO, most: int, span: Span | None = None) -> Iterator[Line]:
    """The lines that begin in a span of a file, or all; none is held that has more than `most`."""
    at, end = span or (0, 1 << 63)
    number, step = 0, 1
    ahead = stream.tell() if span else 0  # a byte order mark belongs to the first line
    if at:  # the line that began before belongs to the span before
        stream.seek(at - 1)
        at, step, ahead = at - 1 + _rest(stream), 0, 0
    readline, longest = stream.readline, most + 1
    while at < end and (line := readline(longest)):
        number += step
        size = len(line)
        if size > most and line[-1] != 0x0A:
            size += _rest(stream)
            yield None, number, at
        else:
            yield line, number, at
        at += size + ahead
        ahead = 0


def place(where: str, number: int, at: int) -> str:
    """Where a line stands, for an error."""
    return f"{where}:{number}" if number else f"{where}: byte {at}"


def _rest(stream: BinaryIO) -> int:
    """Read to the end of a line, holding little of it; how many bytes that were."""
    size = 0
    while part := stream.readline(CHUNK):
        size += len(part)
        if part[-1] == 0x0A:
            break
    return size
