"""Block by block: a pass writes all that is missing and keeps the next few words from the left."""

from collections.abc import Sequence

import numpy as np
import torch

from januslm.decoding import Output
from januslm.decoding._options import Beam, Choice, Length
from januslm.decoding._templates import candidates, write

NEEDS = ("all at once",)  # how a checkpoint must have learnt to write


@torch.inference_mode()
def decode(
    decoder,
    sources: Sequence[np.ndarray],
    special,
    *,
    block: Length = 4,  # words that a pass keeps
    length_beam: Beam = 1,  # lengths that are tried side by side
    lengths: Choice = "topk",  # the likeliest, or the likeliest and its neighbours
) -> list[Output]:
    """n words (CMLM's EOS among them) take n / block passes; a word reads the blocks before it."""
    decoder.require(*NEEDS)
    state = decoder.start(sources)
    tried = candidates(state.length_scores, length_beam, lengths, decoder.most_length)
    return write(
        decoder,
        state,
        special,
        tried,
        lambda templates, done: templates.holes & (templates.holes.cumsum(-1) > done * block),
    )
