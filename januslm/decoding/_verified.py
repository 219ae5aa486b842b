"""What checks a guess of greedy's next words: the words in a table, greedy's rules, agreement.

B = sentences, C = candidates of one sentence, R = words read in a pass, V = vocabulary.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from januslm.decoding._constraints import Rules, bar_repeats


def table(heads, tails: Sequence[list[list[int]]], fill: int, device) -> Tensor:
    """What is read in one pass, int64 [B, C, R]; what is missing repeats the first candidate."""
    width = max(map(len, tails))
    rows = [
        [[*head, *tail] for tail in [*some, *[some[0]] * (width - len(some))]]
        for head, some in zip(heads, tails, strict=True)
    ]
    most = max(len(row) for some in rows for row in some)
    full = [[row + [fill] * (most - len(row)) for row in some] for some in rows]
    return torch.tensor(full, device=device)


def bar(allowed: Rules, scores: Tensor, written: Sequence[list[int]], tails) -> None:
    """Greedy's rules, in place, for what follows each word of the tails.

    scores: float [B, C, R, V], after what is written and after each word of a tail.
    """
    device = scores.device
    if allowed.no_repeat_ngram:
        for words, some, score in zip(written, tails, scores, strict=True):
            for tail, one in zip(some, score, strict=False):
                for at in range(len(tail) + 1):
                    before = torch.tensor(words + tail[:at], dtype=torch.long, device=device)
                    after = one[at].view(1, 1, -1)
                    bar_repeats(after, before.view(1, 1, -1), allowed.no_repeat_ngram)
    counts = torch.tensor([len(words) for words in written], device=device)
    count = counts[:, None] + torch.arange(scores.shape[2], device=device)
    allowed.by_count(scores.flatten(1, 2), count.repeat(1, scores.shape[1]))


def agreeing(tail: list[int], word: list[int], eos: int) -> int:
    """How many words of the tail are those chosen before them."""
    right = 0
    while right < len(tail) and tail[right] == word[right] != eos:
        right += 1
    return right
