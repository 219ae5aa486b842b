"""JSON lines, plain or packed (.gz, .bz2, .xz, .zst): one object a line, its text under one key."""

import json
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from data_tools.documents import LONGEST, Document, Dropped, Found, Input, Invalid, Span, document
from data_tools.files import File, matching
from data_tools.formats import JSON_LINES, TEXT, UTF_16, UTF_32
from data_tools.text_lines import divisible, lines, place, text
from januslm.config import Refused

READS = (JSON_LINES, TEXT, UTF_16, UTF_32)
# A letter of one byte may be spelt with six, \u0041; other keys have some room beside the text.
LONGER, BESIDE = 6, 1 << 20


def inputs(
    root: Path,
    *,
    files: list[str],
    field: str = "text",
    url_field: str = "",
    id_field: str = "",
    facts: tuple[str, ...] = (),
    invalid: Invalid = "replace",
) -> list[Input]:
    """One input per file.

    files: patterns below root, ** for any depth, or addresses.  field: the key that holds the
    text; dots go into nested objects.  url_field: the key of its address, if there is one.
    id_field: the key of its name, if there is one.  facts: further keys to take along.  invalid:
    also what to do with a line that is not JSON, which nothing can replace: "replace" and "drop"
    drop it.
    """
    keys = _Keys(field, url_field, {"id": id_field} if id_field else {}, invalid)
    keys.facts.update({key.rpartition(".")[2]: key for key in facts})
    return [
        Input(file.name, file.bytes, partial(_read, file, keys), file.version, divisible(file))
        for file in matching(root, files, *READS)
    ]


class _Keys(NamedTuple):
    """Where in an object things are, dots going inwards."""

    text: str
    url: str
    facts: dict[str, str]  # name -> key
    invalid: str


def _read(file: File, keys: _Keys, span: Span | None = None) -> Iterator[Found]:
    most = LONGER * LONGEST.get() + BESIDE
    with text(file, *READS) as stream:
        for line, number, at in lines(stream, most, span):
            if line is None:
                yield Dropped(f"line longer than {most} bytes")
            else:
                yield _line(line, file.name, keys, place(file.place, number, at))


def _line(line: bytes, name: str, keys: _Keys, where: str) -> Found:
    whole = document(line, name, keys.invalid, where)
    if isinstance(whole, Dropped) or not whole.text.strip():
        return whole
    try:
        value = json.loads(whole.text.lstrip("\ufeff"))  # a mark where files were joined
    except (ValueError, RecursionError) as error:
        if keys.invalid == "refuse":
            raise Refused(f"{where}: not JSON ({error})") from None
        return Dropped("not JSON")
    body = _under(value, keys.text)
    if not isinstance(body, str):
        return Dropped(f"no text under {keys.text!r}")
    found = document(body, name, keys.invalid, where)
    if isinstance(found, Document) and (whole.repaired or keys.url or keys.facts):
        found = _with_facts(found, value, keys, found.repaired or whole.repaired)
    return found


def _under(value: Any, key: str) -> Any:
    for part in key.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    return value


def _with_facts(found: Document, value: Any, keys: _Keys, repaired: bool) -> Document:
    url = _under(value, keys.url) if keys.url else ""
    facts = {name: _under(value, key) for name, key in keys.facts.items()}
    return replace(
        found,
        repaired=repaired,
        url=url if isinstance(url, str) else "",
        facts={name: one for name, one in facts.items() if isinstance(one, str | int | float)},
    )
