"""What filters take for a word, a mark and the end of a sentence."""

import re
import unicodedata
from functools import cache
from typing import Literal

# spaces: a word is what stands between white space.  marks: marks of punctuation and symbols are
# words, too, the same ones in a row as one, and so are letters of scripts that put no space between
# words.  As in Unicode's rules (UAX 29), a mark does not divide it's, U.S or 1,000.5.
Words = Literal["spaces", "marks"]

LAST = 0x20000  # no marks from here on
# Scripts that put no space between words, after NFKC: Thai, Lao, Burmese, Khmer, kana, Han.
UNSPACED = (
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3041-\u30ff\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff"
    "\uf900-\ufaff\U00020000-\U0003ffff"
)
INVISIBLE = re.compile("[\u00ad\u200b-\u200f\u202a-\u202e\u2060-\u2064\ufe0e\ufe0f\ufeff]")


def words(text: str, kind: Words) -> list[str]:
    """The words of a text, in order."""
    if kind == "spaces":
        return text.split()
    return [found[0] for found in _apart(text.isascii()).finditer(text)]


@cache
def marks() -> frozenset[str]:
    """Every letter that is punctuation or a symbol (Unicode's P and S), emoji among them."""
    return frozenset(
        letter for letter in map(chr, range(LAST)) if unicodedata.category(letter)[0] in "PS"
    )


def plain_words(text: str) -> list[str]:
    """Words as they are compared: lower case, NFKC, without marks and what cannot be seen.

    Of scripts that put no space between words, each letter is a word.
    """
    if not text.isascii():
        text = INVISIBLE.sub("", unicodedata.normalize("NFKC", text))
    return _compared(text.isascii()).findall(text.lower())


@cache
def _class_of_marks(ascii: bool = False) -> str:
    """All marks, or those of ASCII alone, as they stand inside [] of a regular expression."""
    ranges: list[list[int]] = []
    for code in sorted(map(ord, marks())):
        if ranges and ranges[-1][1] == code - 1:
            ranges[-1][1] = code
        else:
            ranges.append([code, code])
    chosen = [one for one in ranges if one[0] < 128 or not ascii]
    return "".join(rf"\U{first:08x}-\U{last:08x}" for first, last in chosen)


@cache
def _apart(ascii: bool) -> re.Pattern:
    alone = "" if ascii else UNSPACED  # a smaller class is a faster one
    letter = rf"[^\s{_class_of_marks(ascii)}{alone}]"
    return re.compile(rf"{letter}+(?:(?:[.'_\u2019]|(?<=\d),(?=\d)){letter}+)*|(\S)\1*")


@cache
def _compared(ascii: bool) -> re.Pattern:
    if ascii:
        return re.compile(rf"[^\s{_class_of_marks(True)}]+")
    return re.compile(rf"[{UNSPACED}]|[^\s{_class_of_marks()}{UNSPACED}]+")


def _letters(ranges: str) -> frozenset[str]:
    """The letters of "21 5BD 61D-61F": code points and ranges of them."""
    found = []
    for one in ranges.split():
        first, _, last = one.partition("-")
        found += [chr(code) for code in range(int(first, 16), int(last or first, 16) + 1)]
    return frozenset(found)


# Unicode's Sentence_Terminal (PropList.txt): . ? ! and what other scripts have in their place
SENTENCE_ENDS = _letters(
    "21 2E 3F 589 61D-61F 6D4 700-702 7F9 837 839 83D-83E 964-965 104A-104B 1362 1367-1368 166E "
    "1735-1736 1803 1809 1944-1945 1AA8-1AAB 1B5A-1B5B 1B5E-1B5F 1B7D-1B7E 1C3B-1C3C 1C7E-1C7F "
    "203C-203D 2047-2049 2E2E 2E3C 2E53-2E54 3002 A4FF A60E-A60F A6F3 A6F7 A876-A877 A8CE-A8CF "
    "A92F A9C8-A9C9 AA5D-AA5F AAF0-AAF1 ABEB FE52 FE56-FE57 FF01 FF0E FF1F FF61 10A56-10A57 "
    "10F55-10F59 10F86-10F89 11047-11048 110BE-110C1 11141-11143 111C5-111C6 111CD 111DE-111DF "
    "11238-11239 1123B-1123C 112A9 1144B-1144C 115C2-115C3 115C9-115D7 11641-11642 1173C-1173E "
    "11944 11946 11A42-11A43 11A9B-11A9C 11C41-11C42 11EF7-11EF8 16A6E-16A6F 16AF5 16B37-16B38 "
    "16B44 16E98 1BC9F 1DA88"
)
