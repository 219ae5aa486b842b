"""Rows by column: JSONL, CSV, TSV, parquet, text files side by side, a Hugging Face dataset."""

import re
from collections.abc import Callable, Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

from januslm.config import Refused, json_table, suggest
from januslm.data import tables, text_pairs
from januslm.data.tables import Row
from januslm.data.text_pairs import lines, records

ROWS = 1024  # of a parquet file or a dataset at a time


def rows(root: Path, name: str, wanted: Sequence[str], header: Sequence[str]) -> Iterator[Row]:
    """The rows of a file or folder called `name` below root; each has the columns `wanted`.

    name: .jsonl, .csv, .tsv, .parquet, plain or (not parquet) .gz; `train.{de,en}`, text files
    whose columns are called as the braces say; a folder that `datasets` wrote by save_to_disk.
    wanted: dots go into nested objects.  header: the columns of a .csv or .tsv without such a line.
    Refused, naming file and line, for what is not there or cannot be read.
    """
    found = _opened(root, name, header)
    first = next(found, None)
    if first is None:
        return
    where, cells = first
    for column in wanted:
        if _known(cells, column):
            continue
        raise Refused(f"{where}: no column {column!r}{suggest(column, cells)}")
    for place, cells in chain([first], found):
        yield place, {column: _cell(cells, column) for column in wanted}


def _opened(root: Path, name: str, header: Sequence[str]) -> Iterator[Row]:
    if "{" in name:
        return _side_by_side(root, name)
    path = root / name
    if not path.exists():
        raise Refused(f"{root}: no data of task 'pairs' there; looked for {path}")
    if path.is_dir():
        return _dataset(path)
    kind = path.with_suffix("").suffix if path.suffix == ".gz" else path.suffix
    if kind not in _READERS or (kind == ".parquet" and path.suffix == ".gz"):
        raise Refused(
            f"{path}: what is it? It may be {', '.join(_READERS)}, text files written as "
            "train.{de,en}, or a folder of a Hugging Face dataset"
        )
    if header and kind not in (".csv", ".tsv"):
        raise Refused(f"{path}: header is for .csv and .tsv; this file names its columns itself")
    return _READERS[kind](path, header)


def _known(cells: dict, column: str) -> bool:
    head, _, rest = column.partition(".")
    inside = cells.get(head)
    return column in cells or bool(rest and isinstance(inside, dict) and _known(inside, rest))


def _cell(cells: dict, column: str) -> Any:
    if column in cells:
        return cells[column]
    head, _, rest = column.partition(".")
    inside = cells.get(head)
    return _cell(inside, rest) if rest and isinstance(inside, dict) else None


def _objects(path: Path, header: Sequence[str]) -> Iterator[Row]:
    del header
    for number, record in enumerate(records(path), 1):
        if not isinstance(record, dict):
            raise Refused(f"{path}:{number}: must be one object a line, got {record!r:.40}")
        yield f"{path}:{number}", record


def _delimited(path: Path, header: Sequence[str]) -> Iterator[Row]:
    kind = path.with_suffix("").suffix if path.suffix == ".gz" else path.suffix
    return tables.rows((f"{line}\n" for line in lines(path)), str(path), kind[1:], header)


def _side_by_side(root: Path, name: str) -> Iterator[Row]:
    """train.{de,en}: line n of each file is row n."""
    found = re.fullmatch(r"([^{}]*)\{([^{}]+,[^{}]+)\}([^{}]*)", name)
    if not found:
        raise Refused(f"{name!r}: text files side by side are written as train.{{de,en}}")
    names = [part.strip() for part in found[2].split(",")]
    paths = [root / f"{found[1]}{part}{found[3]}" for part in names]
    for path in paths:
        if not path.is_file():
            raise Refused(f"{root}: no data of task 'pairs' there; looked for {path}")
    counts = [sum(1 for _ in lines(path)) for path in paths]
    for path, count in zip(paths, counts, strict=True):
        if count != counts[0]:
            raise Refused(f"{paths[0]} has {counts[0]} lines and {path} has {count}")
    for number, row in enumerate(zip(*map(lines, paths), strict=True), 1):
        yield f"{paths[0]}:{number}", dict(zip(names, row, strict=True))


def _parquet(path: Path, header: Sequence[str]) -> Iterator[Row]:
    import pyarrow  # half a second that other files need not wait
    import pyarrow.parquet

    del header
    text_pairs.reading(path)
    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            yield from _batches(path, file.iter_batches(ROWS))
    except (pyarrow.ArrowException, OSError) as error:
        raise Refused(f"{path}: not a readable parquet file ({error})") from None


def _dataset(folder: Path) -> Iterator[Row]:
    """The Arrow files that save_to_disk writes, without the seconds `datasets` takes to import."""
    import pyarrow

    if (folder / "dataset_dict.json").is_file():
        splits = json_table(folder / "dataset_dict.json").get("splits", [])
        raise Refused(
            f"{folder}: has {', '.join(splits)}; name one of them, {folder / str(splits[0])}"
        )
    if not (folder / "state.json").is_file():
        raise Refused(f"{folder}: a folder without state.json is no Hugging Face dataset on disk")
    for part in json_table(folder / "state.json").get("_data_files", []):
        path = folder / part["filename"]
        text_pairs.reading(path)
        try:
            with pyarrow.memory_map(str(path)) as file:
                yield from _batches(path, pyarrow.ipc.open_stream(file))
        except (pyarrow.ArrowException, OSError) as error:
            raise Refused(f"{path}: not a readable Arrow file ({error})") from None


def _batches(path: Path, batches) -> Iterator[Row]:
    number = 0
    for batch in batches:
        for row in batch.to_pylist():
            number += 1
            yield f"{path}: row {number}", row


_READERS: dict[str, Callable[[Path, Sequence[str]], Iterator[Row]]] = {
    ".jsonl": _objects,
    ".json": _objects,
    ".csv": _delimited,
    ".tsv": _delimited,
    ".parquet": _parquet,
}
