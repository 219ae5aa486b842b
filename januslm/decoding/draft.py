"""Greedy's words in fewer passes: each pass checks a draft and makes the next one.

A pass reads the words that are right and the draft, and behind each of them a block of masks, which
knows the words up to there.  Draft words up to the first difference are right, and so is the choice
there; the block behind the last right word has already drafted what follows.
B = sentences, R = words read in a pass, V = vocabulary.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated

import numpy as np
import torch
from torch import Tensor

from januslm.config import Allowed
from januslm.decoding import Output
from januslm.decoding._constraints import log_p, rules, top
from januslm.decoding._options import MOST, Count, Length, Ratio
from januslm.decoding._verified import agreeing, bar, table, write

# How a checkpoint must have learnt to write.
NEEDS = ("word by word", "a block after each word")


@torch.inference_mode()
def decode(
    decoder,
    sources: Sequence[np.ndarray],
    special,
    *,
    block: Annotated[int, Allowed(low=0, high=MOST)] = 0,
    min_length: Count = 0,  # fewest words of a text
    max_length: Length = 200,  # most words of a text, and max_ratio beside it
    max_ratio: Ratio = 0.0,  # so many words more for each token of the source
    no_repeat_ngram: Count = 0,  # no run of so many words comes twice; 0: they may
) -> list[Output]:
    """Tokens and score are those of greedy with the same limits.

    block: masks behind each word, at most as many as were trained; 0: as many.
    """
    decoder.require(*NEEDS)
    size = min(block or decoder.most_block, decoder.most_block)
    state = decoder.start(sources)
    device = state.length_scores.device
    allowed = rules(
        decoder,
        sources,
        special,
        device,
        min_length=min_length,
        max_length=max_length,
        max_ratio=max_ratio,
        no_repeat_ngram=no_repeat_ngram,
    )
    texts = [_Text(limit) for limit in allowed.limit.tolist()]
    return write(
        decoder,
        state,
        allowed,
        texts,
        lambda kept, rows, head: _round(decoder, state, kept, rows, head, size),
    )


def _round(decoder, state, allowed, rows: list["_Text"], head, size: int) -> Tensor:
    """One pass; returns how many words of what each row read were wrong, int64 [B]."""
    special, device = allowed.special, allowed.limit.device
    heads = [head or tuple(text.words[-1:] or [special.eos]) for text in rows]
    before = len(heads[0]) - 1  # words of the prefix that nothing follows
    tails = [[text.proposal(special.eos)] for text in rows]
    words = table(heads, tails, special.eos, device)[:, 0]
    after, behind = decoder.draft(state, words, size)
    scores = log_p(after[:, before:])[:, None]
    bar(allowed, scores, [text.words for text in rows], tails)
    value, word = (x.view(len(rows), -1).tolist() for x in top(scores.flatten(0, 2), 1))
    # The first of a block stands where the word does that has just been chosen.
    guess = behind[:, before:, 1:].clone()
    guess[..., [special.bos, special.pad, special.unk, special.mask]] = -torch.inf
    next_draft = guess.argmax(-1).tolist()
    right = [
        text.accept(tail, w, v, drafts, special.eos)
        for text, (tail,), w, v, drafts in zip(rows, tails, word, value, next_draft, strict=True)
    ]
    return words.shape[1] - len(heads[0]) - torch.tensor(right, device=device)


@dataclass
class _Text:
    """What is written of one sentence, and the draft of what follows."""

    limit: int
    words: list[int] = field(default_factory=list)
    draft: list[int] = field(default_factory=list)
    log_p: float = 0.0
    passes: int = 0
    ended: bool = False

    def proposal(self, eos: int) -> list[int]:
        """The draft up to its end, as far as there is room."""
        words = self.draft[: self.limit - len(self.words)]
        return words[: words.index(eos)] if eos in words else words

    def accept(self, tail, word, value, drafts, eos: int) -> int:
        """Takes over what greedy would have written; returns how many of the tail were right.

        word, value: the choice after what is written and after each word of the tail; drafts: what
        stands behind each of these choices.
        """
        if self.ended:
            return -1  # its last word need not stay in the cache either
        self.passes += 1
        right = agreeing(tail, word, eos)
        self.log_p += sum(value[: right + 1])
        self.ended = word[right] == eos
        self.words += word[: right + (not self.ended)]
        self.draft = drafts[right]
        return right

    def output(self) -> Output:
        return Output(
            np.array(self.words, np.int64), self.log_p / (len(self.words) + 1), self.passes
        )
