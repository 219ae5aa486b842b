"""Word by word, always the likeliest."""

from collections.abc import Sequence

import numpy as np
import torch

from januslm.decoding import Output
from januslm.decoding._constraints import log_p, rules, top, worth_compacting
from januslm.decoding._options import Count, Length, Ratio

NEEDS = ("word by word",)  # how a checkpoint must have learnt to write


@torch.inference_mode()
def decode(
    decoder,
    sources: Sequence[np.ndarray],
    special,
    *,
    min_length: Count = 0,  # fewest words of a text
    max_length: Length = 200,  # most words of a text, and max_ratio beside it
    max_ratio: Ratio = 0.0,  # so many words more for each token of the source
    no_repeat_ngram: Count = 0,  # no run of so many words comes twice; 0: they may
) -> list[Output]:
    """At most max_length + max_ratio * source tokens (with BOS and EOS) words each.

    The score is log p per word, EOS too.
    """
    decoder.require(*NEEDS)
    return write(
        decoder,
        decoder.start(sources),
        sources,
        special,
        likeliest,
        min_length=min_length,
        max_length=max_length,
        max_ratio=max_ratio,
        no_repeat_ngram=no_repeat_ngram,
    )


def likeliest(scores: torch.Tensor, numbers: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
    """Values and words, [B, 1] each, of scores [B, V]."""
    return top(scores, 1)


def write(decoder, state, sources, special, choose, **limits) -> list[Output]:
    """One hypothesis a row; `choose(scores [B, V], numbers)` -> values and words, [B, 1] each.

    state: of the sources, nothing written; it is used up.  numbers: int64 array [B], which source
    each row belongs to.
    """
    logits = decoder.step(state)
    device = logits.device
    allowed = rules(decoder, sources, special, device, **limits)
    numbers, alive = np.arange(len(sources)), np.ones(len(sources), bool)
    written = torch.empty(len(sources), 1, 0, dtype=torch.long, device=device)
    total = torch.zeros(len(sources), 1, dtype=torch.float64, device=device)
    out: dict[int, Output] = {}
    while True:
        value, word = choose(allowed(log_p(logits), written)[:, 0], numbers)
        total += value
        count = written.shape[-1]
        for row in np.flatnonzero(alive & (word[:, 0] == special.eos).cpu().numpy()):
            tokens = written[row, 0].cpu().numpy()
            out[int(numbers[row])] = Output(tokens, float(total[row, 0]) / (count + 1), count + 1)
            alive[row] = False
        if not alive.any():
            return [out[number] for number in range(len(sources))]
        written = torch.cat([written, word[..., None]], 2)
        if worth_compacting(alive):
            chosen = torch.from_numpy(np.flatnonzero(alive)).to(device)
            state.keep(chosen)
            allowed, written = allowed.keep(chosen), written[chosen]
            word, total = word[chosen], total[chosen]
            numbers, alive = numbers[alive], alive[alive]
        logits = decoder.step(state, word)
