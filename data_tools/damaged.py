"""Damaged sentence -> sentence pairs from docstrings: a task at which a model of minutes succeeds.

The target is a sentence as its author wrote it.  The source is the same in lower case, without
punctuation, with some words split in two and some run together.
"""

import random
import re
from collections.abc import Iterator

from xxhash import xxh3_64_intdigest

from data_tools.package_pairs import PackagePair
from data_tools.prose import paragraphs

WORDS = (6, 20)  # of a sentence
SPLIT = 0.15  # of the words of at least LONG letters fall into two
LONG = 5
JOINED = 0.1  # of the gaps between words are closed

END = re.compile(r"(?<=[.!?])\s+(?=[A-Z])")
SENTENCE = re.compile(r"[A-Z].*[.!?]")
# No code, no quotation, no letter that stands for a variable: nothing that cannot be guessed.
WORD = re.compile(r"(?:[A-Za-z]{2,}|[aAI])(?:['-][A-Za-z]+)*[,;:]?[.!?]?")
NAME = re.compile(r"[a-z][A-Z]|[A-Z]{2,}[a-z]")  # camelCase
SIGN = re.compile(r"[^a-z ]")


def pairs(package: str, where: str, text: str) -> Iterator[PackagePair | str]:
    """The sentences of one docstring, or the reasons why they are left out."""
    found = [one for whole in paragraphs(text) for one in END.split(whole)]
    for number, target in enumerate(found, 1):
        words = target.split()
        if not WORDS[0] <= len(words) <= WORDS[1]:
            yield f"not of {WORDS[0]} to {WORDS[1]} words"
        elif not SENTENCE.fullmatch(target):
            yield "no sentence from a capital to a full stop"
        elif not all(WORD.fullmatch(one) and not NAME.search(one) for one in words):
            yield "code, numbers, quotations or signs"
        else:
            yield PackagePair(f"{where}:{number}", package, damaged(target), target)


def damaged(sentence: str) -> str:
    """What is left of a sentence: the same on every machine, since its hash is the seed."""
    rng = random.Random(xxh3_64_intdigest(sentence.encode()))
    words = SIGN.sub("", sentence.lower().replace("-", " ")).split()
    parts: list[str] = []
    for word in words:
        if len(word) >= LONG and rng.random() < SPLIT:
            cut = rng.randrange(2, len(word) - 1)
            word = f"{word[:cut]} {word[cut:]}"
        joined = bool(parts) and rng.random() < JOINED
        parts.append(word if not parts or joined else f" {word}")
    return "".join(parts)
