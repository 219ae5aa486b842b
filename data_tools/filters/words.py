"""Documents with words of a list, such as C4's list of bad words."""

import re
from collections.abc import Iterator
from functools import cache, partial
from pathlib import Path
from typing import Annotated

from data_tools.documents import Document, Dropped
from data_tools.filtering import Prepared
from data_tools.filters._lists import entries, located
from data_tools.words import UNSPACED
from januslm.config import Allowed

WORD = re.compile(r"\w+")
INSIDE = re.compile(f"[{UNSPACED}]")


def prepared(root: Path, folder: Path, *, files: list[str], **rest) -> Prepared:
    """The rule with the files found, and hashes of what is in them."""
    found, hashes = located(root, files=files)
    return Prepared(partial(of_text, **rest | found), hashes)


def of_text(
    document: Document,
    *,
    words: tuple[str, ...] = (),
    files: tuple[str, ...] = (),
    most: Annotated[int, Allowed(low=0)] = 0,
) -> Document | Dropped:
    """Drop what holds more of the listed words than it may; large and small letters are the same.

    words: words and phrases, which stand alone: no letter or digit beside them, but where the
    script puts no space between words (Chinese, Japanese, Thai).
    files: patterns below root: lists with an entry a line, # before a comment.
    most: so many different ones may be there.
    """
    found = sorted(_found(document.text.lower(), *_sorted(tuple(words), tuple(files))))
    if len(found) <= most:
        return document
    return Dropped("words: has listed words", len(found), ", ".join(found[:10]))


@cache
def _sorted(given: tuple[str, ...], files: tuple[str, ...]) -> tuple[frozenset[str], list[str]]:
    """Entries that are one word, which are looked up, and the others, which are searched for."""
    every = entries(given, files)
    single = {one for one in every if WORD.fullmatch(one) and not INSIDE.search(one)}
    return frozenset(single), sorted(every - single)


def _found(text: str, single: frozenset[str], others: list[str]) -> Iterator[str]:
    if single:
        yield from single.intersection(WORD.findall(text))
    for entry in others:
        if entry in text and (INSIDE.search(entry) or _alone(entry).search(text)):
            yield entry


@cache
def _alone(entry: str) -> re.Pattern:
    return re.compile(rf"(?<!\w){re.escape(entry)}(?!\w)")
