"""What makes documents duplicates: the two kinds of deduplicators, and those of a recipe."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from xxhash import xxh3_128_digest

from data_tools.documents import Document
from januslm.config import Refused
from januslm.registry import find, options

PACKAGE = "data_tools.dedup"
KEY = 16  # bytes; all zero: like no other

Keep = Literal["first", "longest"]  # which of several duplicates stays; longest in tokens


@dataclass(frozen=True)
class Equal:
    """Documents with the same key are duplicates; None: like no other.

    pieces: what a text is cut into, each piece a document of its own for the search; what is left
    of a text is its other pieces, end to end.  None: whole documents are compared.
    """

    key: Callable[[Document], bytes | None]
    keep: Keep = "first"
    pieces: Callable[[str], list[str]] | None = None

    bands, size = 1, KEY

    def print_of(self, document: Document) -> bytes:
        """What is kept of a document until all are there: xxh3_128 of the key."""
        key = self.key(document)
        return bytes(KEY) if key is None else xxh3_128_digest(key)


@dataclass(frozen=True)
class Similar:
    """Documents that share a key are compared by their sketches; those that agree are duplicates.

    sketched: of each band a key of 16 bytes, and a sketch; None: like no other.
    sketch: bytes of a sketch, a multiple of 8.
    agree: of sketches, uint8 [pairs, sketch] twice, bool [pairs]; None: a shared key is enough.
    """

    sketched: Callable[[Document], tuple[Sequence[bytes], bytes] | None]
    bands: int
    sketch: int
    agree: Callable[[np.ndarray, np.ndarray], np.ndarray] | None = None
    keep: Keep = "first"

    @property
    def size(self) -> int:
        """Bytes of a print."""
        return self.bands * KEY + self.sketch

    def print_of(self, document: Document) -> bytes:
        """What is kept of a document until all are there: the keys, then the sketch."""
        found = self.sketched(document)
        if found is None:
            return bytes(self.size)
        keys, sketch = found
        return b"".join([*keys, sketch])


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
    found = {
        name: options(find(PACKAGE, name).deduplicator, table, f"{where}: deduplicate.{name}")
        for name, table in given.items()
    }
    if late := [name for name in cutting(found) if name != next(iter(found))]:
        raise Refused(
            f"{where}: deduplicate: {late[0]} must be the first, it changes what others compare"
        )
    return found


def cutting(ways: Mapping[str, Mapping]) -> list[str]:
    """Those that take pieces out of documents, before the tokenizer."""
    found = {name: deduplicator(name, table) for name, table in ways.items()}
    return [name for name, way in found.items() if isinstance(way, Equal) and way.pieces]


def dropping(ways: Mapping[str, Mapping]) -> dict[str, Mapping]:
    """Those that drop documents, after the tokenizer."""
    return {name: table for name, table in ways.items() if name not in cutting(ways)}
