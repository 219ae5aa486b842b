"""Body -> summary pairs from docstrings: a small summarization task that every machine holds.

A pair is the first paragraph of a docstring (the target) and the rest of its prose (the source).
"""

from collections.abc import Iterator

from data_tools.package_pairs import PackagePair
from data_tools.prose import letters, paragraphs, words

TARGET_WORDS = (4, 30)
SOURCE_WORDS = (20, 400)
LETTERS = 0.85  # of the characters of each side
COVERAGE = 0.25  # share of the target's words that the source has; below, nobody could guess it


def pairs(package: str, where: str, text: str) -> Iterator[PackagePair | str]:
    """The pair of one docstring, or the reason why it gives none."""
    yield _pair(package, where, text)


def _pair(package: str, where: str, text: str) -> PackagePair | str:
    head, _, rest = text.strip().partition("\n\n")
    target = " ".join(paragraphs(head, sections=False, least=0.0))
    source = " ".join(paragraphs(rest, sections=False))
    if not source:
        return "no prose after the first paragraph"
    for side, value, (least, most) in (
        ("target", target, TARGET_WORDS),
        ("source", source, SOURCE_WORDS),
    ):
        if not least <= len(value.split()) <= most:
            return f"{side} not of {least} to {most} words"
        if letters(value) < LETTERS:
            return f"{side} has less than {LETTERS:.0%} letters"
        try:
            value.encode()
        except UnicodeEncodeError:
            return "invalid UTF-8"
    asked, given = set(words(target)), set(words(source))
    if len(asked & given) < COVERAGE * len(asked):
        return f"source has less than {COVERAGE:.0%} of the target's words"
    return PackagePair(where, package, source, target)
