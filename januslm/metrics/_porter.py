"""The stemmer inside ROUGE-1.5.5: Porter's, with the changes that its author made to step 4."""

import re
from functools import lru_cache

# It is neither Porter's paper of 1980 nor what NLTK or Google's rouge-score have. "bli" and "logi"
# are later additions of Porter's. In step 4 the endings -ment, -ent and -ion are tried after the
# others instead of among them, so that several go in a row: governmental -> government -> govern,
# and a longer ending that must stay does not save a shorter one: agreement -> agreem.

_STEP_2 = {
    "ational": "ate", "tional": "tion", "enci": "ence", "anci": "ance", "izer": "ize",
    "bli": "ble", "alli": "al", "entli": "ent", "eli": "e", "ousli": "ous", "ization": "ize",
    "ation": "ate", "ator": "ate", "alism": "al", "iveness": "ive", "fulness": "ful",
    "ousness": "ous", "aliti": "al", "iviti": "ive", "biliti": "ble", "logi": "log",
}  # fmt: skip
_STEP_3 = {
    "icate": "ic", "ative": "", "alize": "al", "iciti": "ic", "ical": "ic", "ful": "", "ness": "",
}  # fmt: skip
_STEP_4 = re.compile("(al|ance|ence|er|ic|able|ible|ant|ement|ou|ism|ate|iti|ous|ive|ize)$")

# [C](VC)^m[V]: runs of consonants and vowels; y is a vowel except after one and at the start.
_C, _V = "[^aeiou][^aeiouy]*", "[aeiouy][aeiou]*"
_VOWEL = re.compile(f"(?:{_C})?[aeiouy]")
_ONE_OR_MORE = re.compile(f"(?:{_C})?{_V}{_C}")
_ONE = re.compile(f"(?:{_C})?{_V}{_C}(?:{_V})?$")
_TWO_OR_MORE = re.compile(f"(?:{_C})?{_V}{_C}{_V}{_C}")
_SHORT = re.compile(f"{_C}[aeiouy][^aeiouwxy]$")


@lru_cache(maxsize=1 << 16)
def stem(word: str) -> str:
    """The stem of one lower-case word; words of one or two letters stay as they are."""
    if len(word) < 3:
        return word
    if word[0] == "y":
        word = "Y" + word[1:]  # never a vowel
    word = _past(_plural(word))
    if word.endswith("y") and _VOWEL.match(word[:-1]):
        word = word[:-1] + "i"
    word = _exchanged(_exchanged(word, _STEP_2), _STEP_3)
    return _final_e(_residue(word)).lower()


def _plural(word: str) -> str:
    if word.endswith(("sses", "ies")):
        return word[:-2]
    if word.endswith("s") and not word.endswith("ss"):
        return word[:-1]
    return word


def _past(word: str) -> str:
    if word.endswith("eed"):
        return word[:-1] if _ONE_OR_MORE.match(word[:-3]) else word
    rest = word.removesuffix("ed") if word.endswith("ed") else word.removesuffix("ing")
    if rest == word or not _VOWEL.match(rest):
        return word
    if rest.endswith(("at", "bl", "iz")):
        return rest + "e"
    if re.search(r"([^aeiouylsz])\1$", rest):
        return rest[:-1]
    return rest + "e" if _SHORT.match(rest) else rest


def _exchanged(word: str, endings: dict[str, str]) -> str:
    """With the new ending for the longest one that fits, if enough of a word stands before it."""
    fitting = [ending for ending in endings if word.endswith(ending)]
    if not fitting:
        return word
    ending = max(fitting, key=len)
    rest = word[: -len(ending)]
    return rest + endings[ending] if _ONE_OR_MORE.match(rest) else word


def _residue(word: str) -> str:
    found = _STEP_4.search(word)
    if found:
        word = _without(word, len(found[0]))
    if word.endswith("ment"):
        word = _without(word, 4)
    if word.endswith("ent"):
        return _without(word, 3)
    return _without(word, 3) if word.endswith(("sion", "tion")) else word


def _without(word: str, letters: int) -> str:
    rest = word[:-letters]
    return rest if _TWO_OR_MORE.match(rest) else word


def _final_e(word: str) -> str:
    if word.endswith("e"):
        rest = word[:-1]
        if _TWO_OR_MORE.match(rest) or (_ONE.match(rest) and not _SHORT.match(rest)):
            word = rest
    if word.endswith("ll") and _TWO_OR_MORE.match(word):
        word = word[:-1]
    return word
