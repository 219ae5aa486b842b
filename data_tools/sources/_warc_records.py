"""The records of a WARC file, one after the other or from any place, whatever is damaged in it.

fastwarc reads faster, but stops for good at the first damaged record and takes a page whose packed
body was cut for a whole one; here the next record is looked for, and what was lost is counted.
"""

import io
import re
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import BinaryIO, NamedTuple

from data_tools.documents import Document, Dropped, Span, too_long
from data_tools.files import CHUNK, File, buffered, damage_of, opened, raw
from data_tools.formats import HEAD, WARC

HEADERS = 1 << 16  # bytes of a record's own headers, at most
PIECE = 1 << 14  # bytes of a .gz unpacked at a time: they may become 1,000 times as many
MEMBER = re.compile(rb"(\x1f\x8b\x08)")  # how a gzip member begins: RFC 1952
SEAM = b"\r\n\r\n"  # between records
AT_LINE = re.compile(rb"\n(WARC/\d\.\d+\r?\n)")
BEGINS = re.compile(rb"(?:\A|\n)(WARC/\d\.\d+\r?\n)")
FACTS = {  # name of a fact: the header that tells it
    "date": "warc-date",
    "truncated": "warc-truncated",  # by the crawler: length, time, disconnect
    "languages": "warc-identified-content-language",
}
DAMAGED, CUT = Dropped("damaged WARC record"), Dropped("WARC record cut short")
WRONG = Dropped("WARC record of a wrong Content-Length")


class Record(NamedTuple):
    """A whole record: its headers, names in lower case, and what follows them."""

    headers: dict[str, str]
    block: bytes
    where: str


def records(file: File, most: int, span: Span | None = None) -> Iterator[Record | Dropped]:
    """The records that begin in a span of a .warc or .warc.gz, or all; `most`: bytes of one.

    A packed record belongs to the span in which its gzip member begins.
    """
    with _stream(file, span) as stream:
        if stream:
            yield from stream.records(most, span[1] if span else None)


@contextmanager
def _stream(file: File, span: Span | None) -> Iterator["_Stream | None"]:
    if file.packed and file.suffix != ".gz":  # .zst and .bz2 are read from their beginning
        with opened(file, WARC) as unpacked:
            yield _Stream(unpacked, file.place, 0)
        return
    with opened(file, WARC):
        pass  # the first bytes say what it is, whichever bytes are read next
    with raw(file) as stored, damage_of(file):
        start, end = span or (0, file.bytes)
        packed = file.suffix == ".gz"
        if start:
            start = _first(stored, start, end, packed)
        if start < 0:
            yield None
            return
        stored.seek(start)
        if packed:
            members = _Members(stored, start, end if span else 1 << 63)
            yield _Stream(buffered(members.chunks()), file.place, 0, members)
        else:
            yield _Stream(stored, file.place, start)


def _first(stored: BinaryIO, start: int, end: int, packed: bool) -> int:
    """The first place in [start, end) where a record, or its gzip member, begins; -1: none does.

    Where nothing is packed, a page that shows a whole record may be taken for one.
    """
    at = max(0, start - len(SEAM))
    while at < end:
        stored.seek(at)
        window = stored.read(CHUNK)
        for found in (MEMBER if packed else AT_LINE).finditer(window):
            place = at + found.start(1)
            if start <= place < end and _begins_record(stored, place, packed):
                return place
        if len(window) < CHUNK:
            break
        at += CHUNK - 2 * len(SEAM)  # what stands on the seam is seen the next time
    return -1


def _begins_record(stored: BinaryIO, at: int, packed: bool) -> bool:
    """Whether these bytes, which may stand anywhere by chance, are the head of a record."""
    stored.seek(at)
    head = stored.read(HEAD)
    try:
        head = zlib.decompressobj(31).decompress(head, HEAD) if packed else head
    except zlib.error:
        return False
    return _is_head(head)


def _is_head(some: bytes) -> bool:
    return some.startswith(b"WARC/") and b"\nwarc-type:" in some[:HEAD].lower()


class _Members:
    """A .gz unpacked member by member; a damaged one is skipped and noted."""

    def __init__(self, stored: BinaryIO, start: int, end: int):
        self._stored, self._at, self._given, self._end = stored, start, 0, end
        self.begin: dict[int, int] = {}  # place in what is unpacked -> place of a member
        self.damaged: list[Span] = []  # what damaged members gave of what is unpacked

    def chunks(self) -> Iterator[bytes]:
        """What the members hold, until the file ends."""
        while True:
            self._stored.seek(self._at)
            if not self._stored.read(1).strip(b"\0") and self._only_zeros_follow():
                return  # some writers fill up a block with them
            first = self._given
            self.begin[first] = self._at
            try:
                yield from self._member()
            except (zlib.error, EOFError):
                if self._at < self._end or not _begins_record(self._stored, self._at, packed=True):
                    self.damaged.append((first, self._given))  # else the next span's
                self._at = _first(self._stored, self._at + 1, 1 << 63, packed=True)
                if self._at < 0:
                    return

    def _member(self) -> Iterator[bytes]:
        self._stored.seek(self._at)
        unpacker, read = zlib.decompressobj(31), 0
        while not unpacker.eof:
            piece = self._stored.read(PIECE)
            if not piece:
                raise EOFError
            read += len(piece)
            if chunk := unpacker.decompress(piece):
                self._given += len(chunk)
                yield chunk
        self._at += read - len(unpacker.unused_data)

    def _only_zeros_follow(self) -> bool:
        while piece := self._stored.read(CHUNK):
            if piece.strip(b"\0"):
                return False
        return True


