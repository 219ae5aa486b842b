"""Documents that are too short or too long in words or characters."""

from typing import Annotated

from data_tools.documents import Document, Dropped
from data_tools.words import Words, words
from januslm.config import Allowed

Count = Annotated[int, Allowed(low=0)]


def of_text(
    document: Document,
    *,
    least_words: Count = 0,
    most_words: Count = 0,
    least_characters: Count = 0,
    most_characters: Count = 0,
    word: Words = "spaces",
) -> Document | Dropped:
    """Drop by the first limit that is passed.

    least_words: fewer are dropped; 0: no limit, here and below.
    most_words: more are dropped.
    least_characters: fewer are dropped, white space counted.
    most_characters: more are dropped.
    word: "spaces" between words, or "marks" as well: data_tools/words.py.
    """
    for what, least, most, count in (
        ("characters", least_characters, most_characters, len(document.text)),
        ("words", least_words, most_words, _count(document.text, word, least_words, most_words)),
    ):
        if count < least:
            return Dropped(f"length: fewer than {least} {what}", count)
        if most and count > most:
            return Dropped(f"length: more than {most} {what}", count)
    return document


def _count(text: str, word: Words, least: int, most: int) -> int:
    return len(words(text, word)) if least or most else 0
