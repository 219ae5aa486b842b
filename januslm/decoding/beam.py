"""Word by word, keeping the best few beginnings (fairseq's search)."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Annotated

import numpy as np
import torch
from torch import Tensor

from januslm.config import Allowed
from januslm.decoding import Output
from januslm.decoding._constraints import log_p, rules, top, worth_compacting
from januslm.decoding._options import Beam, Count, Length, Ratio

NEEDS = ("word by word",)  # how a checkpoint must have learnt to write
AT_MOST = {"n_best": "beam"}  # options that another one bounds


@torch.inference_mode()
def decode(
    decoder,
    sources: Sequence[np.ndarray],
    special,
    *,
    beam: Beam = 5,
    length_penalty: Annotated[float, Allowed(low=-10, high=10)] = 1.0,
    min_length: Count = 0,
    max_length: Length = 200,
    max_ratio: Ratio = 0.0,
    no_repeat_ngram: Count = 0,
    early_stop: bool = True,
    n_best: Beam = 1,
) -> list[Output]:
    """Score: log p / (words + EOS) ** length_penalty.

    early_stop: a sentence ends with its `beam`-th finished hypothesis, as in fairseq; otherwise it
    goes on until no unfinished one can come out better.
    """
    assert n_best <= beam, (n_best, beam)
    decoder.require(*NEEDS)
    state = decoder.start(sources)
    logits = decoder.step(state)
    allowed = rules(
        decoder,
        sources,
        special,
        logits.device,
        min_length=min_length,
        max_length=max_length,
        max_ratio=max_ratio,
        no_repeat_ngram=no_repeat_ngram,
    )
    harvest = [
        _Harvest(beam, length_penalty, early_stop, limit) for limit in allowed.limit.tolist()
    ]
    front = _Front.empty(len(sources), logits.device)
    while True:
        scores = allowed(log_p(logits), front.written)
        value, parent, word = _candidates(scores, front.total, beam)
        ends = word == special.eos
        front.gather(harvest, value, parent, ends)
        if not front.alive.any():
            return [h.output(n_best) for h in harvest]
        front = front.grown(value, parent, word, ends, beam)
        if worth_compacting(front.alive):
            chosen = torch.from_numpy(np.flatnonzero(front.alive)).to(logits.device)
            state.keep(chosen)
            front, allowed = front.keep(chosen), allowed.keep(chosen)
        logits = decoder.step(state, front.written[..., -1], front.parents)


def _candidates(scores: Tensor, total: Tensor, beam: int) -> tuple[Tensor, Tensor, Tensor]:
    """The best 2 * beam continuations: log p, hypothesis and word, [B, 2 * beam] each."""
    vocabulary = scores.shape[-1]
    flat = scores.add_(total[..., None]).flatten(1)
    value, at = top(flat, min(2 * beam, flat.shape[1]))
    return value, at // vocabulary, at % vocabulary


@dataclass(frozen=True)
class _Front:
    """The unfinished hypotheses of a batch."""

    written: Tensor  # int64 [B, W, T]
    total: Tensor  # float [B, W], log p
    parents: Tensor  # int64 [B, W]: which hypothesis of the step before each continues
    numbers: np.ndarray  # int64 [B]: which source
    alive: np.ndarray  # bool [B]

    @classmethod
    def empty(cls, batch: int, device) -> "_Front":
        written = torch.empty(batch, 1, 0, dtype=torch.long, device=device)
        total = torch.zeros(batch, 1, device=device)
        parents = torch.zeros(batch, 1, dtype=torch.long, device=device)
        return cls(written, total, parents, np.arange(batch), np.ones(batch, bool))

    def gather(self, harvest: list, value: Tensor, parent: Tensor, ends: Tensor) -> None:
        """Hands finished hypotheses among the best `beam` to their sentences; ends sentences."""
        best = harvest[0].beam
        count = self.written.shape[-1]
        found = (ends & (value > -torch.inf))[:, :best].cpu()
        values = value.tolist() if found.any() else []
        live = value.masked_fill(ends, -torch.inf).amax(1).tolist()
        for row in np.flatnonzero(self.alive):
            mine = harvest[self.numbers[row]]
            for at in found[row].nonzero()[:, 0].tolist() if values else ():
                tokens = self.written[row, parent[row, at]].cpu().numpy()
                mine.add(tokens, values[row][at])
            self.alive[row] = not mine.full(live[row], count)

    def grown(self, value, parent, word, ends, beam: int) -> "_Front":
        """The best `beam` that go on, one word longer."""
        order = ends.to(torch.uint8).argsort(dim=1, stable=True)[:, :beam]
        parent, word = parent.gather(1, order), word.gather(1, order)
        total = value.masked_fill(ends, -torch.inf).gather(1, order)
        past = parent[..., None].expand(-1, -1, self.written.shape[-1])
        written = torch.cat([self.written.gather(1, past), word[..., None]], 2)
        return replace(self, written=written, total=total, parents=parent)

    def keep(self, chosen: Tensor) -> "_Front":
        rows = chosen.cpu().numpy()
        return _Front(
            self.written[chosen],
            self.total[chosen],
            self.parents[chosen],
            self.numbers[rows],
            self.alive[rows],
        )


@dataclass
class _Harvest:
    """The finished hypotheses of one sentence."""

    beam: int
    penalty: float
    early_stop: bool
    limit: int
    found: list[tuple[float, np.ndarray]] = field(default_factory=list)
    passes: int = 0

    def score(self, log_p: float, words: int) -> float:
        return log_p / (words + 1) ** self.penalty

    def add(self, tokens: np.ndarray, log_p: float) -> None:
        if self.early_stop and len(self.found) == self.beam:
            return
        self.found.append((self.score(log_p, len(tokens)), tokens))

    def full(self, live: float, count: int) -> bool:
        """Whether to stop.  live: the best unfinished log p; count: words before this pass."""
        self.passes = count + 1
        if count >= self.limit or live == -np.inf:
            return True
        if self.early_stop or len(self.found) < self.beam:
            return len(self.found) >= self.beam
        # Log p only falls, so the kindest length a live one can reach bounds what it may score.
        kindest = self.limit if self.penalty > 0 else count + 1
        worst = sorted((score for score, _ in self.found), reverse=True)[self.beam - 1]
        return worst >= self.score(live, kindest)

    def output(self, n_best: int) -> Output:
        best = sorted(self.found, key=lambda pair: -pair[0])[:n_best]
        outputs = [Output(tokens, score, self.passes) for score, tokens in best]
        return replace(outputs[0], others=tuple(outputs[1:]))
