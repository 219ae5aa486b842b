"""Texts of one's own: lines, JSONL, CSV or TSV, read with their columns and written with one more.

`-` is stdin and stdout.  What comes in as one kind goes out as that kind.
"""

import io
import json
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from januslm.config import Refused, suggest
from januslm.data import tables
from januslm.data.tables import DIALECTS

KINDS = ("lines", "jsonl", "csv", "tsv")
STREAM = "-"
COLUMN = "source"


@dataclass(frozen=True)
class Texts:
    """The rows of a file, each with all its columns, and which of them holds the text."""

    kind: str
    column: str
    rows: list[dict]

    @property
    def texts(self) -> list[str]:
        return [row[self.column] for row in self.rows]

    @property
    def heading(self) -> list[str]:
        """Columns of a table, in their order."""
        return list(self.rows[0])


def kind_of(place: str, named: str | None) -> str:
    """As named, else by the end of the file's name; lines where that says nothing."""
    if named is not None and named not in KINDS:
        raise Refused(f"--format must be one of {', '.join(KINDS)}, got {named!r}")
    ending = Path(place).suffix[1:].lower()
    return named or (ending if ending in KINDS else "lines")


def shown(place: str) -> str:
    """How a file is called in messages."""
    return "stdin" if place == STREAM else place


def read(place: str, kind: str, column: str | None, sure: bool = True) -> Texts:
    """All texts of a file or of stdin; Refused, with the line, for what cannot be read as `kind`.

    column: of JSONL, CSV and TSV, COLUMN by default.  sure: the kind was named; else lines that
    look like JSON objects are Refused, too.
    """
    if kind == "lines" and column:
        raise Refused("--column is for JSONL, CSV and TSV, not for lines; name one with --format")
    where = shown(place)
    text = _decoded(_raw(place), where)
    wanted = column or COLUMN
    if kind == "lines":
        rows = [{wanted: line} for line in _lines(text)]
        if not sure and rows and _is_object(rows[0][wanted]):
            raise Refused(f"{where}: looks like JSONL; --format jsonl, or lines, says what it is")
    elif kind == "jsonl":
        rows = list(_objects(text, where, wanted))
    else:
        rows = list(_table(text, where, wanted, kind))
    if not rows:
        raise Refused(f"{where}: has no texts")
    return Texts(kind, wanted, rows)


def check_into(texts: Texts, into: str) -> None:
    """Refused where the column to write is there already."""
    if texts.kind != "lines" and any(into in row for row in texts.rows):
        raise Refused(f"column {into!r} is there already; name another one with --into")


def heading(texts: Texts, into: str) -> str:
    """What comes before the first row, with its line end."""
    return tables.line([*texts.heading, into], texts.kind) if texts.kind in DIALECTS else ""


def with_column(texts: Texts, row: dict, into: str, prediction: str, others: list[dict]) -> str:
    """One row with its prediction, and its line end; lines have nothing but the prediction."""
    if texts.kind == "lines":
        return prediction + "\n"
    if texts.kind == "jsonl":
        more = {"others": others} if others else {}
        return json.dumps(row | {into: prediction} | more, ensure_ascii=False) + "\n"
    return tables.line([*row.values(), prediction], texts.kind)


def _raw(place: str) -> bytes:
    if place == STREAM:
        return sys.stdin.buffer.read()
    try:
        return Path(place).read_bytes()
    except OSError as error:
        raise Refused(f"{place}: cannot be read ({error.strerror})") from None


def _decoded(raw: bytes, where: str) -> str:
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        number = raw.count(b"\n", 0, error.start) + 1
        byte, place = raw[error.start], error.start - raw.rfind(b"\n", 0, error.start)
        raise Refused(
            f"{where}:{number}: not UTF-8 text: {error.reason} 0x{byte:02x}, byte {place}"
        ) from None


def _lines(text: str) -> list[str]:
    """Ended by a line feed and by nothing else, so that line n stays line n."""
    lines = text.split("\n")
    return [line.rstrip("\r") for line in (lines if lines[-1] else lines[:-1])]


def _is_object(line: str) -> bool:
    try:
        return isinstance(json.loads(line), dict)
    except ValueError:
        return False


def _objects(text: str, where: str, column: str) -> Iterator[dict]:
    for number, line in enumerate(_lines(text), 1):
        place = f"{where}:{number}"
        try:
            row = json.loads(line)
        except ValueError as error:
            raise Refused(f"{place}: not JSON ({getattr(error, 'msg', error)})") from None
        if not isinstance(row, dict):
            raise Refused(f"{place}: must be one JSON object, got {line:.40}")
        _check_column(column, row, place)
        if not isinstance(row[column], str):
            raise Refused(f"{place}: {column!r} must be a text, got {row[column]!r:.40}")
        if re.search("[\ud800-\udfff]", json.dumps(row, ensure_ascii=False)):
            raise Refused(f"{place}: has half of a surrogate pair: a cut text")
        yield row


def _table(text: str, where: str, column: str, kind: str) -> Iterator[dict]:
    for place, row in tables.rows(io.StringIO(text, newline=""), where, kind):
        _check_column(column, row, place)
        yield row


def _check_column(column: str, there: Sequence[str] | dict, place: str) -> None:
    if column not in there:
        hint = suggest(column, there)
        raise Refused(f"{place}: no column {column!r}{hint}; name one with --column")
