"""What a source gives: inputs to share out among processes, and the documents inside each."""

from collections.abc import Callable, Iterator, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import pairwise
from math import ceil
from typing import Literal

from januslm.config import Refused

# What to do with bytes that are not UTF-8 (or a lone surrogate in a JSON escape).
Invalid = Literal["replace", "drop", "refuse"]

# Bytes of one document, which no source holds more of: a build sets it to filters.max_bytes.limit.
LONGEST: ContextVar[int] = ContextVar("LONGEST", default=10_000_000)


@dataclass(frozen=True)
class Document:
    """One text.  `group` is what validation may hold out as a whole: a package, a file.

    facts: what its source and the filters found out about it, by name: a language, a score.
    """

    text: str
    group: str
    repaired: bool = False
    url: str = ""  # where it was read on the web, if it was
    facts: Mapping[str, str | float] = field(default_factory=dict)

    @cached_property
    def raw(self) -> bytes:
        """The text as UTF-8."""
        return self.text.encode()


@dataclass(frozen=True)
class Dropped:
    """A document that a source or a filter did not pass on; each is counted by its reason.

    number: what the rule measured, where it measured something.  words: those of the document that
    decided, where some did.
    """

    reason: str
    number: float | None = None
    words: str = ""


Found = Document | Dropped
Span = tuple[int, int]  # bytes [start, end) of a file


@dataclass(frozen=True)
class Input:
    """A piece of work for one process: `read()` gives its documents, the same ones every time.

    `read` travels to other processes, so it is a module's function or a functools.partial of one.
    version: changes when the content does.  divisible: `read(span=(start, end))` gives the
    documents that begin in these bytes, so that many processes can share a large file.
    """

    name: str
    bytes: int
    read: Callable[..., Iterator[Found]]
    version: str = ""
    divisible: bool = False


@dataclass(frozen=True)
class _Piece:
    """The reading of some bytes of an input that several processes share."""

    read: Callable[..., Iterator[Found]]
    span: Span

    def __call__(self) -> Iterator[Found]:
        return self.read(span=self.span)


def pieces(whole: Input, most: float) -> list[Input]:
    """An input as equal pieces of at most `most` bytes, where it can be divided."""
    count = ceil(whole.bytes / most)
    if not whole.divisible or count < 2:
        return [whole]
    edges = [whole.bytes * place // count for place in range(count + 1)]
    return [
        replace(whole, bytes=end - start, read=_Piece(whole.read, (start, end)))
        for start, end in pairwise(edges)
    ]


def document(raw: bytes | str, group: str, invalid: str, where: str) -> Found:
    """Make a document of raw text, treating what is not UTF-8 as the option `invalid` says."""
    if isinstance(raw, str):
        raw = raw.encode("utf-8", "surrogatepass")
    try:
        return Document(raw.decode("utf-8"), group)
    except UnicodeDecodeError as error:
        if invalid == "refuse":
            raise Refused(
                f"{where}: not UTF-8 at byte {error.start} ({error.reason}); "
                "invalid = 'replace' or 'drop' would read on"
            ) from None
    if invalid == "drop":
        return Dropped("invalid UTF-8")
    return Document(raw.decode("utf-8", "replace"), group, repaired=True)


def too_long(most: int) -> Dropped:
    """What a source gives in place of a document that it did not hold; as filters.max_bytes."""
    return Dropped(f"longer than {most} bytes")
