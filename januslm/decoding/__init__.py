"""One file per way to write: `decode(decoder, sources, special, *, options) -> list[Output]`.

`decoder`: IncrementalDecoder (januslm/inference) or what answers like it; see docs/decoding.md.
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
