"""Exact match: the share of predictions that are one of the references, word for word."""

import numpy as np


def score(predictions: list[str], references: list[list[str]]) -> dict[str, float]:
    """{"exact": percent}; white space at the ends and runs of it do not count."""
    values = each(predictions, references)["exact"]
    return {"exact": float(values.mean()) if len(values) else 0.0}


def each(predictions: list[str], references: list[list[str]]) -> dict[str, np.ndarray]:
    """100 or 0 per line."""
    values = [
        100.0 * (prediction.split() in [text.split() for text in several])
        for prediction, several in zip(predictions, references, strict=True)
    ]
    return {"exact": np.array(values)}
