"""How the SQuAD and CoQA scripts compare an answer with a gold one: by its words."""

import re
import string
from collections import Counter

_PUNCTUATION = str.maketrans("", "", string.punctuation)


def words(text: str) -> list[str]:
    """Lower case, punctuation deleted, then a, an and the dropped, as the scripts do."""
    return re.sub(r"\b(a|an|the)\b", " ", text.lower().translate(_PUNCTUATION)).split()


def exact(prediction: str, gold: str) -> float:
    """1 where all words are the same, else 0."""
    return float(words(prediction) == words(gold))


def f1(prediction: str, gold: str) -> float:
    """The harmonic mean of the shares of words that both have in common."""
    ours, theirs = words(prediction), words(gold)
    if not ours or not theirs:
        return float(ours == theirs)  # "no answer" is right only where there is none
    return 2 * (Counter(ours) & Counter(theirs)).total() / (len(ours) + len(theirs))
