"""Multi30k: German captions of pictures -> English, raw text, test set 2016."""

from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

from finetune.pairs import Pair, aligned, checked, folder, known
from finetune.tasks import _prepared

METRICS = ("bleu",)
DECODE = {"beam": 5, "length_penalty": 1.0, "max_length": 60}
FINETUNE: dict = {}

FILES = {"train": "train", "valid": "val", "test": "test_2016_flickr"}


def read(root: Path, split: str, skipped: Counter | None = None) -> Iterator[Pair]:
    """Pairs of {train,val,test_2016_flickr}.{de,en}(.gz), one caption a line."""
    name = FILES[known(split)]
    place = folder(root, "multi30k", f"{name}.de.gz", f"{name}.de")
    ending = ".gz" if (place / f"{name}.de.gz").is_file() else ""
    sides = [place / f"{name}.{language}{ending}" for language in ("de", "en")]
    found = (
        Pair(f"{split}-{number}", german, (english,))
        for number, (german, english) in enumerate(aligned(*sides), 1)
    )
    return checked(found, str(sides[0]), split, skipped)


def save(folder: Path, split: str, pairs: Iterable[Pair]) -> int:
    """Write pairs as `read` reads them."""
    return _prepared.save(folder, FILES[split], ("de", "en"), pairs)
