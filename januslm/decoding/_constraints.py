"""What no algorithm may write, and what several of them count alike.

B = sentences, W = hypotheses of one sentence, T = words written so far, V = vocabulary.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from januslm.config import Refused
from januslm.data.tokenizer import Special

CHUNK = 128  # `top` looks for the greatest of so many numbers at a time


@dataclass(frozen=True)
class Rules:
    """Special tokens are never words; when EOS must, may or must not come; no n-gram twice."""

    special: Special
    limit: Tensor  # int64 [B]: at most so many words
    min_length: int = 0
    no_repeat_ngram: int = 0

    def __call__(self, scores: Tensor, written: Tensor) -> Tensor:
        """Bars in place what may not follow.  scores [B, W, V]; written int64 [B, W, T]."""
        if self.no_repeat_ngram:
            bar_repeats(scores, written, self.no_repeat_ngram)
        return self.by_count(scores, written.shape[-1])

    def by_count(self, scores: Tensor, count: int | Tensor) -> Tensor:
        """The rules that need only the number of words so far: one, or int64 [B, W].

        Where they and the n-grams together leave nothing, the text ends.
        """
        s = self.special
        ends = scores[..., s.eos].clone() if self.no_repeat_ngram else None
        scores[..., [s.bos, s.pad, s.unk, s.mask]] = -torch.inf
        if isinstance(count, int):
            if count < self.min_length:
                scores[..., s.eos] = -torch.inf
            full = (count >= self.limit)[:, None]
        else:
            scores[..., s.eos].masked_fill_(count < self.min_length, -torch.inf)
            full = count >= self.limit[:, None]
        if full.any():
            end = scores[..., s.eos].clone()
            scores.masked_fill_(full[..., None], -torch.inf)
            scores[..., s.eos] = end
        if ends is not None:
            stuck = scores.amax(-1) == -torch.inf
            scores[..., s.eos] = torch.where(stuck, ends, scores[..., s.eos])
        return scores

    def keep(self, chosen: Tensor) -> "Rules":
        """The rules of some of the sentences."""
        return replace(self, limit=self.limit[chosen])


def rules(
    decoder,
    sources: Sequence,
    special,
    device,
    *,
    min_length: int,
    max_length: int,
    max_ratio: float,
    no_repeat_ngram: int,
) -> Rules:
    """Rules with limits of max_length + max_ratio * source tokens (fairseq's max_len_b and _a)."""
    limit = [min(max_length + int(max_ratio * len(s)), decoder.most_words) for s in sources]
    if min_length > (most := min(max_length, decoder.most_words)):  # the same for every batch
        raise Refused(
            f"min_length {min_length} is above the longest possible output, {most} words "
            f"(max_length {max_length}, positions {decoder.most_words}; what max_ratio adds does "
            "not count)"
        )
    return Rules(special, torch.tensor(limit, device=device), min_length, no_repeat_ngram)


def bar_repeats(scores: Tensor, written: Tensor, n: int) -> None:
    """Bars in place the words that would end an n-gram a second time.  Shapes as in Rules."""
    if written.shape[-1] < n:
        return
    grams = written.unfold(-1, n, 1)  # [B, W, T - n + 1, n]
    begun = written[..., None, written.shape[-1] - n + 1 :]
    again = (grams[..., :-1] == begun).all(-1)
    b, w, at = again.nonzero(as_tuple=True)
    scores[b, w, grams[b, w, at, -1]] = -torch.inf


def log_p(logits: Tensor) -> Tensor:
    """log_softmax, in fp32 at least."""
    return logits.log_softmax(-1, dtype=torch.promote_types(logits.dtype, torch.float32))


def top(scores: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """scores.topk(k) of float [R, n] along the last axis, three times as fast for small k.

    The k greatest lie in the k chunks with the greatest maxima.
    """
    chunks = scores.shape[-1] // CHUNK
    if chunks <= 2 * k:
        return scores.topk(k)
    parts = scores.unfold(-1, CHUNK, CHUNK)  # [R, chunks, CHUNK], a view without the tail
    best = parts.amax(-1).topk(k)[1]
    found = parts.gather(1, best[..., None].expand(-1, -1, CHUNK)).flatten(1)
    tail = scores[:, chunks * CHUNK :]
    values, at = torch.cat([found, tail], 1).topk(k)
    inside = best.gather(1, (at // CHUNK).clamp(max=k - 1)) * CHUNK + at % CHUNK
    return values, torch.where(at < k * CHUNK, inside, at - k * CHUNK + chunks * CHUNK)


def worth_compacting(alive: np.ndarray) -> bool:
    """bool [B]: moving the caches costs about as much as a step of a quarter of the batch."""
    return alive.sum() <= 0.75 * len(alive)
