"""Block by block behind the words, in one pass or several a block, and nothing of it is checked.

BANG's semi-NAR in one pass; block diffusion (bd3lms, Arriola 2025; LLaDA, Nie 2025) in several: a
pass fills all that is hidden of a block, keeps what is most certain, and hides the rest again.
Finished blocks are cached.
B = sentences, K = words of a block, V = vocabulary.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated

import numpy as np
import torch
from torch import Tensor

from januslm.config import Allowed
from januslm.decoding import Output
from januslm.decoding._constraints import Rules, log_p, rules, worth_compacting
from januslm.decoding._options import MOST, Count, Length, Ratio

NEEDS = ("block by block",)  # how a checkpoint must have learnt to write
Share = Annotated[float, Allowed(low=0, high=1)]


@torch.inference_mode()
def decode(
    decoder,
    sources: Sequence[np.ndarray],
    special,
    *,
    block: Annotated[int, Allowed(low=0, high=MOST)] = 0,
    steps: Length = 1,  # passes a block, at most
    threshold: Share = 1.0,
    min_length: Count = 0,  # fewest words of a text
    max_length: Length = 200,  # most words of a text, and max_ratio beside it
    max_ratio: Ratio = 0.0,  # so many words more for each token of the source
) -> list[Output]:
    """n words take at most steps * n / block passes; score: mean log p as written, with EOS.

    block: words of a block, at most as many as were trained; 0: as many.  After pass s of S the
    floor(n (1 - s / S)) least certain of a block's n words up to EOS are hidden again.
    threshold: words of a higher probability never are, so a block may take fewer passes.
    """
    decoder.require(*NEEDS, *(["a block in several passes"] if steps > 1 else []))
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
    texts, writing = [_Text() for _ in sources], decoder.block_writing(state)
    words = torch.tensor(decoder.blocks.prefix, device=device).expand(len(texts), -1)
    rows, done = texts, 0  # the texts that go on, and how many words each of them has
    while True:
        made = _block(writing, allowed, words, done, size, steps, threshold)
        words, done = made.words, done + size
        columns = (made.words.tolist(), made.log_p.tolist(), made.passes.tolist())
        for text, word, value, passes in zip(rows, *columns, strict=True):
            text.take(word, value, passes, special.eos)
        alive = np.array([not text.ended for text in rows])
        if not alive.any():
            return [text.output() for text in texts]
        if worth_compacting(alive):
            chosen = torch.from_numpy(np.flatnonzero(alive)).to(device)
            state.keep(chosen)
            rows = [rows[n] for n in chosen.tolist()]
            allowed, words = allowed.keep(chosen), words[chosen]


@dataclass(frozen=True)
class _Block:
    """A block of each text."""

    words: Tensor  # int64 [B, K]
    log_p: Tensor  # float [B, K], when each word was written
    passes: Tensor  # int64 [B]


def _block(
    writing, allowed: Rules, words: Tensor, done: int, size: int, steps: int, threshold: float
) -> _Block:
    """Passes over the block behind `done` words; words: int64 [B, R], not yet cached.

    A text whose block has no hidden word left waits for the others.
    """
    device, mask = words.device, writing.read.query
    count = torch.arange(done, done + size, device=device).expand(len(words), -1)
    tokens = full = torch.full_like(count, mask)
    value = torch.zeros(count.shape, device=device)
    passes = torch.zeros_like(count[:, 0])
    active = torch.ones_like(passes, dtype=torch.bool)
    for step in range(1, steps + 1):
        scores = allowed.by_count(log_p(writing.ask(words, tokens)), count)
        words = words[:, :0]
        found, word = scores.max(-1)
        new = (tokens == mask) & active[:, None]
        full, value = torch.where(new, word, full), torch.where(new, found, value.to(found.dtype))
        passes = passes + active
        text = _up_to(full, allowed.special.eos)
        doubt = value.masked_fill(~text, torch.inf).argsort(dim=1, stable=True)
        least = text.sum(1, keepdim=True) * (steps - step) // steps
        again = torch.zeros_like(text).scatter(1, doubt, count - done < least)
        again = again & (value.exp() <= threshold)
        active = active & again.any(1)
        # Behind the end stand masks, as in training.
        tokens = torch.where(text & ~again, full, mask)
        if not active.any():
            break
    return _Block(full, value, passes)


def _up_to(words: Tensor, eos: int) -> Tensor:
    """bool [B, K]: the words up to the first EOS, it among them."""
    ends = words == eos
    return ends.cumsum(1) - ends.long() == 0


@dataclass
class _Text:
    """What is written of one sentence."""

    words: list[int] = field(default_factory=list)
    log_p: float = 0.0
    passes: int = 0
    ended: bool = False

    def take(self, words: list[int], value: list[float], passes: int, eos: int) -> None:
        """A block behind the words, as far as it goes."""
        if self.ended:
            return
        end = words.index(eos) if eos in words else len(words)
        self.ended = end < len(words)
        self.words += words[:end]
        self.log_p += sum(value[: end + self.ended])
        self.passes += passes

    def output(self) -> Output:
        return Output(
            np.array(self.words, np.int64), self.log_p / (len(self.words) + 1), self.passes
        )
