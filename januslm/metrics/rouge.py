"""ROUGE-1, ROUGE-2 and ROUGE-L as the Perl script ROUGE-1.5.5 gives them, without Perl."""

import re
from collections import Counter
from functools import lru_cache
from itertools import chain
from pathlib import Path
from typing import Literal, get_args

import numpy as np

from januslm.config import Refused
from januslm.metrics._porter import stem as porter

Level = Literal["sentence", "summary"]
LEVELS = get_args(Level)


def score(
    predictions: list[str],
    references: list[list[str]],
    *,
    stem: bool = False,
    level: Level = "sentence",
    exceptions: str = "",
) -> dict[str, float]:
    """Mean F of "rouge-1", "rouge-2" and "rouge-l" in percent; of several references the best.

    stem: Porter's stemmer on words of more than three letters (the script's -m).
    level: "summary" takes each line of a text as a sentence and unites their common subsequences,
    as the script does with one sentence per line; "sentence" takes a text as one sentence.
    exceptions: WordNet's lists of irregular words, which the script looks into before it stems.
    """
    lines = each(predictions, references, stem=stem, level=level, exceptions=exceptions)
    return {name: float(values.mean()) if len(values) else 0.0 for name, values in lines.items()}


def each(
    predictions: list[str],
    references: list[list[str]],
    *,
    stem: bool = False,
    level: Level = "sentence",
    exceptions: str = "",
) -> dict[str, np.ndarray]:
    """The same per line: float64 [lines] in percent for each name."""
    if level not in LEVELS:
        raise Refused(f"rouge: level must be one of {', '.join(LEVELS)}, got {level!r}")
    if exceptions and not stem:
        raise Refused("rouge: exceptions says how words are stemmed: give stem=true too")
    known = irregular(exceptions) if exceptions else {}
    values: dict[str, list[float]] = {"rouge-1": [], "rouge-2": [], "rouge-l": []}
    for prediction, several in zip(predictions, references, strict=True):
        ours = [words(line, stem, known) for line in prediction.split("\n")]
        rows = [
            _pair(ours, [words(line, stem, known) for line in text.split("\n")], level)
            for text in several
        ]
        for name, column in zip(values, zip(*rows, strict=True), strict=True):
            values[name].append(100 * max(column))
    return {name: np.array(column) for name, column in values.items()}


def words(text: str, stem: bool = False, exceptions: dict[str, str] | None = None) -> list[str]:
    """Runs of ASCII letters and digits in lower case, stemmed or not."""
    found = [word.lower() for word in re.findall(r"[A-Za-z0-9]+", text)]
    if not stem:
        return found
    known = exceptions or {}
    return [(known.get(w) or porter(w)) if len(w) > 3 else w for w in found]


@lru_cache
def irregular(place: str) -> dict[str, str]:
    """WordNet's irregular forms, word -> base form: a folder of *.exc, or a file of word|base."""
    path = Path(place)
    files = sorted(path.glob("*.exc")) if path.is_dir() else [path] if path.is_file() else []
    if not files:
        raise Refused(
            f"rouge: exceptions: no *.exc file in {place}; WordNet has noun.exc, verb.exc"
        )
    forms: dict[str, str] = {}
    for file in files:
        try:
            lines = file.read_text(encoding="utf-8").splitlines()
        except ValueError:
            raise Refused(f"rouge: exceptions: {file} is not UTF-8") from None
        split = [line.replace("|", " ").split() for line in lines]
        # As the script's own: the last line of a word counts, the first file that has it.
        forms = {words[0]: words[1] for words in split if len(words) > 1} | forms
    return forms


def _pair(ours: list[list[str]], theirs: list[list[str]], level: str) -> tuple[float, ...]:
    """The three F values of one prediction and one reference, both as lists of sentences."""
    flat, wanted = list(chain(*ours)), list(chain(*theirs))
    together = union(theirs, ours) if level == "summary" else common(flat, wanted)
    return (
        _overlap(flat, wanted, 1),
        _overlap(flat, wanted, 2),
        _f(together, len(flat), len(wanted)),
    )


def _overlap(ours: list[str], theirs: list[str], n: int) -> float:
    a, b = (Counter(zip(*(text[i:] for i in range(n)), strict=False)) for text in (ours, theirs))
    return _f((a & b).total(), a.total(), b.total())


def _f(hits: int, ours: int, theirs: int) -> float:
    """Harmonic mean of hits / ours and hits / theirs; 0 where nothing is shared."""
    return 2 * hits / (ours + theirs) if hits else 0.0


def common(a: list[str], b: list[str]) -> int:
    """Length of the longest common subsequence, a whole row of the table at once as one integer."""
    where: dict[str, int] = {}
    for i, word in enumerate(a):
        where[word] = where.get(word, 0) | 1 << i
    row = (1 << len(a)) - 1  # a zero bit: the subsequence grows by one here
    for word in b:
        hit = row & where.get(word, 0)
        row = (row + hit) | (row - hit)
    return len(a) - (row & (1 << len(a)) - 1).bit_count()


def union(references: list[list[str]], predictions: list[list[str]]) -> int:
    """Hits of the summary level: words of each reference sentence on a common subsequence with any
    predicted sentence, where no word counts more often than either text has it."""
    left = Counter(word for line in references for word in line)
    right = Counter(word for line in predictions for word in line)
    hits = 0
    for line in references:
        for i in sorted(set().union(*(_path(line, other) for other in predictions))):
            if left[line[i]] > 0 and right[line[i]] > 0:
                hits += 1
                left[line[i]] -= 1
                right[line[i]] -= 1
    return hits


def _path(a: list[str], b: list[str]) -> set[int]:
    """Places in `a` of one longest common subsequence.

    Where several are equally long, the choice decides the union: at a tie go back in `a`, like
    the Perl script.
    """
    table = [[0] * (len(b) + 1)]
    for word in a:
        above, row = table[-1], [0]
        for j, other in enumerate(b):
            row.append(above[j] + 1 if word == other else max(above[j + 1], row[j]))
        table.append(row)
    places, i, j = set(), len(a), len(b)
    while i and j:
        if a[i - 1] == b[j - 1]:
            i, j = i - 1, j - 1
            places.add(i)
        elif table[i][j - 1] > table[i - 1][j]:
            j -= 1
        else:
            i -= 1
    return places
