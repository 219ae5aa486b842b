"""Lists, menus and pages of snippets: FineWeb's own rules (Penedo et al. 2024, section 3.6)."""

from typing import Annotated

from data_tools.documents import Document, Dropped
from data_tools.filters.gopher_repetition import came_before
from data_tools.words import SENTENCE_ENDS, Words, words
from januslm.config import Allowed

Share = Annotated[float, Allowed(low=0)]

ENDS = (*SENTENCE_ENDS, "'", '"')


def of_text(
    document: Document,
    *,
    least_ended: Share = 0.12,  # share of lines that end as sentences or quotations do
    most_short: Share = 0.67,  # share of lines that are short
    short: Annotated[int, Allowed(low=0)] = 30,  # characters: up to this a line is short
    most_again: Share = 0.01,  # share of characters in lines that came before
    most_breaks: Share = 0.3,  # line feeds to words
    word: Words = "spaces",  # "spaces" between words, or "marks" as well: data_tools/words.py
) -> Document | Dropped:
    """Drop by the first rule that is broken, in the order of the options; blank lines are none.

    most_again: as in the code that made FineWeb; the paper has 0.1.
    """
    text = document.text
    lines = [line for line in text.split("\n") if line.strip()]
    if not lines:
        return Dropped("fineweb: no line with anything on it", 0.0)
    ended = sum(line.rstrip().endswith(ENDS) for line in lines) / len(lines)
    if ended < least_ended:
        return Dropped(f"fineweb: lines that end as sentences below {least_ended:g}", ended)
    brief = sum(len(line) <= short for line in lines) / len(lines)
    if brief > most_short:
        return Dropped(f"fineweb: lines of {short} characters or less above {most_short:g}", brief)
    breaks = text.count("\n")
    again = came_before(lines)[1] / (len(text) - breaks)
    if again > most_again:
        return Dropped(f"fineweb: characters in lines again above {most_again:g}", again)
    ratio = breaks / len(words(text, word))
    if ratio > most_breaks:
        return Dropped(f"fineweb: line feeds to words above {most_breaks:g}", ratio)
    return document
