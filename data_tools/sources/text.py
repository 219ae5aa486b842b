"""Plain text, as it is or packed (.gz, .zst, .zip): a document per file, paragraph or line."""

import re
import zipfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Annotated, BinaryIO, Literal, cast

from data_tools.documents import (
    Document,
    Dropped,
    Input,
    Invalid,
    document,
    lines,
    matching,
    opened,
    whole,
)
from januslm.config import Allowed, Refused


def inputs(
    root: Path,
    *,
    files: list[str],
    split: Literal["file", "blank", "line"] = "blank",
    encoding: str = "utf-8",
    minimum_words: Annotated[int, Allowed(low=0)] = 0,
    undo_bpe: bool = False,
    invalid: Invalid = "replace",
) -> list[Input]:
    """One input per file; of a .zip, every member that ends in .txt.

    files: patterns below root, ** for any depth.  split: what ends a document: the file, a blank
    line, or every line.  encoding: of the files, e.g. latin-1.  minimum_words: shorter documents,
    headings for example, are dropped.  undo_bpe: ha@@ us of subword-nmt is read as haus.
    """
    try:
        bytes(range(256)).decode(encoding, "replace")  # some that Python knows are of other use
    except (LookupError, ValueError):
        raise Refused(f"encoding {encoding!r} is not known; utf-8 and latin-1 are") from None
    reader = partial(
        _read, split=split, encoding=encoding, least=minimum_words, joined=undo_bpe, invalid=invalid
    )
    return [
        Input(name, path.stat().st_size, partial(reader, name, path))
        for name, path in matching(root, files)
    ]


def _read(
    name: str, path: Path, split: str, encoding: str, least: int, joined: bool, invalid: str
) -> Iterator[Document | Dropped]:
    for where, raw in _chunks(path, split):
        text = raw.strip()
        if encoding != "utf-8":
            text = raw.decode(encoding, "replace").strip().encode()
        if joined:
            text = re.sub(rb"@@(?: |$)", b"", text, flags=re.MULTILINE)
        found = document(text, name, invalid, where)
        if not isinstance(found, Document):
            yield found
        elif not found.text and split != "file":
            continue  # blank lines separate documents, they are not empty ones
        elif found.text and len(found.text.split()) < least:
            yield Dropped(f"fewer than {least} words")
        else:
            yield found


def _chunks(path: Path, split: str) -> Iterator[tuple[str, bytes]]:
    with opened(path) as file:
        if path.suffix == ".zip":
            with zipfile.ZipFile(file) as archive:
                names = sorted(n for n in archive.namelist() if n.endswith(".txt"))
                for name in names:
                    yield from _parts(_member(archive, name, path), split, f"{path}/{name}")
            return
        yield from _parts(file, split, str(path))


def _member(archive: zipfile.ZipFile, name: str, path: Path) -> BinaryIO:
    try:
        return cast(BinaryIO, archive.open(name))
    except RuntimeError as error:  # encrypted, or packed in a way that zipfile does not know
        raise Refused(f"{path}: {error}; unpack it yourself") from None


def _parts(file: BinaryIO, split: str, where: str) -> Iterator[tuple[str, bytes]]:
    """(where it stands, its bytes) of each piece that may be a document."""
    if split == "file":
        yield where, whole(file, where)
    elif split == "line":
        yield from ((f"{where}:{n}", line) for n, line in enumerate(lines(file, where), 1))
    else:
        paragraph, start = [], 1
        for number, line in enumerate(lines(file, where), 1):
            if line.strip():
                paragraph.append(line)
                continue
            yield f"{where}:{start}", b"".join(paragraph)
            paragraph, start = [], number + 1
        yield f"{where}:{start}", b"".join(paragraph)
