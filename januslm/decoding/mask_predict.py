"""All at once: predict every word, hide the least certain, predict these again from the rest.

Mask-Predict (Ghazvininejad 2019).  B = sentences, C = canvases of one sentence, one for each
length tried, L = slots of the longest canvas.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Annotated

import numpy as np
import torch
from torch import Tensor

from januslm.config import Allowed
from januslm.decoding import Output
from januslm.decoding._rules import log_p, top, worth_compacting
from januslm.layout import NONE

SHORTEST = 3  # BOS, one word, EOS: an empty canvas has nothing to lose and would always score best


@torch.inference_mode()
def decode(
    reader,
    sources: Sequence[np.ndarray],
    special,
    *,
    iterations: Annotated[int, Allowed(low=1)] = 10,
    length_beam: Annotated[int, Allowed(low=1)] = 3,
    lengths: Annotated[str, Allowed(choices=("topk", "around"))] = "topk",
    early_stop: bool = True,
    extra_pass: bool = False,
) -> list[Output]:
    """The length whose canvas has the highest mean log p wins; the score is that mean.

    lengths: the `length_beam` likeliest, or JANUS' likeliest and its neighbours.  early_stop: a
    sentence ends when a pass changes no word.  extra_pass: one pass more than `iterations`, as
    JANUS' published code counts them.
    """
    reader.must_write("all at once")
    return write(
        reader, reader.start(sources), special, iterations + extra_pass, length_beam, lengths,
        early_stop,
    )  # fmt: skip


def write(
    reader, state, special, passes: int, length_beam: int, lengths: str, early_stop: bool
) -> list[Output]:
    """As `decode`, for sources that are read already; uses up the state."""
    tried = candidates(state.length_scores, length_beam, lengths, reader.most_length)
    board = Board.of(reader, tried, special)
    out: list[Output | None] = [None] * len(tried)
    numbers, alive = np.arange(len(tried)), np.ones(len(tried), bool)
    for done in range(1, passes + 1):
        before, board = board, board.filled(reader, state, special)
        hide = board.holes.sum(-1) * (passes - done) // passes
        over = (hide == 0).all(1)
        if early_stop and done > 1:
            over |= (board.tokens == before.full).flatten(1).all(1)
        for row in np.flatnonzero(alive & over.cpu().numpy()):
            out[numbers[row]] = board.best(row, done, special)
            alive[row] = False
        if not alive.any():
            break
        if worth_compacting(alive):
            rows = torch.from_numpy(np.flatnonzero(alive)).to(hide.device)
            state.keep(rows)
            board, hide = board.keep(rows), hide[rows]
            numbers, alive = numbers[alive], alive[alive]
        board = board.hidden(hide, special)
    return out


def candidates(length_scores: Tensor, count: int, kind: str, most: int) -> Tensor:
    """Lengths to try, int64 [B, C], BOS and EOS counted.  length_scores: float [B, max_length]."""
    scores = length_scores[:, : most + 1].clone()
    scores[:, :SHORTEST] = -torch.inf
    if kind == "topk":
        return scores.topk(min(count, most + 1 - SHORTEST)).indices
    around = torch.arange(count, device=scores.device) - count // 2
    return (scores.argmax(1, keepdim=True) + around).clamp(SHORTEST, most)


@dataclass(frozen=True)
class Board:
    """All canvases of a batch; slots that are no part of a canvas are no holes."""

    tokens: Tensor  # int64 [B, C, L], with masks where a word is hidden
    full: Tensor  # int64 [B, C, L]: tokens before some were hidden
    masked: Tensor  # bool [B, C, L]
    holes: Tensor  # bool [B, C, L]: what the model writes at all
    ends: Tensor  # bool [B, C, L]: where only EOS can stand
    score: Tensor  # float [B, C, L]: log p of each word when it was written, 0 for what is given
    sizes: Tensor  # int64 [B, C]: slots of each canvas
    first: int  # position of the first slot

    @classmethod
    def of(cls, reader, lengths: Tensor, special) -> "Board":
        """Empty canvases of the lengths int64 [B, C]."""
        canvases = [[reader.canvas(n) for n in row] for row in lengths.tolist()]
        sizes = np.array([[len(canvas) for canvas in row] for row in canvases])
        tokens = np.full((*sizes.shape, sizes.max()), special.pad)
        holes, ends = np.zeros(tokens.shape, bool), np.zeros(tokens.shape, bool)
        for b, row in enumerate(canvases):
            for c, slots in enumerate(row):
                n = len(slots)
                tokens[b, c, :n] = slots.token
                holes[b, c, :n] = slots.goal != NONE
                ends[b, c, :n] = slots.goal == slots.position.max()
        first = int(canvases[0][0].position[0])
        tokens, holes, ends, sizes = (
            torch.from_numpy(x).to(lengths.device) for x in (tokens, holes, ends, sizes)
        )
        score = torch.zeros(tokens.shape, device=lengths.device)
        return cls(tokens, tokens, holes, holes, ends, score, sizes, first)

    def filled(self, reader, state, special) -> "Board":
        """One pass: the likeliest word in every masked slot, certain or not."""
        logits = reader.fill(state, self.tokens, self.sizes, self.first, self.masked)
        scores = log_p(logits)
        end = scores[:, special.eos].clone()
        scores[:, [special.bos, special.pad, special.eos, special.unk, special.mask]] = -torch.inf
        value, word = (x[:, 0] for x in top(scores, 1))
        ends = self.ends[self.masked]
        value, word = torch.where(ends, end, value), word.masked_fill(ends, special.eos)
        tokens = self.tokens.masked_scatter(self.masked, word)
        score = self.score.to(value.dtype).masked_scatter(self.masked, value)
        return replace(self, tokens=tokens, full=tokens, score=score)

    def hidden(self, count: Tensor, special) -> "Board":
        """The `count` int64 [B, C] least certain words of each canvas hidden again."""
        doubt = self.score.masked_fill(~self.holes, torch.inf).argsort(dim=-1, stable=True)
        rank = torch.arange(doubt.shape[-1], device=doubt.device)
        masked = torch.zeros_like(self.holes).scatter(-1, doubt, rank < count[..., None])
        return replace(self, masked=masked, tokens=self.tokens.masked_fill(masked, special.mask))

    def keep(self, rows: Tensor) -> "Board":
        """Some of the sentences."""
        kept = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "first"}
        return replace(self, **{name: x[rows] for name, x in kept.items()})

    def best(self, row: int, passes: int, special) -> Output:
        """The canvas with the highest mean log p; what is given counts with log p 0 (JANUS)."""
        mean = self.score[row].sum(-1) / self.sizes[row]
        best = int(mean.argmax())
        tokens = self.full[row, best][self.holes[row, best] & ~self.ends[row, best]]
        return Output(tokens.cpu().numpy(), float(mean[best]), passes)
