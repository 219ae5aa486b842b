"""Greedy's words in fewer passes: each pass checks a draft and makes the next one.

A pass reads the words that are right and the draft, and behind each of them a block of masks, which
knows the words up to there.  Draft words up to the first difference are right, and so is the choice
there; the block behind the last right word has already drafted what follows.  That is one pass a
round and many rows; two passes, one that drafts and one that verifies, read fewer.
B = sentences, N = words that are read in a pass, A = words after which something is asked,
V = vocabulary.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Annotated, Any, Literal

import numpy as np
import torch
from torch import Tensor

from januslm.config import Allowed
from januslm.decoding import Output, greedy
from januslm.decoding._constraints import Rules, log_p, rules, top
from januslm.decoding._forms import CHOICES, MOST_LINES, Acceptance, chooser, widest
from januslm.decoding._options import MOST, Count, Length, Ratio
from januslm.decoding._rounds import Cheapest, Fixed
from januslm.decoding._trees import Tree
from januslm.decoding._verified import bar, write

# How a checkpoint must have learnt to write.
NEEDS = ("word by word", "a block after each word")


@torch.inference_mode()
def decode(
    decoder,
    sources: Sequence[np.ndarray],
    special,
    *,
    form: Literal["auto", "one", "two"] = "auto",  # passes a round
    block: Annotated[int, Allowed(low=0, high=MOST)] = 0,
    lines: Annotated[int, Allowed(low=0, high=MOST_LINES)] = 0,
    min_length: Count = 0,  # fewest words of a text
    max_length: Length = 200,  # most words of a text, and max_ratio beside it
    max_ratio: Ratio = 0.0,  # so many words more for each token of the source
    no_repeat_ngram: Count = 0,  # no run of so many words comes twice; 0: they may
) -> list[Output]:
    """Tokens and score are those of greedy with the same limits.

    form, block, lines: "auto" chooses all three by what a pass of so many rows costs here, measured
    once, and by what was accepted so far, and may be greedy itself; block and lines are then the
    most it may take.  block: masks behind each word, at most as many as were trained; 0: as
    many.  lines: readings of the draft that are verified side by side, each with one word replaced
    by its second choice or a later one; 0: as many as pay ("one", "two": 1).
    """
    decoder.require(*NEEDS)
    size = min(block or decoder.most_block, decoder.most_block)
    state = decoder.start(sources)
    device = state.length_scores.device
    limits: dict[str, Any] = {
        "min_length": min_length,
        "max_length": max_length,
        "max_ratio": max_ratio,
        "no_repeat_ngram": no_repeat_ngram,
    }
    if form == "auto":
        seen, most = chooser(decoder, "words"), lines or MOST_LINES
        cheapest = Cheapest(decoder, device, sources, seen, size, most)
        if not cheapest.pays():
            choose = greedy.likeliest
            written = partial(greedy.write, decoder, state, sources, special, choose, **limits)
            return cheapest.plainly(written)
        plan: Fixed = cheapest
    else:
        plan = Fixed(widest(form, size, lines or 1))
    allowed = rules(decoder, sources, special, device, **limits)
    texts = [_Text(limit) for limit in allowed.limit.tolist()]

    def one_pass(kept: Rules, rows: list[_Text], head) -> Tensor:
        return plan.one_pass(partial(_read, decoder, state, kept, plan.acceptance), rows, head)

    return write(decoder, state, allowed, texts, one_pass)


def _read(
    decoder, state, allowed: Rules, acceptance: Acceptance, rows, head, tree: Tree, masks: int
) -> Tensor:
    """One pass over a tree of each text's draft; returns how many of its words were wrong."""
    special, device = allowed.special, allowed.limit.device
    heads = [head or tuple(text.words[-1:] or [special.eos]) for text in rows]
    first = len(heads[0])
    nodes = [tree.words(text.proposal(special.eos)) for text in rows]
    filled = [[special.eos if word is None else word for word in each] for each in nodes]
    words = torch.tensor(
        [[*start, *each] for start, each in zip(heads, filled, strict=True)], device=device
    )
    parents = () if tree.is_chain else tree.behind(first)
    after, behind = decoder.draft(state, words, masks, len(tree) + 1, parents)
    scores = log_p(after)
    ways = [tree.before(each) for each in filled]
    bar(allowed, scores, [text.words for text in rows], ways)
    value, word = (x.view(len(rows), -1).tolist() for x in top(scores.flatten(0, 1), 1))
    choices = _choices(behind, special, masks)
    paths = [
        text.accept(tree, each, w, v, drafts, special.eos, acceptance)
        for text, each, w, v, drafts in zip(rows, nodes, word, value, choices, strict=True)
    ]
    return _keep(state, tree, paths, first, device)


def _choices(behind: Tensor, special, masks: int) -> list:
    """The likeliest words of each block's places, by what they stand behind, place and rank.

    The first of a block stands where the word does that has just been chosen.
    """
    if masks < 2:
        return [[[]] * behind.shape[1]] * len(behind)
    guess = behind[:, :, 1:].clone()
    guess[..., [special.bos, special.pad, special.unk, special.mask]] = -torch.inf
    most = min(CHOICES, guess.shape[-1])
    found = top(guess.flatten(0, 2), most)[1]
    return found.view(*guess.shape[:3], most).tolist()


def _keep(state, tree: Tree, paths: list[list[int]], first: int, device) -> Tensor:
    """Of what was read the words that are right; returns how many of a way's words were not."""
    right = torch.tensor([len(path) for path in paths], device=device)
    if tree.is_chain:
        return len(tree) - right
    deep = max(map(len, tree.before(tree.place)))
    places = [[*range(first), *(first + n for n in path)] for path in paths]
    whole = [each + [0] * (first + deep - len(each)) for each in places]
    state.follow(torch.tensor(whole, device=device), first + len(tree))
    return deep - right


@dataclass
class _Text:
    """What is written of one sentence, and the draft of what follows."""

    limit: int
    words: list[int] = field(default_factory=list)
    draft: list[list[int]] = field(default_factory=list)  # by place, the likeliest first
    log_p: float = 0.0
    passes: int = 0
    ended: bool = False

    def proposal(self, eos: int) -> list[list[int]]:
        """The draft up to its end, as far as there is room."""
        choices = self.draft[: self.limit - len(self.words)]
        first = [words[0] for words in choices]
        return choices[: first.index(eos)] if eos in first else choices

    def accept(
        self, tree: Tree, nodes, word, value, drafts, eos: int, acceptance: Acceptance
    ) -> list[int]:
        """Takes over what greedy would have written; returns which nodes were right.

        word, value: the choice after what is written and after each node; drafts: what stands
        behind each of these choices.
        """
        if self.ended:
            return []
        self.passes += 1
        path = tree.walk(nodes, word, eos)
        at = [0, *(node + 1 for node in path)]
        self._count([word[i] for i in at], acceptance)
        self.log_p += sum(value[i] for i in at)
        last = word[at[-1]]
        self.ended = last == eos
        self.words += [word[i] for i in at][: len(at) - self.ended]
        self.draft = drafts[at[-1]]
        return path

    def _count(self, written: list[int], acceptance: Acceptance) -> None:
        """Which choice of the draft was right, at each place up to the first that was not."""
        for place, (word, choices) in enumerate(zip(written, self.draft, strict=False)):
            rank = choices.index(word) if word in choices else None
            acceptance.count(place, rank)
            if rank != 0:
                break

    def output(self) -> Output:
        return Output(
            np.array(self.words, np.int64), self.log_p / (len(self.words) + 1), self.passes
        )
