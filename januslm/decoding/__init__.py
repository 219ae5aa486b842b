"""One file per way to write: `decode(reader, sources, special, *, options) -> list[Output]`.

`reader` is januslm.reading.Reader or anything that answers like it; docs/decoding.md has the list.
"""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Output:
    """What was written for one source."""

    tokens: np.ndarray  # int64 [T], without BOS and EOS
    score: float  # what the algorithm ranks by; near log p per word
    passes: int  # decoder passes that this sentence took part in
    others: tuple["Output", ...] = ()  # n-best, from second to last
