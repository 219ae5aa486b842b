"""JSON lines, plain or packed (.gz, .zst): one object a line, its text under one key."""

import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from data_tools.documents import (
    Document,
    Dropped,
    Input,
    Invalid,
    document,
    lines,
    matching,
    opened,
)
from januslm.config import Refused


def inputs(
    root: Path, *, files: list[str], field: str = "text", invalid: Invalid = "replace"
) -> list[Input]:
    """One input per file.

    files: patterns below root, ** for any depth.  field: the key that holds the text; dots go
    into nested objects.  invalid: also what to do with a line that is not JSON, which nothing
    can replace: "replace" and "drop" drop it.
    """
    return [
        Input(name, path.stat().st_size, partial(_read, name, path, field, invalid))
        for name, path in matching(root, files)
    ]


def _read(name: str, path: Path, field: str, invalid: str) -> Iterator[Document | Dropped]:
    with opened(path) as file:
        for number, line in enumerate(lines(file, str(path)), 1):
            yield _line(line, name, field, invalid, f"{path}:{number}")


def _line(line: bytes, name: str, field: str, invalid: str, where: str) -> Document | Dropped:
    whole = document(line, name, invalid, where)
    if isinstance(whole, Dropped) or not whole.text.strip():
        return whole
    try:
        value = json.loads(whole.text)
    except (ValueError, RecursionError) as error:
        if invalid == "refuse":
            raise Refused(f"{where}: not JSON ({error})") from None
        return Dropped("not JSON")
    for key in field.split("."):
        value = value.get(key) if isinstance(value, dict) else None
    if not isinstance(value, str):
        return Dropped(f"no text under {field!r}")
    text = document(value, name, invalid, where)
    if isinstance(text, Document) and whole.repaired:
        return Document(text.text, name, repaired=True)
    return text
