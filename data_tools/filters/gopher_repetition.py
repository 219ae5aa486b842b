"""Documents that repeat themselves: Gopher's repetition rules (Rae et al. 2021, table A1)."""

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Annotated

from data_tools.documents import Document, Dropped
from data_tools.words import Words, words
from januslm.config import Allowed

Share = Annotated[float, Allowed(low=0)]
Shares = Annotated[tuple[float, ...], Allowed(low=0)]

PARAGRAPHS = re.compile(r"\n{2,}")


def of_text(
    document: Document,
    *,
    paragraphs: Share = 0.3,  # share of paragraphs that came before
    paragraph_characters: Share = 0.2,  # the same of characters in them
    lines: Share = 0.3,  # share of lines that came before, of those that are not blank
    line_characters: Share = 0.2,  # the same of characters in them
    top: Shares = (0.2, 0.18, 0.16),  # characters in the most frequent 2-, 3- and 4-gram
    again: Shares = (0.15, 0.14, 0.13, 0.12, 0.11, 0.1),  # in 5-, ... 10-grams that came before
    word: Words = "spaces",  # "spaces" between words, or "marks" as well: data_tools/words.py
) -> Document | Dropped:
    """Drop by the first rule that is broken, in the order of the options.

    Each is the most that may be: of all paragraphs or lines, or of all characters.  A frequent
    n-gram's characters are those of its words and of the spaces between them, times how often it
    comes; what comes once is no repetition.  n-grams that came before are found from the left and
    do not overlap; their characters are those of their words.
    """
    text = document.text
    for what, number, most in (
        *_parts(text, paragraphs, paragraph_characters, lines, line_characters),
    ):
        if number > most:
            return _dropped(what, number, most)
    for what, number, most in _grams(words(text, word), top, again):
        if number > most * len(text):
            return _dropped(what, number / len(text), most)
    return document


def _dropped(what: str, number: float, most: float) -> Dropped:
    return Dropped(f"gopher_repetition: {what} above {most:g}", number)


def _parts(
    text: str, paragraphs: float, paragraph_characters: float, lines: float, line_characters: float
) -> Iterator[tuple[str, float, float]]:
    """(rule, share, limit) of paragraphs and lines that came before."""
    blocks = PARAGRAPHS.split(text.strip())
    if len(blocks) > 1:
        count, size = came_before(blocks)
        yield "paragraphs again", count / len(blocks), paragraphs
        yield "characters in paragraphs again", size / len(text), paragraph_characters
    rows = [line for line in text.split("\n") if line.strip()]
    if len(rows) > 1:
        count, size = came_before(rows)
        yield "lines again", count / len(rows), lines
        yield "characters in lines again", size / len(text), line_characters


def came_before(parts: Sequence[str]) -> tuple[int, int]:
    """How many of the parts are equal to one before them, and the characters in those."""
    first = set(parts)
    if len(first) == len(parts):
        return 0, 0
    return len(parts) - len(first), sum(map(len, parts)) - sum(map(len, first))


def _grams(
    found: list[str], top: Sequence[float], again: Sequence[float]
) -> Iterator[tuple[str, int, float]]:
    """(rule, characters, share that they may be) of n-grams, as long as any comes twice."""
    for n, most in enumerate(top, 2):
        grams = ngrams(found, n)
        if len(set(grams)) == len(grams):
            return  # no longer one can come twice either
        gram, count = Counter(grams).most_common(1)[0]  # the first of the most frequent
        yield f"characters in the top {n}-gram", (sum(map(len, gram)) + n - 1) * count, most
    for n, most in enumerate(again, 5):
        grams = ngrams(found, n)
        if len(set(grams)) == len(grams):
            return
        yield f"characters in {n}-grams again", _characters_again(grams, n), most


def ngrams(found: list[str], n: int) -> list[tuple[str, ...]]:
    """All runs of n words."""
    return list(zip(*(found[start:] for start in range(n)), strict=False))


def _characters_again(grams: list[tuple[str, ...]], n: int) -> int:
    """Characters of the n-grams that came before, from the left and without overlap."""
    seen: set[tuple[str, ...]] = set()
    place = characters = 0
    while place < len(grams):
        if grams[place] in seen:
            characters += sum(map(len, grams[place]))
            place += n
        else:
            seen.add(grams[place])
            place += 1
    return characters
