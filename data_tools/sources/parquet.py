"""Parquet files: one row a document, its text in one column."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path

from data_tools.documents import Document, Dropped, Input, Invalid, document, matching
from januslm.config import Refused

ROWS = 1024  # per read, so that memory does not grow with the file


def inputs(
    root: Path, *, files: list[str], field: str = "text", invalid: Invalid = "replace"
) -> list[Input]:
    """One input per file.

    files: patterns below root.  field: the column that holds the text.  invalid: what to do with
    bytes that are not UTF-8.
    """
    return [
        Input(name, path.stat().st_size, partial(_read, name, path, field, invalid))
        for name, path in matching(root, files)
    ]


def _read(name: str, path: Path, field: str, invalid: str) -> Iterator[Document | Dropped]:
    import pyarrow  # half a second that other sources need not wait
    import pyarrow.parquet

    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            columns = file.schema_arrow.names
            if field not in columns:
                raise Refused(f"{path}: no column {field!r}, there are {', '.join(columns)}")
            number = 0
            for batch in file.iter_batches(ROWS, columns=[field]):
                column = batch.column(0).cast(pyarrow.large_binary())
                for value in column.to_pylist():
                    number += 1
                    if value is None:
                        yield Dropped(f"no text under {field!r}")
                    else:
                        yield document(value, name, invalid, f"{path}: row {number}")
    except (pyarrow.ArrowException, OSError) as error:
        raise Refused(f"{path}: not a readable parquet file ({error})") from None
