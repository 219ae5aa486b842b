"""Greedy's words in fewer passes: drafted all at once, verified left to right, one pass a block.

A pass reads the words already right and a piece of the draft, and says what greedy would write
after each of them.  Draft words up to the first difference are right, and so is the choice there.
What follows may have moved by a word: the next pass reads several readings of the draft at once.
B = sentences, C = candidates of one sentence, R = words read in a pass, V = vocabulary.
"""

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any

import numpy as np
import torch
from torch import Tensor

from januslm.config import Allowed
from januslm.decoding import Output, _verified, greedy, mask_predict
from januslm.decoding._constraints import Rules, log_p, rules, top
from januslm.decoding._costs import clock, costs
from januslm.decoding._options import Count, Length, Ratio
from januslm.decoding._readings import Readings, seen_of
from januslm.decoding._templates import candidates, write
from januslm.decoding._verified import agreeing, bar, table

# Where the draft goes on after a wrong word: behind it, at it (the draft lacks a word), one
# further (it has one too many), ...; in the order of how often each is right.
SHIFTS = (1, 0, 2, 3, -1)
WATCHED = {"block": 8, "shifts": 3}  # where it is looked on, whatever pays
NEEDS = ("word by word", "all at once")  # how a checkpoint must have learnt to write


@torch.inference_mode()
def decode(
    decoder,
    sources: Sequence[np.ndarray],
    special,
    watch: "Watch | None" = None,
    *,
    block: Count = 0,  # words of a draft that a pass verifies; 0: as many as pay here
    shifts: Annotated[int, Allowed(low=0, high=len(SHIFTS))] = 0,
    draft_iterations: Length = 1,  # passes that make a draft
    min_length: Count = 0,  # fewest words of a text
    max_length: Length = 200,  # most words of a text, and max_ratio beside it
    max_ratio: Ratio = 0.0,  # so many words more for each token of the source
    no_repeat_ngram: Count = 0,  # no run of so many words comes twice; 0: they may
) -> list[Output]:
    """Tokens and score are those of greedy with the same limits; passes count the draft's too.

    shifts: after a difference, so many of SHIFTS are verified side by side in the next pass; 0: as
    many as pay.  What pays is decided by what a pass of so many rows costs here, measured once, and
    by what was accepted so far; where nothing does, the texts are written as greedy writes them.
    watch(texts): called with the drafts, and after each pass with the texts that it was for; block
    and shifts are then WATCHED unless they are given.
    """
    decoder.require(*NEEDS)
    state = decoder.start(sources)
    limits: dict[str, Any] = {
        "min_length": min_length,
        "max_length": max_length,
        "max_ratio": max_ratio,
        "no_repeat_ngram": no_repeat_ngram,
    }
    device = state.length_scores.device
    allowed = rules(decoder, sources, special, device, **limits)
    if watch is not None:
        block, shifts = block or WATCHED["block"], shifts or WATCHED["shifts"]
    if block and shifts:
        return _verify(decoder, state, allowed, watch, block, shifts, draft_iterations, Readings())
    seen, cost = seen_of(decoder), costs(decoder, sources)
    length = float(state.length_scores.argmax(1).double().mean())
    best = seen.best(length, draft_iterations, cost, block, shifts)
    began = clock(device)
    if best is None:
        outputs = greedy.write(decoder, state, sources, special, greedy.likeliest, **limits)
        promised = max(output.passes for output in outputs) * cost(1)
    else:
        outputs = _verify(decoder, state, allowed, watch, *best, draft_iterations, seen)
        passes = max(output.passes for output in outputs) - draft_iterations
        promised = draft_iterations * cost(length) + passes * cost(best[1] * (1 + best[0]))
    seen.took("draft" if best else "greedy", clock(device) - began, promised)
    return outputs


