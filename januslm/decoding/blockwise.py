"""Block by block: each pass writes a whole block behind the words, and none of it is checked.

BANG's semi-NAR; of a block that was learnt with masks alone, block diffusion in one step a block.
B = sentences, K = words of a block, V = vocabulary.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated

import numpy as np
import torch

from januslm.config import Allowed
from januslm.decoding import Output
from januslm.decoding._constraints import log_p, rules, worth_compacting
from januslm.decoding._options import MOST, Count, Length, Ratio

NEEDS = ("a block after each word",)  # how a checkpoint must have learnt to write


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
) -> list[Output]:
    """n words take n / block passes; score: mean log p of the words, EOS among them.

    block: words that a pass writes, at most as many as were trained; 0: as many.
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
        no_repeat_ngram=0,
    )
    texts = [_Text() for _ in sources]
    words = torch.tensor(decoder.prefix, device=device).expand(len(texts), -1)
    rows, done = texts, 0  # the texts that go on, and how many words each of them has
    while True:
        scores = log_p(decoder.draft(state, words, size, blocks=1)[1][:, 0])
        count = torch.arange(done, done + size, device=device)
        value, words = allowed.by_count(scores, count.expand(len(rows), -1)).max(-1)
        done += size
        for text, word, log in zip(rows, words.tolist(), value.tolist(), strict=True):
            text.take(word, log, special.eos)
        alive = np.array([not text.ended for text in rows])
        if not alive.any():
            return [text.output() for text in texts]
        if worth_compacting(alive):
            chosen = torch.from_numpy(np.flatnonzero(alive)).to(device)
            state.keep(chosen)
            rows = [rows[n] for n in chosen.tolist()]
            allowed, words = allowed.keep(chosen), words[chosen]


@dataclass
class _Text:
    """What is written of one sentence."""

    words: list[int] = field(default_factory=list)
    log_p: float = 0.0
    passes: int = 0
    ended: bool = False

    def take(self, words: list[int], value: list[float], eos: int) -> None:
        """A block behind the words, as far as it goes."""
        if self.ended:
            return
        end = words.index(eos) if eos in words else len(words)
        self.ended = end < len(words)
        self.words += words[:end]
        self.log_p += sum(value[: end + self.ended])
        self.passes += 1

    def output(self) -> Output:
        return Output(
            np.array(self.words, np.int64), self.log_p / (len(self.words) + 1), self.passes
        )
