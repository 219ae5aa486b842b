"""Documents that are too long in bytes of UTF-8; every build has a limit."""

from typing import Annotated

from data_tools.documents import Document, Dropped
from januslm.config import Allowed


def of_text(
    document: Document, *, limit: Annotated[int, Allowed(low=1)] = 10_000_000
) -> Document | Dropped:
    """Drop what is too long: a tokenizer holds a document in memory as a whole.

    limit: bytes of UTF-8.
    """
    size = len(document.raw)
    return document if size <= limit else Dropped(f"longer than {limit} bytes", size)
