"""All at once, without a model of the length: one pass, and the text ends where EOS comes first.

BANG (Qi 2021).  As many places as the source has tokens are asked for, unless told otherwise.
"""

from collections.abc import Sequence

import numpy as np
import torch

from januslm.decoding import Output
from januslm.decoding._constraints import Rules, log_p
from januslm.decoding._options import Length, Ratio

NEEDS = ("all at once without a length",)  # how a checkpoint must have learnt to write


@torch.inference_mode()
def decode(
    decoder,
    sources: Sequence[np.ndarray],
    special,
    *,
    row_ratio: Ratio = 1.0,  # places for each token of the source, BOS and EOS counted
    max_length: Length = 200,  # most words of a text
    collapse: bool = True,  # of equal tokens in a row one stays
) -> list[Output]:
    """The likeliest token of each place up to the first EOS; score: their mean log p."""
    decoder.require(*NEEDS)
    state = decoder.start(sources)
    device = state.length_scores.device
    most = min(max_length, decoder.most_row - 2)
    places = [max(1, min(int(row_ratio * len(source)), most)) for source in sources]
    limit = torch.tensor(places, device=device)
    scores = log_p(decoder.row(state, max(places) + 2))
    count = torch.arange(scores.shape[1], device=device)
    Rules(special, limit).by_count(scores, count.expand(len(scores), -1))
    value, word = (x.cpu().numpy() for x in scores.max(-1))
    return [_text(*both, special.eos, collapse) for both in zip(word, value, strict=True)]


def _text(word: np.ndarray, value: np.ndarray, eos: int, collapse: bool) -> Output:
    end = int((word == eos).argmax())  # there is one: at its limit a text has nothing else
    kept = word[:end]
    if collapse:
        kept = kept[np.concatenate([[True], kept[1:] != kept[:-1]])[:end]]
    return Output(kept.astype(np.int64), float(value[: end + 1].mean()), 1)
