"""Many examples in one batch without padding: rows of slots, document after document.

An example's slots lie block by block (blocks never read each other) and, in a block, those that can
be read come first.  So a group of slots that see each other is one run of places, its keys the head
of it. On the CPU there is one row as long as need be; FlexAttention gets rows of equal length.
A model without an encoder reads the source among the slots: M = 0, there is no source side.
E = examples, M = source tokens, N = slots, K = slots that are keys, G = slots whose final state is
wanted: those with a goal, and those of the source where a length is told from them.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

import numpy as np
import torch
from torch import Tensor

from januslm.config import Refused
from januslm.layout import NONE, Codes, Example, Rule
from januslm.model.attention import PADDING, AttentionPlan, Flex, Side, dense
from januslm.model.losses import LossGroup, counts

Columns = dict[str, np.ndarray]
Part = tuple[Columns, Columns]  # source and slots: of an example, or of a row
MULTIPLE = 128  # FlexAttention's block: rows are filled up to a multiple of it


@dataclass(frozen=True)
class Encoded:
    """The source side of a batch.

    With a [LEN] token one row stands before each source that the encoder alone reads.
    """

    token: Tensor  # int64 [M]
    position: Tensor  # int64 [M]
    example: Tensor  # int64 [M], E for padding and for second encoder passes
    sizes: Tensor  # int64 [E], without [LEN]
    plan: AttentionPlan
    length_rows: Tensor | None = None  # int64 [E or more]: [LEN]'s, second passes' last; None: none
    words: Tensor | None = None  # int64: the rows that the decoder reads; None: all

    def read(self, memory: Tensor) -> tuple[Tensor, Tensor]:
        """What the decoder reads of the encoder's outputs [M, D], and where it stands."""
        if self.words is None:
            return memory, self.position
        return memory.index_select(0, self.words), self.position.index_select(0, self.words)


@dataclass(frozen=True)
class Decoded:
    """The target side: the slots, and how they read; in the last layer only goals are queries."""

    token: Tensor  # int64 [N]
    position: Tensor  # int64 [N]
    keys: Tensor  # int64 [K]: which slots can be read
    goals: Tensor  # int64 [G]: which slots predict, or tell a length
    plan: AttentionPlan
    last_plan: AttentionPlan
    cross: AttentionPlan | None = None  # None: there is no source side
    last_cross: AttentionPlan | None = None
    pooled: "Pooled | None" = None  # None: the length is told from the source side, or not at all


@dataclass(frozen=True)
class Pooled:
    """Which final states are the source's, where it is read among the slots."""

    rows: Tensor  # int64 [P], among the G
    example: Tensor  # int64 [P]
    sizes: Tensor  # int64 [E]


@dataclass(frozen=True)
class Batch:
    """What one micro-step reads."""

    source: Encoded | None  # None: no encoder reads one
    slots: Decoded
    loss_groups: list[LossGroup]
    lengths: Tensor  # int64 [E]: target length with BOS and EOS
    counts: dict[str, int]  # how many items each loss term sums over
    sizes: dict[str, int]  # tokens, slots and (query, key) pairs: what the FLOP count needs
    flops: float = 0.0  # forward and backward, filled in by who knows the model

    @property
    def tokens(self) -> int:
        """Target tokens, BOS and EOS among them."""
        return self.counts["tokens"]

    def to(self, device) -> "Batch":
        """The batch on a device; plans and index tensors with it."""
        if torch.device(device).type == "cpu":
            return self
        return replace(
            self,
            source=self.source and _moved(self.source, device),
            slots=_moved(self.slots, device),
            loss_groups=[s.to(device) for s in self.loss_groups],
            lengths=self.lengths.to(device),
        )


def _moved(part, device):
    def moved(value):
        if isinstance(value, Pooled):
            return _moved(value, device)
        return value if value is None or isinstance(value, Flex) else value.to(device)

    return type(part)(**{f.name: moved(getattr(part, f.name)) for f in fields(part)})


