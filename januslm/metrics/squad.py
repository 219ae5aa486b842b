"""SQuAD's exact match and F1, of several gold answers the best, each by itself."""

import numpy as np

from januslm.metrics import _answers


def score(predictions: list[str], references: list[list[str]]) -> dict[str, float]:
    """{"exact", "f1"}: percent, the means over lines."""
    values = each(predictions, references)
    return {name: float(of.mean()) if len(of) else 0.0 for name, of in values.items()}


def each(predictions: list[str], references: list[list[str]]) -> dict[str, np.ndarray]:
    """The same per line."""
    measures = {"exact": _answers.exact, "f1": _answers.f1}
    return {
        name: 100
        * np.array(
            [
                max(measure(prediction, gold) for gold in several)
                for prediction, several in zip(predictions, references, strict=True)
            ],
            dtype=float,
        )
        for name, measure in measures.items()
    }
