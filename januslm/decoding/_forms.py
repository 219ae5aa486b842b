"""In which form a draft is worth verifying: by the cost of rows and by what was accepted so far.

A form is chosen for the most words a second: how many words a round is expected to give, over what
its passes cost on this machine, for this model and so many sentences.  Greedy's own pass is one of
the forms, so that a draft that does not pay is not made.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal
from weakref import WeakKeyDictionary

from januslm.decoding._trees import Swap, Tree, tree

Kind = Literal["one", "two", "greedy"]  # passes a round; greedy: no draft
CHOICES = 4  # of a place of the draft that are counted, the likeliest first
MOST_LINES = 6
PRIOR = (0.8, 0.08, 0.03, 0.015)  # of a place: how often each choice is right, before any was seen
WEIGHT = 8.0  # of the prior, in places seen
GAIN = 1.15  # a draft must promise so much more than greedy: promises are not exact
MEMORY = 0.9  # of what passes took against what was measured
MOST_SLOWER = 4.0  # than measured, of one pass: the machine did something else


@dataclass(frozen=True)
class Form:
    """How a round goes: its passes, the words that it verifies, the lines that differ in a word."""

    kind: Kind
    words: int = 0
    swaps: tuple[Swap, ...] = ()

    @cached_property
    def tree(self) -> Tree:
        return tree(self.words, self.swaps)

    @property
    def masks(self) -> int:
        """Behind a word; the first stands where the word does that the pass itself chooses."""
        return 0 if self.kind == "greedy" else self.words + 1

    @property
    def rows(self) -> tuple[int, ...]:
        """Slots of a sentence in each pass of a round."""
        nodes = 1 + self.words + sum(self.words - at for at, _ in self.swaps)
        if self.kind == "two":
            return 1 + self.masks, nodes
        return (nodes * (1 + self.masks),)

    @property
    def sure(self) -> int:
        """Words that a round gives whatever the draft is worth: one of each pass."""
        return len(self.rows)


def widest(kind: Kind, masks: int, count: int) -> Form:
    """The form with so many masks behind a word and so many lines, whatever it costs."""
    if masks < 2:
        return Form("greedy")
    swaps, _ = lines(Acceptance().shares(masks - 1), count - 1)[-1]
    return Form(kind, masks - 1, swaps)


@dataclass
class Acceptance:
    """How often each choice at each place of the draft was what the model itself wrote.

    Counted where all places before were right, so that the shares are conditional.
    """

    right: list[list[int]] = field(default_factory=list)  # by place and choice
    seen: list[int] = field(default_factory=list)  # by place

    def count(self, place: int, rank: int | None) -> None:
        """The model's word at a place was the draft's choice `rank`; None: none of them."""
        while place >= len(self.seen):
            self.seen.append(0)
            self.right.append([0] * CHOICES)
        self.seen[place] += 1
        if rank is not None:
            self.right[place][rank] += 1

    def shares(self, places: int) -> list[list[float]]:
        """By place and choice; a place that was hardly seen is like the prior."""
        more = places - len(self.seen)
        seen = [*self.seen[:places], *[0] * more]
        right = [*self.right[:places], *[[0] * CHOICES] * more]
        return [
            [(r + WEIGHT * prior) / (n + WEIGHT) for r, prior in zip(row, PRIOR, strict=True)]
            for row, n in zip(right, seen, strict=True)
        ]


def lines(shares: list[list[float]], most: int) -> list[tuple[tuple[Swap, ...], float]]:
    """No line more, then the one that saves most, then the two that do, and so on up to `most`.

    Each with the words of the draft that are right then, in the mean: at its first wrong place the
    line with the right choice there goes on with the rest of the draft.
    """
    rest = [0.0]  # right words from a place on, where all before it are right
    for choices in reversed(shares):
        rest.append(choices[0] * (1 + rest[-1]))
    rest.reverse()
    worth, reach = [], 1.0
    for at, choices in enumerate(shares):
        more = reach * (1 + rest[at + 1])
        worth += [(share * more, (at, rank)) for rank, share in enumerate(choices) if rank]
        reach *= choices[0]
    found: list[tuple[tuple[Swap, ...], float]] = [((), rest[0])]
    for saved, swap in sorted(worth, reverse=True)[:most]:
        swaps, right = found[-1]
        found.append(((*swaps, swap), right + saved))
    return found


class Chooser:
    """The form for what is to be written next; remembers what was accepted and what rounds took."""

    def __init__(self) -> None:
        self.acceptance = Acceptance()
        self.slower: dict[Kind, float] = {}  # than the passes alone

    def best(self, cost: Callable[[float], float], most: int, line_limit: int) -> Form:
        """cost: seconds of a pass by its rows.  most: masks behind a word, and lines."""
        shares = self.acceptance.shares(most - 1)
        kinds: tuple[Kind, ...] = ("one", "two")
        best = plain = Form("greedy")
        highest = GAIN * self.rate(plain, 0.0, cost)
        for words in range(1, most):
            for swaps, right in lines(shares[:words], line_limit - 1):
                for kind in kinds:
                    form = Form(kind, words, swaps)
                    if (rate := self.rate(form, right, cost)) > highest:
                        best, highest = form, rate
        return best

    def rate(self, form: Form, right: float, cost: Callable[[float], float]) -> float:
        """Words a second, where so many of the draft are right."""
        return (form.sure + right) / (self._slower(form.kind) * sum(map(cost, form.rows)))

    def took(self, kind: Kind, seconds: float, promised: float) -> None:
        """A pass took so long: caches that grow, and all that is done beside the passes."""
        found = min(max(seconds / promised, 1 / MOST_SLOWER), MOST_SLOWER)
        self.slower[kind] = MEMORY * self._slower(kind) + (1 - MEMORY) * found

    def _slower(self, kind: Kind) -> float:
        """One that was not tried yet has at least to do what greedy does."""
        return self.slower.get(kind, self.slower.get("greedy", 1.0))


_known: WeakKeyDictionary = WeakKeyDictionary()  # decoder -> {what for: chooser}


def chooser(decoder, purpose: str) -> Chooser:
    """The one of this decoder: what was accepted in one batch is known in the next."""
    return _known.setdefault(decoder, {}).setdefault(purpose, Chooser())
