"""Templates of many sentences at once: filled in passes, ranked at the end.

B = sentences, C = templates of one sentence, one for each length tried, L = slots of the longest.
"""

import itertools
from collections.abc import Callable
from dataclasses import dataclass, fields, replace

import numpy as np
import torch
from torch import Tensor

from januslm.decoding import Output
from januslm.decoding._constraints import log_p, top, worth_compacting
from januslm.layout import NONE

SHORTEST = (
    3  # BOS, one word, EOS: an empty template has nothing to lose and would always score best
)


@dataclass(frozen=True)
class Templates:
    """All templates of a batch; slots that are no part of a template are no holes."""

    tokens: Tensor  # int64 [B, C, L], with masks where a word is hidden
    full: Tensor  # int64 [B, C, L]: tokens before some were hidden
    masked: Tensor  # bool [B, C, L]
    holes: Tensor  # bool [B, C, L]: what the model writes at all
    ends: Tensor  # bool [B, C, L]: where only EOS can stand
    score: Tensor  # float [B, C, L]: log p of each word when it was written, 0 for what is given
    sizes: Tensor  # int64 [B, C]: slots of each template
    first: int  # position of the first slot

    @classmethod
    def of(cls, decoder, lengths: Tensor, special) -> "Templates":
        """Empty templates of the lengths int64 [B, C]."""
        templates = [[decoder.template(n) for n in row] for row in lengths.tolist()]
        sizes = np.array([[len(template) for template in row] for row in templates])
        tokens = np.full((*sizes.shape, sizes.max()), special.pad)
        holes, ends = np.zeros(tokens.shape, bool), np.zeros(tokens.shape, bool)
        for b, row in enumerate(templates):
            for c, slots in enumerate(row):
                n = len(slots)
                tokens[b, c, :n] = slots.token
                holes[b, c, :n] = slots.goal != NONE
                ends[b, c, :n] = slots.goal == slots.position.max()
        first = int(templates[0][0].position[0])
        written, asked, last, counts = (
            torch.from_numpy(x).to(lengths.device) for x in (tokens, holes, ends, sizes)
        )
        score = torch.zeros(written.shape, device=lengths.device)
        return cls(written, written, asked, asked, last, score, counts, first)

    def filled(self, decoder, state, special, bans: bool = True) -> "Templates":
        """One pass: the likeliest word in every masked slot, certain or not.

        bans: special tokens are no words.
        """
        logits = decoder.fill(state, self.tokens, self.sizes, self.first, self.masked)
        scores = log_p(logits)
        end = scores[:, special.eos].clone()
        if bans:
            no_words = [special.bos, special.pad, special.eos, special.unk, special.mask]
            scores[:, no_words] = -torch.inf
        value, word = (x[:, 0] for x in top(scores, 1))
        ends = self.ends[self.masked]
        value, word = torch.where(ends, end, value), word.masked_fill(ends, special.eos)
        tokens = self.tokens.masked_scatter(self.masked, word)
        score = self.score.to(value.dtype).masked_scatter(self.masked, value)
        return replace(self, tokens=tokens, full=tokens, score=score)

    def uncertain(self, count: Tensor) -> Tensor:
        """bool [B, C, L]: the `count` int64 [B, C] least certain words of each template."""
        doubt = self.score.masked_fill(~self.holes, torch.inf).argsort(dim=-1, stable=True)
        rank = torch.arange(doubt.shape[-1], device=doubt.device)
        return torch.zeros_like(self.holes).scatter(-1, doubt, rank < count[..., None])

    def hidden(self, masked: Tensor, special) -> "Templates":
        """The words of `masked` hidden again."""
        return replace(self, masked=masked, tokens=self.tokens.masked_fill(masked, special.mask))

    def without(self, token: int) -> "Templates":
        """The same where slots that hold this token are no words: neither counted nor scored.

        They may be hidden again like any; the published code does so with <pad>.
        """
        gone = self.holes & (self.full == token)
        return replace(
            self,
            holes=self.holes & ~gone,
            score=self.score.masked_fill(gone, 0.0),
            sizes=self.sizes - gone.sum(-1),
        )

    def keep(self, rows: Tensor) -> "Templates":
        """Some of the sentences."""
        kept = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "first"}
        return replace(self, **{name: x[rows] for name, x in kept.items()})

    def best(self, row: int, passes: int) -> Output:
        """The templates by mean log p; what is given counts with log p 0 (JANUS)."""
        mean = self.score[row].sum(-1) / self.sizes[row]
        words = (self.holes[row] & ~self.ends[row]).cpu().numpy()
        full = self.full[row].cpu().numpy()
        return ranked(
            [Output(full[c][words[c]], float(mean[c]), passes) for c in range(len(words))]
        )


def ranked(outputs: list[Output]) -> Output:
    """The best, with the rest of them as its others; no text twice (`around` may cut lengths)."""
    texts = {output.tokens.tobytes(): output for output in reversed(outputs)}
    best, *others = sorted(reversed(texts.values()), key=lambda output: -output.score)
    return replace(best, others=tuple(others))


def candidates(length_scores: Tensor, count: int, kind: str, most: int) -> Tensor:
    """Lengths to try, int64 [B, C], BOS and EOS counted.  length_scores: float [B, max_length]."""
    scores = length_scores[:, : most + 1].clone()
    scores[:, :SHORTEST] = -torch.inf
    if kind == "topk":
        return scores.topk(min(count, most + 1 - SHORTEST)).indices
    around = torch.arange(count, device=scores.device) - count // 2
    return (scores.argmax(1, keepdim=True) + around).clamp(SHORTEST, most)


def write(
    decoder,
    state,
    special,
    lengths: Tensor,
    hide: Callable[[Templates, int], Tensor],
    early_stop: bool = False,
    bans: bool = True,
) -> list[Output]:
    """Fills templates of the lengths int64 [B, C] until nothing is hidden; uses up the state.

    hide(templates, done) -> bool [B, C, L]: what pass `done` leaves to be written again.
    early_stop: a sentence also ends when a pass changes no word of it.  bans: see filled.
    """
    templates = Templates.of(decoder, lengths, special)
    out: dict[int, Output] = {}
    numbers, alive = np.arange(len(lengths)), np.ones(len(lengths), bool)
    for done in itertools.count(1):
        before, templates = templates, templates.filled(decoder, state, special, bans)
        masked = hide(templates, done)
        over = ~masked.flatten(1).any(1)
        if early_stop and done > 1:
            over |= (templates.tokens == before.full).flatten(1).all(1)
        for row in np.flatnonzero(alive & over.cpu().numpy()).tolist():
            written = templates if bans else templates.without(special.pad)
            out[int(numbers[row])] = written.best(row, done)
            alive[row] = False
        if not alive.any():
            break
        if worth_compacting(alive):
            rows = torch.from_numpy(np.flatnonzero(alive)).to(masked.device)
            state.keep(rows)
            templates, masked = templates.keep(rows), masked[rows]
            numbers, alive = numbers[alive], alive[alive]
        templates = templates.hidden(masked, special)
    return [out[number] for number in range(len(lengths))]
