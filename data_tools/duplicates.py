"""What makes documents duplicates: the two kinds of deduplicators, and those of a recipe."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from xxhash import xxh3_128_digest

from data_tools.documents import Document
from januslm.config import Refused
from januslm.registry import find, options

PACKAGE = "data_tools.dedup"
NOTHING = np.uint32(2**32 - 1)  # each number in the signature of a document without words

Keep = Literal["first", "longest"]  # which of several duplicates stays; longest in tokens


@dataclass(frozen=True)
class Equal:
    """Documents with the same key are duplicates; None: like no other.

    A print is xxh3_128 of the key, uint64 [2].
    """

    key: Callable[[Document], bytes | None]
    keep: Keep = "first"

    dtype, width, bands = np.dtype("<u8"), 2, 1

    def print_of(self, document: Document) -> bytes:
        """What is kept of a document until all are there; made in the worker processes."""
        key = self.key(document)
        return bytes(16) if key is None else xxh3_128_digest(key)

    def keys(self, prints: np.ndarray) -> np.ndarray:
        """uint64 [documents, 1, 2] of prints [documents, 2]; zero for those like no other."""
        return prints[:, None]


@dataclass(frozen=True)
class Similar:
    """Documents that agree in a band of their signatures, and in enough of all their numbers.

    A print is the signature, uint32 [bands * rows].
    """

    signature: Callable[[Document], np.ndarray]
    bands: int
    rows: int
    threshold: float = 0.0
    keep: Keep = "first"

    dtype = np.dtype("<u4")

    @property
    def width(self) -> int:
        """Numbers of a signature."""
        return self.bands * self.rows

    def print_of(self, document: Document) -> bytes:
        """What is kept of a document until all are there; made in the worker processes."""
        return self.signature(document).astype(self.dtype).tobytes()

    def keys(self, prints: np.ndarray) -> np.ndarray:
        """uint64 [documents, bands, 2] of prints [documents, bands * rows]; zero: like no other."""
        size = self.rows * self.dtype.itemsize
        raw = np.ascontiguousarray(prints).tobytes()
        # the band is the seed: equal numbers in different bands mean nothing
        digests = (
            xxh3_128_digest(raw[start : start + size], seed=place % self.bands)
            for place, start in enumerate(range(0, len(raw), size))
        )
        found = np.frombuffer(b"".join(digests), "<u8").reshape(len(prints), self.bands, 2)
        return np.where((prints == NOTHING).all(axis=1)[:, None, None], 0, found)

    def agree(self, ours: np.ndarray, theirs: np.ndarray) -> np.ndarray:
        """Whether pairs of prints, [pairs, bands * rows] each, are of duplicates: bool [pairs]."""
        return (ours == theirs).mean(axis=1) >= self.threshold


Deduplicator = Equal | Similar


def deduplicator(name: str, given: Mapping[str, Any]) -> Deduplicator:
    """One of data_tools/dedup/ with its options."""
    return find(PACKAGE, name).deduplicator(**given)


def tables(given: Any, where: str) -> dict[str, Any]:
    """`deduplicate` of a corpus file, a name, names or tables, as a table of options per name."""
    if isinstance(given, str):
        given = [given] if given else []
    if isinstance(given, list):
        names = [name if isinstance(name, str) else repr(name) for name in given]
        if twice := [name for name in names if names.count(name) > 1]:
            raise Refused(f"{where}: deduplicate names {twice[0]!r} twice")
        given = {name: {} for name in names}
    if not isinstance(given, Mapping):
        raise Refused(f"{where}: deduplicate must be a name, a list or tables, got {given!r}")
    return dict(given)


def checked(given: Mapping[str, Mapping], where: str) -> dict[str, dict]:
    """The same with all options of each, in the order they are asked; Refused for a mistake."""
    return {
        name: options(find(PACKAGE, name).deduplicator, table, f"{where}: deduplicate.{name}")
        for name, table in given.items()
    }
