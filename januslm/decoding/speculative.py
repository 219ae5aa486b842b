"""Greedy's words in fewer passes: drafted all at once, verified left to right, one pass a block.

A pass reads the words already right and a piece of the draft, and says what greedy would write
after each of them.  Draft words up to the first difference are right, and so is the choice there.
"""

import copy
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated

import numpy as np
import torch
from torch import Tensor

from januslm.config import Allowed
from januslm.decoding import Output, mask_predict
from januslm.decoding._board import candidates, write
from januslm.decoding._rules import bar_repeats, log_p, rules, top, worth_compacting
from januslm.decoding.greedy import Count, Length, Ratio


@torch.inference_mode()
def decode(
    reader,
    sources: Sequence[np.ndarray],
    special,
    *,
    block: Annotated[int, Allowed(low=1)] = 16,
    draft: Annotated[str, Allowed(choices=("stale", "jacobi"))] = "stale",
    draft_iterations: Annotated[int, Allowed(low=1)] = 1,
    min_length: Count = 0,
    max_length: Length = 200,
    max_ratio: Ratio = 0.0,
    no_repeat_ngram: Count = 0,
) -> list[Output]:
    """Tokens and score are those of greedy with the same limits; passes count the draft's too.

    draft: after a difference, go on with the old draft ("stale"), or with what the pass that found
    it wrote in the later places ("jacobi").
    """
    reader.must_write("word by word")
    reader.must_write("all at once")
    state = reader.start(sources)
    device = state.length_scores.device
    allowed = rules(
        reader, sources, special, device, min_length=min_length, max_length=max_length,
        max_ratio=max_ratio, no_repeat_ngram=no_repeat_ngram,
    )  # fmt: skip
    drafts = write(
        reader, copy.copy(state), special,
        candidates(state.length_scores, 1, "topk", reader.most_length),
        mask_predict.schedule(draft_iterations), early_stop=True,
    )  # fmt: skip
    texts = [
        _Text(limit, d.tokens.tolist(), passes=d.passes)
        for limit, d in zip(allowed.limit.tolist(), drafts, strict=True)
    ]
    numbers, head = np.arange(len(texts)), reader.prefix
    while True:
        rows = [texts[n] for n in numbers]
        wrong = _round(reader, state, allowed, rows, head, block, draft == "jacobi")
        alive, head = np.array([not text.ended for text in rows]), ()
        if not alive.any():
            return [text.output() for text in texts]
        state.take_back(wrong)
        if worth_compacting(alive):
            chosen = torch.from_numpy(np.flatnonzero(alive)).to(device)
            state.keep(chosen)
            allowed, numbers = allowed.keep(chosen), numbers[alive]


def _round(reader, state, allowed, rows: list["_Text"], head, block: int, learn: bool) -> Tensor:
    """One verifying pass; returns how many words of what each row read were wrong, int64 [B]."""
    eos, device = allowed.special.eos, allowed.limit.device
    heads = [head or tuple(text.words[-1:] or [eos]) for text in rows]
    tails = [text.proposal(block) for text in rows]
    words = _table(heads, tails, eos, device)
    scores = log_p(reader.block(state, words[:, None])[:, 0, len(heads[0]) - 1 :])
    _bar(allowed, scores, rows, tails, device)
    value, word = (x[:, 0].view(scores.shape[:2]).tolist() for x in top(scores.flatten(0, 1), 1))
    kept = [
        text.accept(tail, w, v, eos, learn)
        for text, tail, w, v in zip(rows, tails, word, value, strict=True)
    ]
    return words.shape[1] - len(heads[0]) - torch.tensor(kept, device=device)


def _table(heads, tails, fill: int, device) -> Tensor:
    """What is read in one pass, int64 [B, R]."""
    rows = [[*head, *tail] for head, tail in zip(heads, tails, strict=True)]
    most = max(map(len, rows))
    return torch.tensor([row + [fill] * (most - len(row)) for row in rows], device=device)


def _bar(allowed, scores: Tensor, rows: list["_Text"], tails: list[list[int]], device) -> None:
    """Greedy's rules for what follows each word of the blocks.  scores: float [B, R, V]."""
    if allowed.no_repeat_ngram:
        for row, (text, tail) in enumerate(zip(rows, tails, strict=True)):
            for at in range(len(tail) + 1):
                before = torch.tensor(text.words + tail[:at], dtype=torch.long, device=device)
                one = scores[row : row + 1, at : at + 1]
                bar_repeats(one, before.view(1, 1, -1), allowed.no_repeat_ngram)
    written = torch.tensor([len(text.words) for text in rows], device=device)
    allowed.by_count(scores, written[:, None] + torch.arange(scores.shape[1], device=device))


@dataclass
class _Text:
    """What is written of one sentence, and what is guessed of the rest."""

    limit: int
    draft: list[int]  # from the first word of the sentence on
    words: list[int] = field(default_factory=list)
    log_p: float = 0.0
    passes: int = 0
    ended: bool = False

    def proposal(self, block: int) -> list[int]:
        """The next words of the draft."""
        start = len(self.words)
        return self.draft[start : min(start + block, self.limit)]

    def accept(self, tail: list[int], word: list[int], value: list[float], eos: int, learn: bool):
        """Takes over what greedy would have written; returns how many words of the tail are right.

        word, value: the choice after the words before the tail, and after each word of the tail.
        """
        if self.ended:
            return -1  # its last word need not stay in the cache either
        self.passes += 1
        right = 0
        while right < len(tail) and tail[right] == word[right] != eos:
            right += 1
        self.log_p += sum(value[: right + 1])
        self.ended = word[right] == eos
        self.words += word[: right + (not self.ended)]
        if learn:
            guess = word[right + 1 : len(tail) + 1]
            if eos in guess:
                self.draft[len(self.words) :] = guess[: guess.index(eos)]
            else:
                self.draft[len(self.words) : len(self.words) + len(guess)] = guess
        return right

    def output(self) -> Output:
        return Output(
            np.array(self.words, np.int64), self.log_p / (len(self.words) + 1), self.passes
        )
