"""CoQA's F1: words shared by an answer and the gold answer, without articles and punctuation."""

import re
import string
from collections import Counter

import numpy as np

_PUNCTUATION = str.maketrans("", "", string.punctuation)


def score(predictions: list[str], references: list[list[str]]) -> dict[str, float]:
    """{"f1": percent}: the mean over lines; of several gold answers the best."""
    values = each(predictions, references)["f1"]
    return {"f1": float(values.mean()) if len(values) else 0.0}


def each(predictions: list[str], references: list[list[str]]) -> dict[str, np.ndarray]:
    """The same per line."""
    values = [
        max(_f1(words(prediction), words(text)) for text in several)
        for prediction, several in zip(predictions, references, strict=True)
    ]
    return {"f1": 100 * np.array(values, dtype=float)}


def words(text: str) -> list[str]:
    """Lower case, punctuation deleted, then a, an and the dropped, as the SQuAD scripts do."""
    return re.sub(r"\b(a|an|the)\b", " ", text.lower().translate(_PUNCTUATION)).split()


def _f1(ours: list[str], gold: list[str]) -> float:
    if not ours or not gold:
        return float(ours == gold)  # "no answer" is right only where there is none
    return 2 * (Counter(ours) & Counter(gold)).total() / (len(ours) + len(gold))
