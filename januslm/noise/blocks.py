"""One run of words in each block of a text: what MASS, ProphetNet and BANG pretrain on."""

from typing import Annotated

import numpy as np

from januslm.config import Allowed
from januslm.noise._runs import Chance, Ratio, cover, disguised

Size = Annotated[int, Allowed(low=1, high=2**20)]

SOURCE_ALONE = ("masked", "replaced")  # options that only the source feels


def hide(
    source,
    target,
    special,
    rng,
    *,
    ratio: Ratio = 0.15,  # share of a block that is hidden
    block: Size = 64,  # words
    masked: Chance = 0.8,  # share of the hidden words that are a <mask> in the source
    replaced: Chance = 0.1,  # share that are another word there
):
    """Hides round(ratio * words of the block) words in a row, one at least, never BOS or EOS.

    Plain text is its own source, where hidden words are masked, replaced or left as they are.
    """
    starts = np.arange(1, len(target) - 1, block)
    words = np.minimum(starts + block, len(target) - 1) - starts
    lengths = np.maximum(1, np.round(ratio * words).astype(np.int64))
    starts = starts + rng.integers(words - lengths + 1) if len(starts) else starts
    hidden = cover(starts, starts + lengths, len(target))
    if source is None:
        source = target.copy()
        source[hidden] = disguised(target[hidden], special, rng, masked, replaced)
    return source, hidden
