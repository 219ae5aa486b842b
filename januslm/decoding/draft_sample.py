"""Sampling in fewer passes: `draft` with words drawn by chance, in the distribution of `sample`.

A draft word d, drawn from what the masks say, q, stands with the probability min(1, p(d) / q(d));
where it falls, a word is drawn from max(p - q, 0), and the draft ends (Leviathan 2023, Chen 2023).
Each word then has AR's own distribution p, whatever q is.
B = sentences, A = words after which something is asked, K = words of a draft, V = vocabulary.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Annotated, Any, Literal

import numpy as np
import torch
from torch import Tensor

from januslm.config import Allowed
from januslm.decoding import Output, greedy, sample
from januslm.decoding._constraints import Rules, log_p, rules
from januslm.decoding._forms import Acceptance, chooser, widest
from januslm.decoding._options import MOST, Beam, Count, Length, Ratio
from januslm.decoding._rounds import Cheapest, Fixed
from januslm.decoding._trees import Tree
from januslm.decoding._verified import bar, write
from januslm.decoding.sample import generators, grouped, start, warped

# How a checkpoint must have learnt to write.
NEEDS = ("word by word", "a block after each word")


@dataclass(frozen=True)
class Warp:
    """How probabilities are bent before a word is drawn; as `sample` has it."""

    temperature: float
    top_k: int
    top_p: float

    def __call__(self, scores: Tensor) -> Tensor:
        """log p [..., V] -> the probabilities that words are drawn with, float64 [..., V]."""
        _, word, p = warped(scores, self.temperature, self.top_k, self.top_p)
        whole = torch.zeros(scores.shape, dtype=p.dtype, device=p.device)
        return whole.scatter(-1, word, p / p.sum(-1, keepdim=True))


@torch.inference_mode()
def decode(
    decoder,
    sources: Sequence[np.ndarray],
    special,
    *,
    # below 1 likelier words gain, above 1 others
    temperature: Annotated[float, Allowed(low=1e-3, high=1e3)] = 1.0,
    top_k: Count = 0,  # draw from so many likeliest words
    # draw from the likeliest words that have so much of p
    top_p: Annotated[float, Allowed(above=0, high=1)] = 1.0,
    seed: Count = 0,  # of the random draws
    samples: Beam = 1,
    form: Literal["auto", "one", "two"] = "auto",  # passes a round
    block: Annotated[int, Allowed(low=0, high=MOST)] = 0,  # masks behind a word; 0: as trained
    min_length: Count = 0,  # fewest words of a text
    max_length: Length = 200,  # most words of a text, and max_ratio beside it
    max_ratio: Ratio = 0.0,  # so many words more for each token of the source
    no_repeat_ngram: Count = 0,  # no run of so many words comes twice; 0: they may
) -> list[Output]:
    """Texts are distributed as those of sample with the same options.

    top_k 0: all words.  samples: texts of each source; others has the later ones.  "auto" takes
    what is fastest here: the same seed may then give other texts; with a form, chance comes from
    (seed, source, number of the sample) and the batch does not matter.
    """
    decoder.require(*NEEDS)
    size = min(block or decoder.most_block, decoder.most_block)
    each = [s for s in sources for _ in range(samples)]
    state = start(decoder, sources, samples)
    device = state.length_scores.device
    limits: dict[str, Any] = {
        "min_length": min_length,
        "max_length": max_length,
        "max_ratio": max_ratio,
        "no_repeat_ngram": no_repeat_ngram,
    }
    rngs = generators(each, seed, samples)
    if form == "auto":
        cheapest = Cheapest(decoder, device, each, chooser(decoder, "samples"), size, 1)
        if not cheapest.pays():
            choose = sample.chooser(rngs, temperature, top_k, top_p)
            written = partial(greedy.write, decoder, state, each, special, choose, **limits)
            return grouped(cheapest.plainly(written), samples)
        plan: Fixed = cheapest
    else:
        plan = Fixed(widest(form, size, 1))
    allowed = rules(decoder, each, special, device, **limits)
    texts = [
        _Text(limit, special.eos, rng)
        for limit, rng in zip(allowed.limit.tolist(), rngs, strict=True)
    ]
    warp = Warp(temperature, top_k, top_p)

    def one_pass(kept: Rules, rows: list[_Text], head) -> Tensor:
        read = partial(_read, decoder, state, kept, warp, plan.acceptance)
        return plan.one_pass(read, rows, head)

    return grouped(write(decoder, state, allowed, texts, one_pass), samples)


def _read(
    decoder,
    state,
    allowed: Rules,
    warp: Warp,
    acceptance: Acceptance,
    rows: list["_Text"],
    head,
    tree: Tree,
    masks: int,
) -> Tensor:
    """One pass over each text's draft; returns how many of its words were wrong."""
    special, device = allowed.special, allowed.limit.device
    heads = [head or tuple(text.words[-1:] or [special.eos]) for text in rows]
    guesses = [text.proposal(len(tree)) for text in rows]
    tails = [guess + [special.eos] * (len(tree) - len(guess)) for guess in guesses]
    words = [[*start, *tail] for start, tail in zip(heads, tails, strict=True)]
    read = torch.tensor(words, device=device)
    after, behind = decoder.draft(state, read, masks, len(tree) + 1)
    scores = log_p(after)
    ways = [[tail[:n] for n in range(len(tree) + 1)] for tail in tails]
    bar(allowed, scores, [text.words for text in rows], ways)
    p = warp(scores)
    right = _accepted(rows, guesses, p, acceptance)
    kept = torch.tensor(right, device=device)
    own = _own_words(rows, guesses, kept, p)
    for number, text in enumerate(rows):
        chosen = [*guesses[number][: right[number]], own[number]]
        value = scores[number, range(len(chosen)), chosen].tolist()
        text.take(chosen, value)
    if masks > 1:
        _draft(rows, behind[torch.arange(len(rows), device=device), kept, 1:], warp, special)
    return len(tree) - kept


