"""Which sample comes when: a pure function of (seed, sample id), in constant memory.

Sample id k belongs to a source by a fixed table (the mixing weights), and to an index inside that
source by a keyed permutation of the whole epoch.  No list of indices exists anywhere, so any number
of ranks, any step and any resume see the same global order.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from math import gcd

import numpy as np

from januslm.config import Refused

ROUNDS = 6
LONGEST_PERIOD = 1 << 16
BLOCK = 8192  # numpy costs 12 us for one index alone and 0.13 us inside a block this long
_GOLDEN, _MIX1, _MIX2 = (
    np.uint64(c) for c in (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB)
)


def _mix(x: np.ndarray) -> np.ndarray:
    """splitmix64's finalizer: every output bit depends on every input bit."""
    x = (x ^ (x >> np.uint64(30))) * _MIX1
    x = (x ^ (x >> np.uint64(27))) * _MIX2
    return x ^ (x >> np.uint64(31))


def permute(index: np.ndarray, size: int, key: np.ndarray) -> np.ndarray:
    """A permutation of 0..size-1 for every key.  index, key: uint64 [B] -> uint64 [B].

    A Feistel network over the next power of two; where it leaves the range it is applied again
    until it comes back (cycle walking; under two rounds on average).
    """
    bits = (size - 1).bit_length()
    low, high = bits // 2, bits - bits // 2
    out = _network(index, key, low, high)
    astray = np.flatnonzero(out >= size)
    while astray.size:
        out[astray] = _network(out[astray], key[astray], low, high)
        astray = astray[out[astray] >= size]
    return out


