"""What checks a guess of greedy's next words: the loop of passes, greedy's rules, agreement.

B = sentences, C = candidates of one sentence, R = words read in a pass, V = vocabulary.
"""

from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from januslm.decoding import Output
from januslm.decoding._constraints import Rules, bar_repeats, worth_compacting


class Text(Protocol):
    """What is written of one sentence."""

    ended: bool

    def output(self) -> Output: ...


def write(
    decoder,
    state,
    allowed: Rules,
    texts: Sequence[Text],
    one_pass: Callable[[Rules, list, tuple[int, ...]], Tensor],
) -> list[Output]:
    """Pass after pass until every text has ended; uses up the state.

    one_pass(rules, texts, prefix) reads and accepts words of the texts that go on, and returns how
    many of what each of them read were wrong, int64 [B].  prefix: empty after the first pass.
    """
    numbers, head = np.arange(len(texts)), decoder.prefix
    while True:
        rows = [texts[n] for n in numbers.tolist()]
        wrong = one_pass(allowed, rows, head)
        alive, head = np.array([not text.ended for text in rows]), ()
        if not alive.any():
            return [text.output() for text in texts]
        state.take_back(wrong)
        if worth_compacting(alive):
            chosen = torch.from_numpy(np.flatnonzero(alive)).to(allowed.limit.device)
            state.keep(chosen)
            allowed, numbers = allowed.keep(chosen), numbers[alive]


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


def bar(allowed: Rules, scores: Tensor, written: Sequence[list[int]], ways) -> None:
    """Greedy's rules, in place, for what follows each of several ways to go on.

    scores: float [B, A, V]; ways: of each text the A lists of words that come after what is
    written.
    """
    device = scores.device
    if allowed.no_repeat_ngram:
        for words, some, score in zip(written, ways, scores, strict=True):
            for way, after in zip(some, score, strict=True):
                before = torch.tensor(words + way, dtype=torch.long, device=device)
                bar_repeats(after.view(1, 1, -1), before.view(1, 1, -1), allowed.no_repeat_ngram)
    count = [
        [len(words) + len(way) for way in some] for words, some in zip(written, ways, strict=True)
    ]
    allowed.by_count(scores, torch.tensor(count, device=device))


def agreeing(tail: list[int], word: list[int], eos: int) -> int:
    """How many words of the tail are those chosen before them."""
    right = 0
    while right < len(tail) and tail[right] == word[right] != eos:
        right += 1
    return right
