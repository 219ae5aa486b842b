"""C4's rules for web pages (Raffel et al. 2020, section 2.2): lines are left out, pages dropped."""

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from typing import Annotated

from data_tools.documents import Document, Dropped
from data_tools.filtering import Edited
from data_tools.words import SENTENCE_ENDS
from januslm.config import Allowed

Count = Annotated[int, Allowed(low=0)]

ENDS, ELLIPSIS = (*SENTENCE_ENDS, '"', "'", "\u201d", "\u2019"), "..."
POLICIES = ("terms of use", "privacy policy", "cookie policy", "uses cookies", "use of cookies",
            "use cookies")  # fmt: skip
CITATION = re.compile(r"\[\d*\]|\[edit\]|\[citation needed\]")
_ENDS = "".join(map(re.escape, sorted(SENTENCE_ENDS)))
# An end, closing quotes, and then no small letter: "e.g. this" goes on, and so does the name in
# "J. F. Kennedy".  Where there are no spaces between words, there is none after a sentence.
# Each run is looked at once: no text takes long.
SENTENCE = re.compile(
    rf"(?<![{_ENDS}])(?<!\b[A-Z])[{_ENDS}]++[\"'\u2019\u201d)\]]*+"
    r"(?:\s+(?=[\W\d_]{0,3}(?![a-z])\w)|\s*$|(?<=[\u3002\uff01\uff1f]))"
)

NO_END, FEW_WORDS = "lines without an end mark", "lines of too few words"
LONG_WORD, SCRIPT, POLICY = "lines with too long a word", "lines on javascript", "lines of policies"


def of_text(
    document: Document,
    *,
    least_sentences: Count = 3,  # in the lines that are left
    least_line_words: Count = 5,  # lines of fewer words are left out
    most_word_characters: Count = 1000,  # lines with a longer word are left out; 0: no limit
    end_marks: bool = True,  # lines that do not end in . ? ! or a quotation mark are left out
    citations: bool = True,  # [1], [edit] and [citation needed] are left out
    javascript: bool = True,  # lines with that word are left out
    policies: bool = True,  # lines on cookies, privacy and terms of use are left out
    lorem_ipsum: bool = True,  # pages with these words are dropped
    curly_brackets: bool = True,  # pages with a { are dropped
) -> Document | Dropped | Edited:
    """The lines that read like sentences, or why the page is dropped."""
    text = document.text
    lowered = text.lower()
    if lorem_ipsum and "lorem ipsum" in lowered:
        return Dropped("c4: lorem ipsum", lowered.count("lorem ipsum"))
    if curly_brackets and "{" in text:
        return Dropped("c4: curly bracket", text.count("{"))
    kept, edits = [], Counter[str]()
    for line in text.splitlines():
        line = line.strip()
        if not line:
            continue
        if citations and "[" in line:
            line, count = CITATION.subn("", line)
            edits["citations"] += count
        why = _wrong(line, least_line_words, most_word_characters, end_marks, javascript, policies)
        if why:
            edits[why] += 1
        else:
            kept.append(line)
    count = sentences(kept) if least_sentences else 0
    if count < least_sentences:
        return Dropped(f"c4: fewer than {least_sentences} sentences", count)
    left = "\n".join(kept)
    if left == text:
        return document
    return Edited(replace(document, text=left), {k: n for k, n in edits.items() if n})


def _wrong(
    line: str, least: int, longest: int, end_marks: bool, javascript: bool, policies: bool
) -> str:
    """Why a line is left out, "" where it stays."""
    found = line.split()
    lowered = line.lower()
    if longest and len(line) > longest and any(len(word) > longest for word in found):
        return LONG_WORD
    if end_marks and (not line.endswith(ENDS) or line.endswith(ELLIPSIS)):
        return NO_END
    if len(found) < least:
        return FEW_WORDS
    if javascript and "javascript" in lowered:
        return SCRIPT
    if policies and any(one in lowered for one in POLICIES):
        return POLICY
    return ""


def sentences(lines: Iterable[str]) -> int:
    """How many sentences there are; a line that ends in none of their ends has one more."""
    count = 0
    for line in lines:
        ends = [found.end() for found in SENTENCE.finditer(line)]
        count += len(ends) + (not ends or ends[-1] < len(line.rstrip()))
    return count