@dataclass(frozen=True)
class Packer:
    """How examples become batches: `Packer(weights)(examples)`.

    encoder_passes: 2 gives each block of streams an encoder pass of its own, as the reference has
    it (its dropout then differs between AR and NAR, which works like R-Drop).
    row: slots per row for FlexAttention; None packs without any padding, for dense plans.
    length_token: whether a [LEN] token stands before each source (ModelConfig.length).
    """

    weights: dict[str, float]
    encoder_passes: int = 1
    row: int | None = None
    length_token: bool = False

    def __call__(self, examples: Sequence[Example]) -> Batch:
        rule = examples[0].layout.rule
        rows = self._rows(_parts(examples, rule, self.encoder_passes, self.length_token))
        fill = 1 if self.row is None else MULTIPLE
        source_by_row = _even([r[0] for r in rows], fill, split=True)
        source = memory = _joined(source_by_row)
        if self.length_token:
            memory = _chosen(source_by_row, lambda s: s["length"] == 0, fill)
        slots_by_row = _even([r[1] for r in rows], fill, split=True)
        keys = _chosen(slots_by_row, lambda s: rule.readable[s["stream"]], fill)
        tells = rule.source if "ce/length" in self.weights else NONE
        goals = _chosen(slots_by_row, lambda s: (s["goal"] != NONE) | (s["stream"] == tells), fill)
        slots = _joined(slots_by_row)
        loss_groups = _loss_groups(goals, examples, rule)
        lengths = np.array([len(e.target) for e in examples])
        sizes = _long(np.array([len(e.source) for e in examples]))
        tokens = {"tokens": int(lengths.sum())}
        return Batch(
            source=self._encoded(len(rows), source, memory, sizes),
            slots=Decoded(
                _long(slots["token"]),
                _long(slots["position"]),
                _long(keys["at"]),
                _long(goals["at"]),
                self._plan(len(rows), slots, keys, "group", rule),
                self._plan(len(rows), goals, keys, "group", rule),
                self._cross(len(rows), slots, memory),
                self._cross(len(rows), goals, memory),
                None if tells == NONE else _pooled(goals, tells, sizes),
            ),
            loss_groups=loss_groups,
            lengths=_long(lengths),
            counts=counts(loss_groups, self.weights, len(examples)) | tokens,
            sizes=_sizes(source, memory, slots, keys, goals),
        )

    def _rows(self, parts: list[Part]) -> list[Part]:
        """Next fit: parts fill a row in order while slots and source both fit."""
        rows: list[list[Part]] = [[]]
        used = np.zeros(2, int)
        for part in parts:
            size = np.array([len(side["token"]) for side in part])
            if self.row is not None and size.max() > self.row:
                raise Refused(
                    f"packing.row is {self.row}, but an example has {size[0]} source tokens and "
                    f"{size[1]} slots: raise packing.row or shorten the examples"
                )
            if self.row is not None and (used + size).max() > self.row:
                rows, used = [*rows, []], np.zeros(2, int)
            rows[-1].append(part)
            used = used + size
        return [(_joined([s for s, _ in row]), _joined([t for _, t in row])) for row in rows]

    def _encoded(
        self, rows: int, source: Columns, memory: Columns, sizes: Tensor
    ) -> Encoded | None:
        if not len(source["token"]):
            return None
        token, position, example = (_long(source[n]) for n in ("token", "position", "example"))
        plan = self._plan(rows, source, source, "memory", None)
        if not self.length_token:
            return Encoded(token, position, example, sizes, plan)
        of_length, words = _length_rows(source), _long(memory["at"])
        return Encoded(token, position, example, sizes, plan, of_length, words)

    def _cross(self, rows: int, queries: Columns, memory: Columns) -> AttentionPlan | None:
        if not len(memory["token"]):
            return None
        return self._plan(rows, queries, memory, "memory", None)

    def _plan(
        self, rows: int, queries: Columns, keys: Columns, group: str, rule: Rule | None
    ) -> AttentionPlan:
        sides = _side(queries, group, rule), _side(keys, group, rule)
        return dense(*sides, rule) if self.row is None else Flex(*sides, rule, rows)


def _side(columns: Columns, group: str, rule: Rule | None) -> Side:
    return Side(columns[group], Codes(columns["stream"], columns["rank"]) if rule else None)


def _long(array: np.ndarray) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(array, np.int64))


def _parts(examples: Sequence[Example], rule: Rule, passes: int, length_token: bool) -> list[Part]:
    """Source and slots of each example, once per encoder pass; slots in block order, keys first.

    length_token: before a source stands a row for [LEN], whose token and position nobody reads.
    """
    blocks = int(rule.block.max()) + 1
    rank_of = 2 * rule.block + ~rule.readable  # the order within an example, by stream
    parts = []
    weighted = any(e.layout.slots.weight is not None for e in examples)  # else 1 everywhere
    for number, example in enumerate(examples):
        slots = example.layout.slots[
            np.argsort(rank_of[example.layout.slots.stream], kind="stable")
        ]
        block = rule.block[slots.stream]
        for turn in range(passes):
            mine = slots if passes == 1 else slots[block == turn]
            memory = number * passes + turn
            if not len(mine):
                continue
            encoded = example.source if rule.source == NONE else example.source[:0]
            before = int(length_token)
            tokens = before + len(encoded)
            source = {
                "token": np.pad(encoded, (before, 0)),
                "position": np.maximum(np.arange(tokens) - before, 0),
                "memory": np.full(tokens, memory),
                "example": np.full(tokens, len(examples) if turn else number),
            }
            if length_token:
                source["length"] = np.arange(tokens) == 0
            ones = {"weight": np.ones(len(mine))} if weighted else {}
            where = {
                "memory": np.full(len(mine), memory),
                "example": np.full(len(mine), number),
                "group": number * blocks + rule.block[mine.stream],
            }
            parts.append((source, ones | mine.columns | where))
    return parts


