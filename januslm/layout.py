"""What the decoder reads, and what each place in it may see.

A layout is made for one target sentence by one objective.  S = slots.  Fields are int64 [S], of
numpy while examples are built and of torch once they are packed; a rule works on both.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from functools import cached_property, partial
from typing import Any

import numpy as np

NONE = -1  # no goal; as a rank: given from the start, before all that is generated


@dataclass(frozen=True)
class Slots:
    """Decoder inputs, one per place."""

    token: Any  # what is embedded: a vocabulary id, or an extra vector's (Special.extra)
    position: Any  # where it stands in the target, or in source and target where they share a row
    stream: Any  # which role it plays: an index into Rule.streams
    rank: Any  # when it is generated, NONE for what is given
    goal: Any  # which target position it must predict, NONE for nothing
    weight: Any = None  # float: of its prediction in the terms of the loss; None: 1 everywhere

    def __getitem__(self, index) -> "Slots":
        return Slots(**{name: column[index] for name, column in self.columns.items()})

    @property
    def columns(self) -> dict[str, Any]:
        """The fields by name, without a weight that is 1 everywhere."""
        return {f.name: x for f in fields(self) if (x := getattr(self, f.name)) is not None}

    def __len__(self) -> int:
        return len(self.token)


@dataclass(frozen=True)
class Codes:
    """The two fields a rule may speak of."""

    stream: Any
    rank: Any

    def __getitem__(self, index) -> "Codes":
        return Codes(self.stream[index], self.rank[index])


@dataclass(frozen=True)
class Rule:
    """Which slot may read which, and what follows from it for whole streams.

    `sees(q, k)` is given two objects with the fields `stream` and `rank` that broadcast against
    each other, and answers with a boolean array: may slot q read slot k?  It uses comparisons and
    `& | ~` only, so that one text serves numpy, torch and FlexAttention.
    """

    streams: tuple[str, ...]
    sees: Callable[[Any, Any], Any]
    # Stream -> the distribution that its goals make up: "ar", "nar", "aux".  Terms of the loss and
    # of the log are called by it, whichever stream is read.  A stream not named has no goals.
    predicts: Mapping[str, str]
    source: int = NONE  # the stream of a source that is read in the same row; NONE: an encoder's

    @cached_property
    def behind_source(self) -> "Rule":
        """The same rule behind a source in the same row (UniLM, prefix LM).

        Words of the source see each other, and every slot sees them; they see nothing else.
        """
        own = len(self.streams)
        sees = partial(_seen_behind, own, self.sees)  # a closure cannot go to another process
        return Rule((*self.streams, "source"), sees, self.predicts, own)

    @cached_property
    def distributions(self) -> tuple[str, ...]:
        """What the streams predict, no name twice, in the order of the streams."""
        return tuple(dict.fromkeys(self.predicts[s] for s in self.streams if s in self.predicts))

    @cached_property
    def distribution(self) -> np.ndarray:
        """int64 [streams]: the place of each stream's among `distributions`, NONE without goals."""
        places = {name: place for place, name in enumerate(self.distributions)}
        goals = [self.predicts.get(stream, "") for stream in self.streams]
        return np.array([places.get(goal, NONE) for goal in goals])

    @cached_property
    def reads(self) -> np.ndarray:
        """bool [streams, streams]: can any slot of stream q ever read one of stream k?

        Found by trying all pairs of ranks up to 12: rules compare ranks, they do not count further.
        """
        n, ranks = len(self.streams), np.arange(-1, 12)
        stream, rank = (x.ravel() for x in np.meshgrid(np.arange(n), ranks, indexing="ij"))
        codes = Codes(stream, rank)
        seen = visible(self, codes, codes)
        return np.asarray(seen.reshape(n, len(ranks), n, len(ranks)).any((1, 3)))

    @cached_property
    def readable(self) -> np.ndarray:
        """bool [streams]: is the stream ever a key of another slot than itself?"""
        return np.asarray(self.reads.any(0))

    @cached_property
    def block(self) -> np.ndarray:
        """int64 [streams]: streams with different numbers never read each other, however far."""
        near = self.reads | self.reads.T | np.eye(len(self.streams), dtype=bool)
        for _ in self.streams:
            near = near | (near.astype(int) @ near.astype(int) > 0)
        first = near.argmax(1)  # the lowest stream each one is connected with names its block
        return np.unique(first, return_inverse=True)[1]


def _seen_behind(source: int, sees: Callable, q, k):
    """`sees` for its own streams, which are those before `source`; that one is seen by all."""
    return (k.stream == source) | ((q.stream < source) & (k.stream < source) & sees(q, k))


