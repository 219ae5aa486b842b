"""BLEU-4 as the question generation scripts print it: closest reference length, no smoothing.

They split bytes, as Python 2 does: at ASCII white space, which U+00A0 is not.
"""

from collections import Counter

import numpy as np

# The scripts add these so that nothing is divided by zero; they are part of the printed number
# where a corpus is tiny.
TINY, SMALL = 1e-15, 1e-9


def score(predictions: list[str], references: list[list[str]]) -> dict[str, float]:
    """{"bleu-4": percent} over words split at ASCII white space."""
    sums = each(predictions, references)["bleu-4"].sum(axis=0)
    return {"bleu-4": float(total(sums[None])[0])}


def each(predictions: list[str], references: list[list[str]]) -> dict[str, np.ndarray]:
    """What BLEU sums over lines: float64 [lines, 10], 4 matches, 4 n-gram totals, 2 lengths."""
    rows = []
    for prediction, several in zip(predictions, references, strict=True):
        ours, theirs = prediction.encode().split(), [text.encode().split() for text in several]
        matches, totals = [], []
        for n in range(1, 5):
            most: Counter = Counter()
            for words in theirs:
                most |= _ngrams(words, n)
            matches.append((_ngrams(ours, n) & most).total())
            totals.append(max(0, len(ours) - n + 1))
        closest = min((abs(len(words) - len(ours)), len(words)) for words in theirs)[1]
        rows.append([*matches, *totals, len(ours), closest])
    return {"bleu-4": np.array(rows, dtype=float).reshape(-1, 10)}


def total(sums: np.ndarray) -> np.ndarray:
    """BLEU-4 in percent of summed statistics: [draws, 10] -> [draws]."""
    precision = ((sums[:, :4] + TINY) / (sums[:, 4:8] + SMALL)).prod(axis=1) ** 0.25
    ratio = (sums[:, 8] + TINY) / (sums[:, 9] + SMALL)
    return 100 * precision * np.exp(np.minimum(0, 1 - 1 / ratio))


def _ngrams(words: list[bytes], n: int) -> Counter:
    return Counter(tuple(words[i : i + n]) for i in range(len(words) - n + 1))
