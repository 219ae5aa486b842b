"""PersonaChat's BLEU-1 and BLEU-2: sentence BLEU with smoothing 7 as NLTK 3.5 had it."""

# NLTK changed this smoothing in 3.6, and the same answers fall from 42 to 37 (BLEU-1) and from 37
# to 24 (BLEU-2); the published numbers are of the old kind.  It averages each precision with its
# neighbours, so a perfect answer has 133.3 and 121.7 and answers to other questions have about 42
# and 37: compare only with numbers made in the same way, and look at sacreBLEU beside it.

import math
from collections import Counter

import numpy as np

K = 5  # of smoothing method 4


def score(predictions: list[str], references: list[list[str]]) -> dict[str, float]:
    """{"bleu-1", "bleu-2"}: means over lines, in percent; words are split at single spaces."""
    lines = each(predictions, references)
    return {name: float(values.mean()) if len(values) else 0.0 for name, values in lines.items()}


def each(predictions: list[str], references: list[list[str]]) -> dict[str, np.ndarray]:
    """The same per line."""
    rows = [
        _sentence(prediction.strip().split(" "), [text.strip().split(" ") for text in several])
        for prediction, several in zip(predictions, references, strict=True)
    ]
    table = 100 * np.array(rows, dtype=float).reshape(-1, 2)
    return {"bleu-1": table[:, 0], "bleu-2": table[:, 1]}


def _sentence(ours: list[str], theirs: list[list[str]]) -> tuple[float, float]:
    counts = [_matches(ours, theirs, n) for n in range(1, 6)]
    if counts[0][0] == 0:
        return 0.0, 0.0
    if len(ours) == 1:  # log(1) = 0 is divided by; the official script counts the error as 0
        return 0.0, 0.0
    raw = [hits / of for hits, of in counts]
    for i, (hits, of) in enumerate(counts[:4]):  # method 4
        if hits == 0:
            raw[i] = (i + K / math.log(len(ours))) / of
    smooth, before = [], raw[0] + 1
    for i in range(4):  # method 5, on top of method 4; five-grams stay as they are
        before = (before + raw[i] + raw[i + 1]) / 3
        smooth.append(before)
    closest = min((abs(len(words) - len(ours)), len(words)) for words in theirs)[1]
    brevity = min(1.0, math.exp(1 - closest / len(ours)))
    return brevity * smooth[0], brevity * math.sqrt(smooth[0] * smooth[1])


def _matches(ours: list[str], theirs: list[list[str]], n: int) -> tuple[int, int]:
    """Clipped matches and number of n-grams, at least 1."""
    counts, most = _ngrams(ours, n), _ngrams([], n)
    for words in theirs:
        most |= _ngrams(words, n)
    return (counts & most).total(), max(1, counts.total())


def _ngrams(words: list[str], n: int) -> Counter:
    return Counter(tuple(words[i : i + n]) for i in range(len(words) - n + 1))