def permute_near(
    index: np.ndarray, size: int, key: np.ndarray, block: int, group: int
) -> np.ndarray:
    """A permutation of 0..size-1 that goes through it in groups of blocks.  uint64 [B] -> [B].

    The blocks of `block` neighbours stand in an order of their own, over all; inside `group` of
    them that follow each other the order is free.  The last block is filled up with places beyond
    the range; whoever comes there goes on as in `permute`, and is out of its group.
    """
    blocks = -(-size // block)
    out = _grouped(index, blocks, key, block, group)
    astray = np.flatnonzero(out >= size)
    while astray.size:
        out[astray] = _grouped(out[astray], blocks, key[astray], block, group)
        astray = astray[out[astray] >= size]
    return out


def _grouped(x: np.ndarray, blocks: int, key: np.ndarray, block: int, group: int) -> np.ndarray:
    """A permutation of 0..blocks*block-1: uint64 [B] -> uint64 [B]."""
    number, inside = np.divmod(x, np.uint64(group * block))
    own = _mix(key + (number + np.uint64(1)) * _MIX2)
    whole, rest = divmod(blocks, group)
    last = number == whole  # of `rest` blocks
    for part, count in ((~last, group), (last, rest)):
        if part.any():
            inside[part] = permute(inside[part], count * block, own[part])
    slot, place = np.divmod(inside, np.uint64(block))
    return permute(number * np.uint64(group) + slot, blocks, _mix(key)) * np.uint64(block) + place


def _network(x: np.ndarray, key: np.ndarray, low: int, high: int) -> np.ndarray:
    """Six rounds on the `high` upper and `low` lower bits: uint64 [B] -> uint64 [B]."""
    left, right = x >> np.uint64(low), x & np.uint64((1 << low) - 1)
    for _ in range(ROUNDS // 2):
        left ^= _scramble(right, key, high)
        key = key + _GOLDEN
        right ^= _scramble(left, key, low)
        key = key + _GOLDEN
    return (left << np.uint64(low)) | right


def _scramble(x: np.ndarray, key: np.ndarray, bits: int) -> np.ndarray:
    """`bits` pseudo-random bits of every (x, key)."""
    if bits == 0:
        return np.zeros_like(x)  # numpy's shift by 64 is not defined
    x = (x ^ key) * _MIX1
    x ^= x >> np.uint64(32)
    x *= _MIX2
    x >>= np.uint64(64 - bits)
    return x


def schedule(weights: list[int]) -> np.ndarray:
    """The source of every sample of one period: int64 [sum(weights)], smoothest mixing.

    The j-th sample of a source may not come before its share is due and not after it is overdue;
    of those due the most urgent goes first.  So every prefix is within one sample of its share.
    """
    period = sum(weights)
    taken = [0] * len(weights)
    table = np.empty(period, dtype=np.int64)
    for k in range(period):
        table[k] = min(
            (
                -(-(taken[s] + 1) * period // weight),
                s,
            )  # the deadline; among equals the first source
            for s, weight in enumerate(weights)
            if taken[s] < weight and taken[s] * period // weight <= k
        )[1]
        taken[table[k]] += 1
    return table


@dataclass
class Sampler:
    """The order of all samples of a run.  `sizes` are the samples per source, `weights` the mix.

    A source of weight 3 beside one of weight 1 gives three samples of four, whatever their sizes;
    each source starts its next epoch, in another order, when it is used up.
    group: with it the order is that of `permute_near`, with `blocks` samples a block per source.
    """

    sizes: list[int]
    weights: list[int]
    seed: int
    blocks: list[int] = field(default_factory=list)
    group: int = 0
    _table: np.ndarray = field(init=False, repr=False)
    _before: np.ndarray = field(init=False, repr=False)
    _share: np.ndarray = field(init=False, repr=False)
    _keys: np.ndarray = field(init=False, repr=False)
    _blocks: dict[int, tuple] = field(init=False, repr=False, default_factory=dict)

    def __post_init__(self):
        if len(self.sizes) != len(self.weights) or not self.sizes:
            raise Refused(f"{len(self.sizes)} sources need as many weights, got {self.weights}")
        if min(self.weights) < 0 or sum(self.weights) == 0:
            raise Refused(f"weights must be whole numbers from 0 up, not all 0, got {self.weights}")
        for source, (size, weight) in enumerate(zip(self.sizes, self.weights, strict=True)):
            if weight and size < 1:
                raise Refused(f"source {source} has no samples but the weight {weight}")
        common = gcd(*self.weights)
        weights = [weight // common for weight in self.weights]
        if sum(weights) > LONGEST_PERIOD:
            raise Refused(f"weights must sum to at most {LONGEST_PERIOD}, got {sum(weights)}")
        self._table = schedule(weights)
        # how many samples of its own source come before each place of the period
        self._before = np.empty_like(self._table)
        for source in range(len(weights)):
            places = np.flatnonzero(self._table == source)
            self._before[places] = np.arange(len(places))
        self._share = np.array(weights, dtype=np.int64)
        seed = np.full(len(weights), self.seed & (2**64 - 1), dtype=np.uint64)
        self._keys = _mix(_mix(seed) + np.arange(len(weights), dtype=np.uint64) * _GOLDEN)

    def ids(self, step: int, batch: int, rank: int = 0, world: int = 1) -> np.ndarray:
        """The sample ids of one rank's part of global batch `step`: int64 [batch / world]."""
        if batch % world:
            raise Refused(f"a global batch of {batch} cannot be shared by {world} ranks equally")
        part = batch // world
        return step * batch + rank * part + np.arange(part, dtype=np.int64)

    def locate(self, ids: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(source, index in the source, epoch) of global sample ids; int64 [B] each.

        Neighbouring ids are evaluated once per block and kept: a cache, never a state.
        """
        ids = np.asarray(ids, dtype=np.int64)
        if ids.size == 0:
            return self._evaluate(ids)
        low = int(np.minimum.reduce(ids))
        assert low >= 0, ids
        first, last = low // BLOCK, int(np.maximum.reduce(ids)) // BLOCK
        if last - first > 1:
            return self._evaluate(ids)
        source, index, epoch = self._block(first)
        if last > first:
            pairs = zip((source, index, epoch), self._block(last), strict=True)
            source, index, epoch = (np.concatenate(pair) for pair in pairs)
        here = ids - first * BLOCK
        return source[here], index[here], epoch[here]

    def _block(self, number: int) -> tuple:
        if number not in self._blocks:
            while len(self._blocks) > 1:  # the newest stays: a batch may straddle two blocks
                self._blocks.pop(next(iter(self._blocks)))
            here = np.arange(number * BLOCK, (number + 1) * BLOCK, dtype=np.int64)
            self._blocks[number] = self._evaluate(here)
        return self._blocks[number]

    def _evaluate(self, ids: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        period, place = np.divmod(ids, len(self._table))
        source = self._table[place]
        count = period * self._share[source] + self._before[place]
        size = np.array(self.sizes, dtype=np.int64)[source]
        epoch, inside = np.divmod(count, size)
        index = np.empty_like(ids)
        for number, amount in enumerate(np.bincount(source, minlength=len(self.sizes))):
            if amount:
                mine = np.flatnonzero(source == number)
                key = _mix(epoch[mine].astype(np.uint64) + self._keys[number])
                inside_here = inside[mine].astype(np.uint64)
                index[mine] = self._order(number, inside_here, key).astype(np.int64)
        return source, index, epoch

    def _order(self, source: int, inside: np.ndarray, key: np.ndarray) -> np.ndarray:
        size = self.sizes[source]
        if not self.group:
            return permute(inside, size, key)
        return permute_near(inside, size, key, self.blocks[source], self.group)


def sample_rng(seed: int, sample: int) -> np.random.Generator:
    """The random stream of one example, a pure function of (seed, global sample id)."""
    return np.random.Generator(np.random.Philox(key=np.array([seed, sample], np.uint64)))


def portions(
    samples: int, updates: int, batch: int, accumulate: int, rank: int, world: int
) -> Iterator[list[np.ndarray]]:
    """For each of the next updates, the sample ids of this rank's micro batches.

    The samples of an update depend on how many came before, not on the number of ranks.
    """
    parts = world * accumulate
    cuts = [batch * part // parts for part in range(parts + 1)]
    for first in range(samples, samples + updates * batch, batch):
        yield [np.arange(first + cuts[i], first + cuts[i + 1]) for i in range(rank, parts, world)]
