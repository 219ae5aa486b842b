"""Documents that do not look like prose: Gopher's quality rules (Rae et al. 2021, section A1.1)."""

from typing import Annotated

from data_tools.documents import Document, Dropped
from data_tools.words import Words, marks, words
from januslm.config import Allowed

Share = Annotated[float, Allowed(low=0)]
Count = Annotated[int, Allowed(low=0)]

BULLETS = ("•", "-", "*", "‣", "◦", "▪")
ELLIPSES = ("...", "…")


def of_text(
    document: Document,
    *,
    least_words: Count = 50,  # marks standing alone are not counted
    most_words: Count = 100_000,  # the same
    least_mean_length: Share = 3.0,  # letters in a word on average, marks alone not counted
    most_mean_length: Share = 10.0,  # the same
    most_symbols: Share = 0.1,  # "#" to words, and ellipses to words
    most_bullets: Share = 0.9,  # share of lines that begin with a bullet
    most_ellipses: Share = 0.3,  # share of lines that end with an ellipsis
    least_alphabetic: Share = 0.8,  # share of words with a letter of an alphabet
    least_stop_words: Count = 2,  # different ones
    # those, in small letters
    stop_words: tuple[str, ...] = ("the", "be", "to", "of", "and", "that", "have", "with"),
    word: Words = "spaces",  # "spaces" between words, or "marks" as well: data_tools/words.py
) -> Document | Dropped:
    """Drop by the first rule that is broken, in the order of the options."""
    text = document.text
    found = words(text, word)
    alone = marks()
    proper = [one for one in found if one not in alone]
    mean = sum(map(len, proper)) / len(proper) if proper else 0.0
    for rule, number, low, high in (
        ("words", len(proper), least_words, most_words),
        ("letters in a word", mean, least_mean_length, most_mean_length),
        ("# to words", _ratio(text.count("#"), found), 0.0, most_symbols),
        ("ellipses to words", _ratio(sum(map(text.count, ELLIPSES)), found), 0.0, most_symbols),
    ):
        if not low <= number <= high:
            return _dropped(rule, number, low, high)
    lines = [line for line in text.split("\n") if line.strip()]
    bullets = sum(line.lstrip().startswith(BULLETS) for line in lines)
    ellipses = sum(line.rstrip().endswith(ELLIPSES) for line in lines)
    alphabetic = sum(one.isalpha() or any(map(str.isalpha, one)) for one in found)
    stops = len({*text.lower().split()}.intersection(stop_words))
    for rule, number, low, high in (
        ("lines with a bullet", _ratio(bullets, lines), 0.0, most_bullets),
        ("lines with an ellipsis", _ratio(ellipses, lines), 0.0, most_ellipses),
        ("words with a letter", _ratio(alphabetic, found), least_alphabetic, 1.0),
        ("stop words", stops, least_stop_words, len(stop_words)),
    ):
        if not low <= number <= high:
            return _dropped(rule, number, low, high)
    return document


def _ratio(count: int, of: list[str]) -> float:
    return count / len(of) if of else 0.0


def _dropped(rule: str, number: float, low: float, high: float) -> Dropped:
    bound = f"below {low:g}" if number < low else f"above {high:g}"
    return Dropped(f"gopher_quality: {rule} {bound}", number)
