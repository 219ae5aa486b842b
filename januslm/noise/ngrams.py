"""Short runs with their surroundings: XLNet's choice of what is predicted."""

from typing import Annotated

import numpy as np

from januslm.config import Allowed
from januslm.noise._runs import Ratio

Count = Annotated[int, Allowed(low=1, high=100)]


def hide(
    source,
    target,
    special,
    rng,
    *,
    ratio: Ratio = 1 / 6,  # share of the words that is hidden
    longest: Count = 5,  # words of a run, at most
    around: Count = 6,  # words of a run and its surroundings, for each word of it
):
    """Hides runs of n words, n = 1 .. longest as often as 1 / n, each among n * around words.

    round(ratio * words) in all, one at least, never BOS or EOS; where the text ends before them,
    single words are added.  Plain text is its own source, with a <mask> in the place of each.
    """
    inner = len(target) - 2
    wanted, at = max(1, round(ratio * inner)), 0
    hidden = np.zeros(len(target), bool)
    words = hidden[1:-1]
    sizes = np.arange(1, longest + 1)
    law = 1 / sizes / (1 / sizes).sum()
    while at < inner and (left := wanted - int(words.sum())):
        size = min(int(rng.choice(sizes, p=law)), left)
        before = int(rng.integers(size * around))
        end = at + before + size
        if end >= inner:
            break
        words[at + before : end] = True
        at = end + size * around - before
    others = rng.permutation(np.flatnonzero(~words))
    words[others[: wanted - int(words.sum())]] = True
    return np.where(hidden, special.mask, target) if source is None else source, hidden
