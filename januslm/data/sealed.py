"""JSON that shows whether it is whole: each table carries a hash of everything else in it."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import xxhash

from januslm.config import Refused, json_table

KEY = "xxh3"


def sealed(table: Mapping[str, Any]) -> dict:
    """The table with its hash under "xxh3", which it must not hold already."""
    assert KEY not in table, sorted(table)
    return {**table, KEY: _digest(table)}


def is_whole(table: Any) -> bool:
    """Whether a table is what `sealed` made."""
    return isinstance(table, dict) and table.get(KEY) == _digest(table)


def read(path: str | Path) -> dict:
    """The table of a sealed JSON file, without its hash.

    Raises Refused, naming the file, where it cannot be read or is not what was written.
    """
    table = json_table(path)
    if not is_whole(table):
        raise Refused(f"{path}: damaged: its content does not match the hash in it")
    return _rest(table)


def lines(path: str | Path) -> Iterator[tuple[int, dict | None]]:
    """(number from 1, table) of each line of a sealed JSONL file; None for a damaged line."""
    with open(path, "rb") as file:
        for number, line in enumerate(file, 1):
            try:
                table = json.loads(line)
            except ValueError:
                table = None
            yield number, _rest(table) if is_whole(table) else None


def document(table: Mapping[str, Any]) -> str:
    """The text of a sealed JSON file, for people as well: an entry of the table a line."""
    return json.dumps(sealed(table), indent=1) + "\n"


def line(table: Mapping[str, Any]) -> str:
    """One line of a sealed JSONL file."""
    return json.dumps(sealed(table)) + "\n"


def _rest(table: Mapping[str, Any]) -> dict:
    return {key: value for key, value in table.items() if key != KEY}


def _digest(table: Mapping[str, Any]) -> str:
    # As read back: a float and its text are the same number, a tuple is a list, a key a text.
    plain = json.dumps(json.loads(json.dumps(_rest(table))), sort_keys=True)
    return xxhash.xxh3_64_hexdigest(plain.encode())
