"""CSV and TSV files, plain or packed: a row a document, its text in one column."""

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from data_tools.documents import LONGEST, Document, Dropped, Found, Input, Invalid, document
from data_tools.files import File, matching
from data_tools.formats import TEXT, UTF_16, UTF_32
from data_tools.text_lines import lines, text
from januslm.config import Refused
from januslm.data.tables import DIALECTS, rows

READS = (TEXT, UTF_16, UTF_32)


def inputs(
    root: Path,
    *,
    files: list[str],
    field: str = "text",
    url_field: str = "",
    id_field: str = "",
    header: tuple[str, ...] = (),
    invalid: Invalid = "replace",  # what to do with bytes that are not UTF-8
) -> list[Input]:
    """One input per file, whose name ends in .csv or .tsv (or .csv.gz, ...).

    files: patterns below root, ** for any depth, or addresses.  field: the column of the text.
    url_field: the column of its address, if there is one.  id_field: the column of its name, if
    there is one.  header: the columns where the first line is a row already.
    """
    columns = _Columns(field, url_field, id_field, header)
    return [
        Input(
            file.name, file.bytes, partial(_read, file, _kind(file), columns, invalid), file.version
        )
        for file in matching(root, files, *READS)
    ]


class _Columns(NamedTuple):
    text: str
    url: str
    id: str
    header: tuple[str, ...]


def _kind(file: File) -> str:
    path = PurePosixPath(file.place.partition("?")[0])
    kind = (path.with_suffix("") if file.packed else path).suffix.lower().removeprefix(".")
    if kind not in DIALECTS:
        raise Refused(f"{file.place}: the name of a table must end in .csv or .tsv")
    return kind


def _read(file: File, kind: str, columns: _Columns, invalid: str) -> Iterator[Found]:
    most = LONGEST.get()
    with text(file, *READS) as stream:
        # what is not UTF-8 goes through as half letters, for `document` to treat
        decoded = (_text(raw, file, number, most) for raw, number, _ in lines(stream, most))
        for where, row in rows(decoded, file.place, kind, columns.header, most):
            for key in (columns.text, columns.url, columns.id):
                if key and key not in row:
                    raise Refused(f"{file.place}: no column {key!r}, there are {', '.join(row)}")
            raw = row[columns.text].encode("utf-8", "surrogateescape")
            found = document(raw, file.name, invalid, where)
            if isinstance(found, Document) and (columns.url or columns.id):
                facts = {"id": row[columns.id]} if columns.id else {}
                found = replace(found, url=row.get(columns.url, ""), facts=facts)
            yield found if row[columns.text] else Dropped(f"no text under {columns.text!r}")


def _text(raw: bytes | None, file: File, number: int, most: int) -> str:
    if raw is None:
        raise Refused(f"{file.place}:{number}: a line of more than {most:,} bytes")
    return raw.decode("utf-8", "surrogateescape")
