"""How likely given texts are: word by word, or all at once.

B = sentences, C = texts of one sentence, T = words of a text, EOS among them.
"""

from collections.abc import Sequence

import numpy as np
import torch

from januslm.decoding._constraints import log_p
from januslm.decoding._templates import Templates

Texts = Sequence[Sequence[np.ndarray]]  # C texts int64 [T], ended by EOS, of each of B sentences


def word_by_word(decoder, state, texts: Texts) -> list[list[np.ndarray]]:
    """log p of each word from those before it, float64 [P - 1 + T] each; uses the state up.

    P: words of the prefix, all but the first of which are predicted as in training.
    """
    device, prefix = state.length_scores.device, decoder.prefix
    width = max(map(len, texts))
    most = max(len(text) for row in texts for text in row)
    rows = [[*row, *[row[-1]] * (width - len(row))] for row in texts]
    padded = np.array([[np.pad(text, (0, most - len(text))) for text in row] for row in rows])
    words = torch.from_numpy(padded).to(device)
    head = torch.tensor(prefix, device=device).expand(*words.shape[:2], -1)
    whole = torch.cat([head, words], -1)
    logits = decoder.block(state, whole[..., :-1])
    each = log_p(logits).gather(-1, whole[..., 1:, None])[..., 0].double().cpu().numpy()
    before = len(prefix) - 1
    return [
        [values[: before + len(text)] for text, values in zip(row, of_row, strict=False)]
        for row, of_row in zip(texts, each, strict=True)
    ]


def all_at_once(decoder, state, texts: Sequence[np.ndarray], special) -> list[np.ndarray]:
    """log p of each word where all are hidden and their number is given; uses the state up.

    One text int64 [T] of each sentence; float64 [words that are written at once] of each: T, or
    one less where the objective gives EOS.
    """
    device = state.length_scores.device
    lengths = torch.tensor([[1 + len(text)] for text in texts], device=device)
    template = Templates.of(decoder, lengths, special)
    goals = np.full(template.tokens.shape, special.pad)
    for row, text in zip(goals, texts, strict=True):
        whole = np.concatenate([[special.bos], text])[template.first :]
        row[0, : len(whole)] = whole
    asked = template.masked
    logits = decoder.fill(state, template.tokens, template.sizes, template.first, asked)
    wanted = torch.from_numpy(goals).to(device)[asked]
    each = log_p(logits).gather(-1, wanted[:, None])[:, 0].double().cpu().numpy()
    counts = asked.flatten(1).sum(1).cpu().numpy()
    return np.split(each, np.cumsum(counts)[:-1])