class _Stream:
    """Unpacked WARC records; what was read too far can be given back."""

    def __init__(self, file: BinaryIO, place: str, start: int, members: _Members | None = None):
        self._file, self._place, self._at = file, place, start
        self._members, self._back = members, io.BytesIO()

    def records(self, most: int, end: int | None) -> Iterator[Record | Dropped]:
        """All records up to the first that begins at or after `end`."""
        while self._to_record():
            first, place = self._at, self._begins_at(self._at)
            if end is not None and place >= end and self._is_next_span():
                break
            found = self._record(most, f"{self._place}: record at byte {max(place, 0)}")
            self._peek()  # the end of a gzip member is where its checksum is compared
            for damage in self._damaged(self._at):
                if damage[1] > first:
                    found = DAMAGED  # this record; else one that gave nothing
                else:
                    yield DAMAGED
            yield found
        yield from (DAMAGED for _ in self._damaged(self._at + 1))

    def _is_next_span(self) -> bool:
        """Whether `_first` finds the record that comes, so that it is not read twice, nor never."""
        head = self._read(HEAD)
        self._unread(head)
        return _is_head(head)

    def _damaged(self, before: int) -> Iterator[Span]:
        """The damaged members that begin before a place, each once."""
        while self._members and self._members.damaged and self._members.damaged[0][0] < before:
            yield self._members.damaged.pop(0)

    def _begins_at(self, at: int) -> int:
        """Where a record is in the file, for its span: at its gzip member, if it is its first."""
        if not self._members:
            return at
        return self._members.begin.pop(at, -1)

    def _read(self, size: int) -> bytes:
        found = self._back.read(size)
        if len(found) < size:
            found += self._file.read(size - len(found))
        self._at += len(found)
        return found

    def _line(self) -> bytes:
        found = self._back.readline(HEADERS)
        if not found.endswith(b"\n"):
            found += self._file.readline(HEADERS)
        self._at += len(found)
        return found

    def _unread(self, some: bytes) -> None:
        self._at -= len(some)
        self._back = io.BytesIO(some + self._back.read())

    def _peek(self) -> None:
        self._unread(self._read(1))

    def _to_record(self) -> bool:
        """Go to the next line that begins a record; False where none is left."""
        while line := self._line():
            if BEGINS.match(line):
                self._unread(line)
                return True
        return False

    def _record(self, most: int, where: str) -> Record | Dropped:
        self._line()
        head, size = [], 0
        while (line := self._line()).strip():
            head.append(line)
            size += len(line)
            if size > HEADERS or BEGINS.match(line):  # the next record already
                self._unread(line)
                return DAMAGED
        headers = fields(head)
        length = headers.get("content-length", "")
        if not line or not (length.isascii() and length.isdecimal() and len(length) < 19):
            return DAMAGED if line else CUT
        if int(length) > most:
            return self._skipped(int(length), most)
        block = self._read(int(length))
        if len(block) < int(length):
            return self._retreat(block, CUT)
        after = self._line()
        if after.strip():
            return self._retreat(block + after, WRONG)
        return Record(headers, block, where)

    def _skipped(self, length: int, most: int) -> Dropped:
        """Pass by a record that is too long, keeping what is one itself if its length is wrong."""
        kept, seam = b"", b"\n"
        while length > 0:
            if not (piece := self._read(min(length, CHUNK))):
                return self._retreat(b"\n" + kept, CUT)
            length -= len(piece)
            if not kept and (found := AT_LINE.search(seam + piece)):
                kept = (seam + piece)[found.start(1) :]
            elif kept and len(kept) < most:
                kept += piece
            seam = piece[-32:]
        after = self._line()
        if after.strip() or _is_head(kept):
            return self._retreat(b"\n" + kept + after, WRONG)
        return too_long(most)

    def _retreat(self, block: bytes, reason: Dropped) -> Dropped:
        """Give back what was read from where another record begins in it."""
        if found := BEGINS.search(block):
            self._unread(block[found.start(1) :])
        return reason


def fields(head: list[bytes]) -> dict[str, str]:
    """Header lines, of a record or of HTTP, by their names in lower case."""
    pairs = (line.decode("utf-8", "replace").partition(":") for line in head)
    return {name.strip().lower(): value.strip() for name, _, value in pairs}


def with_headers(found: Document, record: Record) -> Document:
    """A document with the address, the time and the language that its record tells."""
    given = {name: record.headers.get(header, "") for name, header in FACTS.items()}
    return replace(
        found,
        url=record.headers.get("warc-target-uri", "").strip("<>"),
        facts={name: value for name, value in given.items() if value},
    )
