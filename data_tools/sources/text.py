"""Plain text, as it is or packed (.gz, .zst, .zip): a document per file, paragraph or line."""

import re
import zipfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Annotated, Literal

from data_tools.documents import Document, Dropped, Input, Invalid, document, matching, opened
from januslm.config import Allowed, Refused


def inputs(
    root: Path,
    *,
    files: list[str],
    split: Literal["file", "blank", "line"] = "blank",
    encoding: str = "utf-8",
    minimum_words: Annotated[int, Allowed(low=0)] = 0,
    undo_bpe: bool = False,
    invalid: Invalid = "replace",  # what to do with bytes that are not UTF-8
) -> list[Input]:
    """One input per file; of a .zip, every member that ends in .txt.

    files: patterns below root, ** for any depth.  split: what ends a document: the file, a blank
    line, or every line.  encoding: of the files, e.g. latin-1.  minimum_words: shorter documents,
    headings for example, are dropped.  undo_bpe: ha@@ us of subword-nmt is read as haus.
    """
    try:
        "".encode(encoding)
    except LookupError:
        raise Refused(f"encoding {encoding!r} is not known; utf-8 and latin-1 are") from None
    reader = partial(
        _read, split=split, encoding=encoding, least=minimum_words, whole=undo_bpe, invalid=invalid
    )
    return [
        Input(name, path.stat().st_size, partial(reader, name, path))
        for name, path in matching(root, files)
    ]


def _read(
    name: str, path: Path, split: str, encoding: str, least: int, whole: bool, invalid: str
) -> Iterator[Document | Dropped]:
    for where, raw in _chunks(path, split):
        text = raw.strip()
        if encoding != "utf-8":
            text = raw.decode(encoding, "replace").strip().encode()
        if whole:
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
                    for where, chunk in _parts(archive.open(name), split):
                        yield f"{path}/{name}{where}", chunk
            return
        for where, chunk in _parts(file, split):
            yield f"{path}{where}", chunk


def _parts(file, split: str) -> Iterator[tuple[str, bytes]]:
    if split == "file":
        yield "", file.read()
    elif split == "line":
        yield from ((f":{number}", line) for number, line in enumerate(file, 1))
    else:
        paragraph, start = [], 1
        for number, line in enumerate(file, 1):
            if line.strip():
                paragraph.append(line)
                continue
            yield f":{start}", b"".join(paragraph)
            paragraph, start = [], number + 1
        yield f":{start}", b"".join(paragraph)