def _accepted(rows, guesses, p: Tensor, acceptance: Acceptance) -> list[int]:
    """How many words of each draft stand.  p: float64 [B, A, V]."""
    most = max(map(len, guesses))
    if not most:
        return [0] * len(rows)
    filled = [guess + [0] * (most - len(guess)) for guess in guesses]
    words = torch.tensor(filled, device=p.device)[..., None]
    q = torch.stack([text.q[:most] for text in rows])
    shares = (p[:, :most].gather(2, words) / q.gather(2, words))[..., 0].tolist()
    found = []
    for text, guess, share in zip(rows, guesses, shares, strict=True):
        right = 0
        for place in range(len(guess)):
            stands = text.rng.random() < share[place]
            acceptance.count(place, 0 if stands else None)
            if not stands:
                break
            right += 1
        found.append(right)
    return found


def _own_words(rows, guesses, right: Tensor, p: Tensor) -> list[int]:
    """The word that each text's pass draws itself: from p, or where a draft fell from p - q."""
    left = p[torch.arange(len(rows), device=p.device), right]
    for number, (text, guess) in enumerate(zip(rows, guesses, strict=True)):
        if (count := int(right[number])) < len(guess):
            left[number] -= text.q[count]
    return _drawn(left.clamp(min=0), [text.rng.random() for text in rows])


def _drawn(weights: Tensor, uniform: list[float]) -> list[int]:
    """Words with probabilities in proportion to float64 [R, V]; uniform: in [0, 1), R of them."""
    reached = weights.cumsum(-1)
    at = torch.tensor(uniform, dtype=reached.dtype, device=reached.device)[:, None]
    word = torch.searchsorted(reached, at * reached[:, -1:], right=True)[:, 0]
    # Rounding may leave the last sum below the number times itself.
    last = weights.shape[-1] - 1 - (weights.flip(-1) > 0).to(torch.uint8).argmax(-1)
    return word.minimum(last).tolist()


def _draft(rows: list["_Text"], behind: Tensor, warp: Warp, special) -> None:
    """New drafts, drawn place by place from float [B, K, V]."""
    guess = behind.clone()
    guess[..., [special.bos, special.pad, special.unk, special.mask]] = -torch.inf
    for text, q in zip(rows, warp(log_p(guess)), strict=True):
        text.q, text.draft = q, _drawn(q, text.rng.random(len(q)).tolist())


@dataclass
class _Text:
    """What is written of one sentence, and the draft of what follows, drawn from q [K, V]."""

    limit: int
    eos: int
    rng: np.random.Generator
    words: list[int] = field(default_factory=list)
    draft: list[int] = field(default_factory=list)
    q: Tensor = field(default_factory=lambda: torch.zeros(0, 0))
    log_p: float = 0.0
    passes: int = 0
    ended: bool = False

    def proposal(self, most: int) -> list[int]:
        """As much of the draft as there is room for, its end included."""
        if self.ended:
            return []
        words = self.draft[: min(most, self.limit - len(self.words))]
        return words[: words.index(self.eos) + 1] if self.eos in words else words

    def take(self, words: list[int], value: list[float]) -> None:
        """What a pass has written, as far as the text goes; value: log p of each word."""
        if self.ended:
            return
        self.passes += 1
        self.draft = []
        end = words.index(self.eos) if self.eos in words else len(words)
        self.ended = end < len(words)
        self.words += words[:end]
        self.log_p += sum(value[: end + self.ended])

    def output(self) -> Output:
        return Output(
            np.array(self.words, np.int64), self.log_p / (len(self.words) + 1), self.passes
        )