_FILL = {"group": PADDING, "memory": PADDING, "goal": NONE, "rank": NONE, "example": -1}


def _joined(parts: Sequence[Columns]) -> Columns:
    return {name: np.concatenate([p[name] for p in parts]) for name in parts[0]}


def _even(rows: list[Columns], multiple: int, split: bool = False):
    """Rows filled up to one length, a multiple of `multiple`; joined unless `split`."""
    longest = max(len(r["memory"]) for r in rows)
    longest = -(-longest // multiple) * multiple
    rows = [
        {
            name: np.pad(x, (0, longest - len(x)), constant_values=_FILL.get(name, 0))
            for name, x in r.items()
        }
        for r in rows
    ]
    return rows if split else _joined(rows)


def _chosen(rows: list[Columns], which, multiple: int) -> Columns:
    """The slots of each row that `which` says, filled up evenly; `at` is their place among all."""
    picked = []
    for number, row in enumerate(rows):
        at = np.flatnonzero(which(row) & (row["memory"] != PADDING))
        start = number * len(row["memory"])
        picked.append({name: x[at] for name, x in row.items()} | {"at": start + at})
    return _even(picked, multiple)


def _loss_groups(goals: Columns, examples: Sequence[Example], rule: Rule) -> list[LossGroup]:
    """Goals by the set of distributions over them: rows of a group go through the loss together."""
    first = np.concatenate([[0], np.cumsum([len(e.target) for e in examples])])
    target = np.concatenate([e.target for e in examples])
    real = np.flatnonzero(goals["goal"] != NONE)
    word = first[goals["example"][real]] + goals["goal"][real]
    of = rule.distribution[goals["stream"][real]]
    order = np.lexsort((of, word))
    words, start, size = np.unique(word[order], return_index=True, return_counts=True)
    bits = np.add.reduceat(1 << of[order], start) if len(start) else start
    loss_groups = []
    for sign in np.unique(bits):
        mine = bits == sign
        chosen = np.flatnonzero(int(sign) >> np.arange(len(rule.distributions)) & 1)
        assert (size[mine] == len(chosen)).all(), "two slots of one distribution share a goal"
        rows = real[order[start[mine][None, :] + np.arange(len(chosen))[:, None]]]
        names = tuple(rule.distributions[i] for i in chosen)
        weight = torch.from_numpy(goals["weight"][rows]) if "weight" in goals else None
        loss_groups.append(LossGroup(names, _long(rows), _long(target[words[mine]]), weight))
    return loss_groups


def _length_rows(source: Columns) -> Tensor:
    """The rows of [LEN] in the order of examples, those of second encoder passes behind them."""
    at = np.flatnonzero(source["length"])
    return _long(at[np.argsort(source["example"][at], kind="stable")])


def _pooled(goals: Columns, source: int, sizes: Tensor) -> Pooled:
    rows = np.flatnonzero((goals["stream"] == source) & (goals["memory"] != PADDING))
    return Pooled(_long(rows), _long(goals["example"][rows]), sizes)


def _sizes(
    source: Columns, memory: Columns, slots: Columns, keys: Columns, goals: Columns
) -> dict[str, int]:
    def pairs(one: np.ndarray, other: np.ndarray) -> int:
        most = int(max(one.max(initial=0), other.max(initial=0))) + 1
        return int(
            np.bincount(one[one >= 0], minlength=most)
            @ np.bincount(other[other >= 0], minlength=most)
        )

    def real(columns: Columns) -> int:
        return int((columns["memory"] != PADDING).sum())

    return {
        "source": real(source),
        "memory": real(memory),
        "slots": real(slots),
        "keys": real(keys),
        "goals": int((goals["goal"] != NONE).sum()),
        "last": real(goals),
        "encoder_pairs": pairs(source["memory"], source["memory"]),
        "self_pairs": pairs(slots["group"], keys["group"]),
        "cross_pairs": pairs(slots["memory"], memory["memory"]),
        "last_self_pairs": pairs(goals["group"], keys["group"]),
        "last_cross_pairs": pairs(goals["memory"], memory["memory"]),
    }
