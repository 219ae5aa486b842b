"""Documents with the same text, to the byte."""

from data_tools.documents import Document
from data_tools.duplicates import Equal


def deduplicator() -> Equal:
    """The first one stays; the others are the same."""
    return Equal(_text)


def _text(document: Document) -> bytes:
    return document.raw
