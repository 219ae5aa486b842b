"""Paragraphs with the same words; a document loses those that came before, in it or another.

Two passes over the sources: the paragraphs of all documents that pass the filters of texts decide
first, then each document is read again, without those that are to go, and tokenized.
"""

import re
from functools import partial
from itertools import pairwise
from typing import Annotated, Literal

from data_tools.documents import Document
from data_tools.duplicates import Equal
from januslm.config import Allowed

# the ends of paragraphs, with all blank lines that follow
ENDS = {"blank": re.compile(r"\n(?:[^\S\n]*\n)+"), "line": re.compile(r"\n(?:[^\S\n]*\n)*")}


def deduplicator(
    *,
    split: Literal["blank", "line"] = "blank",
    least_words: Annotated[int, Allowed(low=0)] = 10,
) -> Equal:
    """White space does not count; what is left of a document stays as it was.

    split: what ends a paragraph, a blank line or a line feed.
    least_words: paragraphs of fewer words are left alone: headings, signs in code.
    """
    return Equal(partial(_key, least_words=least_words), pieces=partial(_pieces, ends=ENDS[split]))


def _pieces(text: str, ends: re.Pattern) -> list[str]:
    """The paragraphs, each with the white space behind it: end to end they are the text."""
    places = [0, *(found.end() for found in ends.finditer(text)), len(text)]
    return [text[a:b] for a, b in pairwise(places) if a < b]


def _key(document: Document, least_words: int) -> bytes | None:
    words = document.text.split()
    return " ".join(words).encode() if len(words) >= max(1, least_words) else None
