"""Documents with nothing but spaces; every build drops them."""

from data_tools.documents import Document, Dropped


def of_text(document: Document) -> Document | Dropped:
    """Drop what has no words."""
    return document if document.text.strip() else Dropped("empty")