def _verify(
    decoder,
    state,
    allowed: Rules,
    watch: "Watch | None",
    block: int,
    shifts: int,
    iterations: int,
    seen: Readings,
) -> list[Output]:
    """A draft of each text, and passes that verify so many of its words; uses up the state."""
    drafts = write(
        decoder,
        copy.copy(state),
        allowed.special,
        candidates(state.length_scores, 1, "topk", decoder.most_length),
        mask_predict.schedule(iterations),
        early_stop=True,
    )
    texts = [
        _Text(limit, d.tokens.tolist(), passes=d.passes)
        for limit, d in zip(allowed.limit.tolist(), drafts, strict=True)
    ]

    def one_pass(kept, rows: list[_Text], head) -> Tensor:
        wrong = _round(decoder, state, kept, rows, head, block, shifts, seen)
        if watch is not None:
            watch(rows)
        return wrong

    if watch is not None:
        watch(texts)
    return _verified.write(decoder, state, allowed, texts, one_pass)


def _round(
    decoder,
    state,
    allowed,
    rows: list["_Text"],
    head,
    block: int,
    shifts: int,
    seen: Readings,
) -> Tensor:
    """One verifying pass; returns how many words of what each row read were wrong, int64 [B]."""
    eos, device = allowed.special.eos, allowed.limit.device
    heads = [head or tuple(text.words[-1:] or [eos]) for text in rows]
    tails = [text.proposals(block) for text in rows]
    words = table(heads, tails, eos, device)
    scores = log_p(decoder.block(state, words)[:, :, len(heads[0]) - 1 :])
    ways = [
        [tail[:count] for tail in some for count in range(scores.shape[2])]
        for some in words[:, :, len(heads[0]) :].tolist()
    ]
    bar(allowed, scores.flatten(1, 2), [text.words for text in rows], ways)
    value, word = (x.view(scores.shape[:-1]).tolist() for x in top(scores.flatten(0, 2), 1))
    kept = [
        text.accept(tail, w, v, eos, shifts, seen)
        for text, tail, w, v in zip(rows, tails, word, value, strict=True)
    ]
    _, width, run = words.shape
    if width > 1:
        state.choose(torch.tensor([best for best, _ in kept], device=device), width, run)
    return run - len(heads[0]) - torch.tensor([right for _, right in kept], device=device)


@dataclass
class _Text:
    """What is written of one sentence, and what is guessed of the rest."""

    limit: int
    draft: list[int]
    words: list[int] = field(default_factory=list)
    places: list[int] = field(default_factory=lambda: [0])  # in the draft: where it may go on
    log_p: float = 0.0
    passes: int = 0
    ended: bool = False
    right: int = 0  # words of the draft that the last pass took over; one of greedy's own follows

    def proposals(self, block: int) -> list[list[int]]:
        """The next words, as many ways as there are places; no way twice."""
        most = min(block, self.limit - len(self.words))
        ways: dict[tuple, int] = {}
        for place in self.places:
            ways.setdefault(tuple(self.draft[place : place + most]), place)
        self.places = list(ways.values())
        return [list(way) for way in ways]

    def accept(self, tails, word, value, eos: int, shifts: int, seen: Readings) -> tuple[int, int]:
        """Takes over what greedy would have written; returns the best tail and its right words.

        word, value: by tail, the choice after the words before it and after each of its words.
        """
        if self.ended:
            return 0, -1  # its last word need not stay in the cache either
        self.passes += 1
        counts = [agreeing(tail, w, eos) for tail, w in zip(tails, word, strict=False)]
        right = max(counts)
        best = counts.index(right)
        seen.count(len(tails), best if right else None, right, len(tails[best]))
        self.log_p += sum(value[best][: right + 1])
        self.right, self.ended = right, word[best][right] == eos
        self.words += word[best][: right + (not self.ended)]
        place = self.places[best] + right
        if self.draft[place : place + 1] == [word[best][right]]:  # the block ended, nothing differs
            self.places = [place + 1]
        else:
            self.places = [max(place + shift, 0) for shift in SHIFTS[:shifts]]
        return best, right

    def output(self) -> Output:
        return Output(
            np.array(self.words, np.int64), self.log_p / (len(self.words) + 1), self.passes
        )


Watch = Callable[[Sequence[_Text]], None]
