"""CoQA's F1: words shared by an answer and the gold answer, without articles and punctuation."""

import numpy as np

from januslm.metrics._answers import f1


def score(predictions: list[str], references: list[list[str]]) -> dict[str, float]:
    """{"f1": percent}: the mean over lines; of several gold answers the best."""
    values = each(predictions, references)["f1"]
    return {"f1": float(values.mean()) if len(values) else 0.0}


def each(predictions: list[str], references: list[list[str]]) -> dict[str, np.ndarray]:
    """The same per line."""
    values = [
        max(f1(prediction, text) for text in several)
        for prediction, several in zip(predictions, references, strict=True)
    ]
    return {"f1": 100 * np.array(values, dtype=float)}
