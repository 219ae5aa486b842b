"""Distinct-1 and distinct-2: how many of all words, and of all word pairs, are different ones."""

from itertools import pairwise


def score(predictions: list[str], references: list[list[str]]) -> dict[str, float]:
    """{"distinct-1", "distinct-2"} in percent over all predictions together.

    The references play no part, only their number.  It has no `each`: a line has no share of it,
    and a resampled test set, having the same line twice, would be less diverse than any real one.
    """
    texts = [words.strip().split(" ") for words, _ in zip(predictions, references, strict=True)]
    pairs = [pair for words in texts for pair in pairwise(words)]
    return {
        "distinct-1": _share([word for words in texts for word in words]),
        "distinct-2": _share(pairs),
    }


def _share(items: list) -> float:
    # The official script divides by 1e-5 more, and so never by zero.
    return 100 * (len(set(items)) + 1e-12) / (len(items) + 1e-5) if items else 0.0