@dataclass(frozen=True)
class Layout:
    """The slots of one example and the rule that holds among them."""

    slots: Slots
    rule: Rule

    def visible(self) -> np.ndarray:
        """bool [S, S], one row per reader."""
        return visible(self.rule, self.slots, self.slots)

    def behind(self, source: np.ndarray) -> "Layout":
        """The same with the words of int64 [N] before it: given, without a goal, at 0 .. N - 1."""
        rule, count = self.rule.behind_source, len(source)
        given = stack((source, np.arange(count), rule.source, NONE, NONE))
        moved = replace(self.slots, position=self.slots.position + count)
        return Layout(joined(given, moved), rule)

    def draw(self) -> str:
        """One row per slot: '#' where it may look, '-> 3' where it must predict word 3."""
        s, letters = self.slots, [name[0] for name in self.rule.streams]
        there = (name for i, name in enumerate(self.rule.streams) if i in s.stream)
        legend = "   ".join(f"{name[0]} {name}" for name in there)
        lines = ["      " + " ".join(letters[i] for i in s.stream) + "          " + legend]
        for row, stream, position, goal in zip(
            self.visible(), s.stream, s.position, s.goal, strict=True
        ):
            aim = "" if goal == NONE else f"  -> {goal}"
            cells = " ".join("#" if cell else "." for cell in row)
            lines.append(f"{letters[stream]}{position:<4d} {cells}{aim}")
        return "\n".join(lines)


@dataclass(frozen=True)
class Example:
    """One training example: source int64 [N], target int64 [T] (BOS .. EOS each), its slots.

    A model without an encoder reads the source among the slots; of plain text it has none, N = 0.
    """

    source: np.ndarray
    target: np.ndarray
    layout: Layout


def visible(rule: Rule, queries, keys) -> Any:
    """bool [Q, K]: the rule, evaluated for every pair.  The sides are Slots or Codes."""
    q = Codes(queries.stream[:, None], queries.rank[:, None])
    k = Codes(keys.stream[None, :], keys.rank[None, :])
    return rule.sees(q, k)


def stack(*streams: tuple) -> Slots:
    """Slots from columns (token, position, stream, rank, goal), one tuple per stream, in order.

    A whole column may be one number, e.g. NONE; `position` must be an array, it gives the length.
    A sixth column is the weight, 1 where a stream leaves it out.
    """
    size = sum(len(columns[1]) for columns in streams)
    rows, weight = np.empty((5, size), np.int64), None
    start = 0
    for columns in streams:
        end = start + len(columns[1])
        for row, values in zip(rows, columns[:5], strict=True):
            row[start:end] = values
        if len(columns) > 5:
            weight = np.ones(size) if weight is None else weight
            weight[start:end] = columns[5]
        start = end
    token, position, stream, rank, goal = rows
    return Slots(token, position, stream, rank, goal, weight)


def joined(*parts: Slots) -> Slots:
    """The slots of several parts, one after another."""
    columns = {f.name: [getattr(part, f.name) for part in parts] for f in fields(Slots)}
    if all(weight is None for weight in columns["weight"]):
        del columns["weight"]
    else:
        columns["weight"] = [
            np.ones(len(part)) if part.weight is None else part.weight for part in parts
        ]
    return Slots(**{name: np.concatenate(values) for name, values in columns.items()})


@dataclass(frozen=True)
class ArRead:
    """How a model writes word by word: which streams of its rule, and what stands before all."""

    words: str  # the stream of what is written: each word reads itself and the words before it
    asks: str  # the stream that predicts the next word: `words`, or one that reads as it does
    query: int  # the token of an asking slot
    prefix: tuple[int, ...]  # tokens before the first word
    behind: int = 0  # places behind the last word at which an asking slot stands
    own: bool = False  # whether an asking slot reads itself, too
    drafts: tuple[str, ...] = ()  # streams of the slots that, a block at once, ask for what
    # follows a word: the n-th of them n places behind it, with the word's rank; (): not taught


@dataclass(frozen=True)
class AnyOrder:
    """How a model writes a text of known length word by word, in whichever order."""

    start: Slots  # what stands before the first word: given words, and masks of places to come
    holes: np.ndarray  # int64 [n]: the places that are written
    words: str  # the stream of what is written: each word reads itself and those before it
    asks: str  # the stream of the slot that predicts the next word, which no other slot reads
    query: int  # the token of an asking slot


@dataclass(frozen=True)
class BlockRead:
    """How a model writes block by block, each from the words before it."""

    words: str  # the stream of the words of finished blocks
    asks: tuple[str, ...]  # the streams of the places of a block that are not written yet
    query: int  # the token of such a place
    prefix: tuple[int, ...]  # tokens before the first block
    shown: str = ""  # the stream of a word that stands in a block in work; "": not taught
    together: bool = False  # whether the words of a finished block read all of it


def leaks(layout: Layout, depends: np.ndarray) -> np.ndarray:
    """Which slots can learn, through any number of layers, a word they must predict: bool [S].

    depends: bool [S, T], depends[s, g] where the token of slot s depends on target word g.  It is
    found by changing word g and building the layout again: no field of the slots is believed.
    """
    reach = layout.visible() | np.eye(len(layout.slots), dtype=bool)
    for _ in range(len(layout.slots).bit_length()):
        reach = reach | (reach.astype(np.float32) @ reach.astype(np.float32) > 0)
    learns = reach.astype(np.float32) @ depends.astype(np.float32) > 0
    goal = layout.slots.goal
    return (goal != NONE) & learns[np.arange(len(goal)), goal]
