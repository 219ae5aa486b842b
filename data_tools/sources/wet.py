"""WET files, plain or .gz: texts that a crawler's owner extracted, as Common Crawl publishes."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path

from data_tools.documents import (
    LONGEST,
    Document,
    Dropped,
    Found,
    Input,
    Invalid,
    Span,
    document,
)
from data_tools.files import File, matching
from data_tools.formats import WARC
from data_tools.sources._warc_records import records, with_headers


def inputs(root: Path, *, files: list[str], invalid: Invalid = "replace") -> list[Input]:
    """One input per file.

    files: patterns below root, ** for any depth, or addresses.  invalid: what to do with bytes
    that are not UTF-8.
    """
    return [
        Input(file.name, file.bytes, partial(_read, file, invalid), file.version, file.shared)
        for file in matching(root, files, WARC)
    ]


def _read(file: File, invalid: str, span: Span | None = None) -> Iterator[Found]:
    for record in records(file, LONGEST.get(), span):
        if isinstance(record, Dropped):
            yield record
            continue
        kind = record.headers.get("warc-type", "")
        if kind != "conversion":
            yield Dropped(f"no text: WARC {kind[:20] or 'record without a type'}")
            continue
        found = document(record.block, file.name, invalid, record.where)
        yield with_headers(found, record) if isinstance(found, Document) else found
