"""ROUGE-L as the question generation scripts print it: recall counts 1.2 times as much."""

import numpy as np

from januslm.metrics.rouge import common

BETA = 1.2


def score(predictions: list[str], references: list[list[str]]) -> dict[str, float]:
    """{"rouge-l": percent}: the mean over lines; words are split at single spaces, not stemmed."""
    values = each(predictions, references)["rouge-l"]
    return {"rouge-l": float(values.mean()) if len(values) else 0.0}


def each(predictions: list[str], references: list[list[str]]) -> dict[str, np.ndarray]:
    """The same per line, in percent; precision and recall each from the reference best for it."""
    values = []
    for prediction, several in zip(predictions, references, strict=True):
        ours, theirs = prediction.split(" "), [text.split(" ") for text in several]
        shared = [common(words, ours) for words in theirs]
        precision = max(shared) / len(ours)
        recall = max(hits / len(words) for hits, words in zip(shared, theirs, strict=True))
        together = recall + BETA**2 * precision
        values.append(100 * (1 + BETA**2) * precision * recall / together if together else 0.0)
    return {"rouge-l": np.array(values)}
