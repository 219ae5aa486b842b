"""Any dataset of the `datasets` library: saved on disk, or on the hub."""

from collections.abc import Iterator
from functools import cache, partial
from pathlib import Path

from data_tools.documents import Document, Dropped, Input, Invalid, document
from januslm.config import Refused

ROWS = 100_000  # per input; fixed, so that the shards do not depend on the number of processes


def inputs(
    root: Path,
    *,
    path: str,
    name: str = "",
    split: str = "train",
    field: str = "text",
    invalid: Invalid = "replace",  # what to do with bytes that are not UTF-8
) -> list[Input]:
    """One input per 100,000 rows.

    path: a folder under root written by `save_to_disk`, or a name on the hub.  name: its
    configuration on the hub.  split: as `load_dataset` takes it.  field: the column of the text.
    """
    place = str(root / path) if (root / path).is_dir() else path
    data = _dataset(place, name, split)
    if field not in data.column_names:
        raise Refused(f"{path}: no column {field!r}, there are {', '.join(data.column_names)}")
    size = data.data.nbytes
    return [
        Input(
            f"{path}/{split}/{start}",
            size * min(ROWS, len(data) - start) // len(data),
            partial(_read, place, name, split, field, invalid, start),
        )
        for start in range(0, len(data), ROWS)
    ]


@cache
def _dataset(path: str, name: str, split: str):
    import datasets  # two seconds that other sources need not wait

    try:
        if (Path(path) / "state.json").exists():
            return datasets.load_from_disk(path)
        if (Path(path) / "dataset_dict.json").exists():
            return datasets.load_from_disk(path)[split]
        return datasets.load_dataset(path, name or None, split=split)
    except KeyError:
        raise Refused(f"{path}: no split {split!r}") from None
    except Exception as error:  # the library raises a dozen types, network errors among them
        reason = " ".join(str(error).split())
        raise Refused(f"{path}: `datasets` cannot load it ({reason[:300]})") from None


def _read(
    path: str, name: str, split: str, field: str, invalid: str, start: int
) -> Iterator[Document | Dropped]:
    data = _dataset(path, name, split).select_columns([field])
    for first in range(start, min(start + ROWS, len(data)), 1000):
        try:
            values = data[first : first + 1000][field]
        except Exception as error:  # damaged bytes; the library raises a dozen types
            reason = " ".join(str(error).split())
            raise Refused(f"{path}: rows from {first}: damaged ({reason[:300]})") from None
        for number, value in enumerate(values, first):
            if isinstance(value, str):
                yield document(value, f"{path}/{split}", invalid, f"{path}: row {number}")
            else:
                yield Dropped(f"no text under {field!r}")
