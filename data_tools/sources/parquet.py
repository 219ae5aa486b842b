"""Parquet files: one row a document, its text in one column."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path

from data_tools.documents import Dropped, Found, Input, Invalid, document
from data_tools.files import File, matching, raw
from data_tools.formats import PARQUET
from januslm.config import Refused

ROWS = 1024  # per read, so that memory does not grow with the file


def inputs(
    root: Path, *, files: list[str], field: str = "text", invalid: Invalid = "replace"
) -> list[Input]:
    """One input per file.

    files: patterns below root, ** for any depth, or addresses.  field: the column that holds the
    text.  invalid: what to do with bytes that are not UTF-8.
    """
    return [
        Input(file.name, file.bytes, partial(_read, file, field, invalid), file.version)
        for file in matching(root, files, PARQUET)
    ]


def _read(file: File, field: str, invalid: str) -> Iterator[Found]:
    import pyarrow  # half a second that other sources need not wait
    import pyarrow.parquet

    where = file.place
    try:
        with raw(file) as stream, pyarrow.parquet.ParquetFile(stream) as table:
            columns = table.schema_arrow.names
            if field not in columns:
                raise Refused(f"{where}: no column {field!r}, there are {', '.join(columns)}")
            number = 0
            for batch in table.iter_batches(ROWS, columns=[field]):
                column = batch.column(0).cast(pyarrow.large_binary())
                for value in column.to_pylist():
                    number += 1
                    if value is None:
                        yield Dropped(f"no text under {field!r}")
                    else:
                        yield document(value, file.name, invalid, f"{where}: row {number}")
    except (pyarrow.ArrowException, OSError) as error:
        reason = " ".join(str(error).split())
        raise Refused(f"{where}: not a readable parquet file ({reason[:300]})") from None
