"""Plain text, as it is or packed (.gz, .bz2, .xz, .zst, .zip): a document per file or part."""

import re
import zipfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Annotated, BinaryIO, Literal, NamedTuple, cast

from data_tools.documents import (
    LONGEST,
    Document,
    Dropped,
    Found,
    Input,
    Invalid,
    Span,
    document,
    too_long,
)
from data_tools.files import File, damage_of, matching, raw
from data_tools.formats import (
    BINARY,
    HEAD,
    JSON_LINES,
    TEXT,
    UNMARKED,
    UTF_16,
    UTF_32,
    ZIP,
    refuse_other,
)
from data_tools.text_lines import decoded, divisible, lines, place, text
from januslm.config import Allowed, Refused


def inputs(
    root: Path,
    *,
    files: list[str],
    split: Literal["file", "blank", "line"] = "blank",
    encoding: str = "utf-8",
    minimum_words: Annotated[int, Allowed(low=0)] = 0,
    undo_bpe: bool = False,
    invalid: Invalid = "replace",  # what to do with bytes that are not of the encoding
) -> list[Input]:
    """One input per file; of a .zip, every member that ends in .txt.

    files: patterns below root, ** for any depth, or addresses.  split: what ends a document: the
    file, a blank line, or every line.  encoding: of the files, e.g. latin-1; a byte order mark
    says more.  minimum_words: shorter documents, headings for example, are dropped.  undo_bpe:
    ha@@ us of subword-nmt is read as haus.
    """
    try:
        bytes(range(256)).decode(encoding, "replace")  # some that Python knows are of other use
    except (LookupError, ValueError):
        raise Refused(f"encoding {encoding!r} is not known; utf-8 and latin-1 are") from None
    reads: tuple[str, ...] = (TEXT, UTF_16, UTF_32)
    if split == "file":
        reads += (JSON_LINES,)  # a program's file may be one object
    if encoding != "utf-8":
        reads += (UNMARKED, BINARY)  # as text of UTF-16 or UTF-32 looks
    rules = _Rules(split, encoding, minimum_words, undo_bpe, invalid, reads)
    return [
        Input(
            file.name,
            file.bytes,
            partial(_read, file, rules),
            file.version,
            split != "file" and file.suffix != ".zip" and divisible(file, encoding),
        )
        for file in matching(root, files, *reads, ZIP)
    ]


class _Rules(NamedTuple):
    split: str
    encoding: str
    least: int
    joined: bool
    invalid: str
    reads: tuple[str, ...]


# The bytes of what may be a document, None for what is too long to be held; where it stands.
_Part = tuple[bytes | None, str]


def _read(file: File, rules: _Rules, span: Span | None = None) -> Iterator[Found]:
    most = LONGEST.get()
    for raw_part, where in _parts_of(file, rules, most, span):
        if raw_part is None:
            yield too_long(most)
            continue
        body = raw_part.strip()
        if rules.joined:
            body = re.sub(rb"@@(?: |$)", b"", body, flags=re.MULTILINE)
        found = document(body, file.name, rules.invalid, where)
        if not isinstance(found, Document):
            yield found
        elif not found.text and rules.split != "file":
            continue  # blank lines separate documents, they are not empty ones
        elif found.text and len(found.text.split()) < rules.least:
            yield Dropped(f"fewer than {rules.least} words")
        else:
            yield found


def _parts_of(file: File, rules: _Rules, most: int, span: Span | None) -> Iterator[_Part]:
    if file.suffix != ".zip":
        with text(file, *rules.reads, encoding=rules.encoding) as stream:
            yield from _parts(stream, rules.split, file.place, most, span)
        return
    with raw(file) as packed, damage_of(file), zipfile.ZipFile(packed) as archive:
        for name in sorted(n for n in archive.namelist() if n.endswith(".txt")):
            where = f"{file.place}/{name}"
            with _member(archive, name, file.place) as member:
                refuse_other(member.peek(HEAD)[:HEAD], where, rules.reads)
                stream = decoded(cast(BinaryIO, member), rules.encoding)
                yield from _parts(stream, rules.split, where, most, None)


def _member(archive: zipfile.ZipFile, name: str, place: str) -> zipfile.ZipExtFile:
    try:
        return cast(zipfile.ZipExtFile, archive.open(name))
    except (RuntimeError, NotImplementedError) as error:  # encrypted, or of an unknown packing
        raise Refused(f"{place}: {error}; unpack it yourself") from None


def _parts(
    stream: BinaryIO, split: str, where: str, most: int, span: Span | None
) -> Iterator[_Part]:
    """What may be a document, and where it stands; each piece of a file is given exactly once."""
    if split == "file":
        whole = stream.read(most + 1)
        yield whole if len(whole) <= most else None, where
    elif split == "line":
        for line, number, at in lines(stream, most, span):
            yield line, place(where, number, at)
    else:
        yield from _paragraphs(stream, where, most, span)


def _paragraphs(stream: BinaryIO, where: str, most: int, span: Span | None) -> Iterator[_Part]:
    """What blank lines separate.  A paragraph belongs to the span of the blank line before it."""
    start, end = span or (0, LAST)
    paragraph: list[bytes] = []
    size, first, mine = 0, "", not start
    for line, number, at in lines(stream, most, (start, LAST) if span else None):
        if line is not None and not line.strip():
            if size:
                yield b"".join(paragraph) if size <= most else None, first
            if at >= end:
                return
            paragraph, size, mine = [], 0, True
        elif mine:
            first = first if size else place(where, number, at)
            size += most + 1 if line is None else len(line)
            if size > most:
                paragraph = []
            elif line is not None:
                paragraph.append(line)
    if size:
        yield b"".join(paragraph) if size <= most else None, first


LAST = 1 << 63  # a paragraph may go on after the end of its span
