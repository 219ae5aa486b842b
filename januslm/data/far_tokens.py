"""The tokens of a shard that lies far away, fetched block by block as they are read."""

from dataclasses import dataclass
from functools import partial

import numpy as np
from xxhash import xxh3_64

from januslm.data import remote
from januslm.data.block_cache import BlockCache


class Address(str):
    """Where a folder is that no path leads to: https://host/corpus/train."""

    __slots__ = ()

    def __truediv__(self, name: str) -> "Address":
        return Address(f"{self}/{name}")


@dataclass
class FarTokens:
    """A .bin far away; digest: of all of it, hashes: uint64 [blocks] of `block` bytes each."""

    address: str
    digest: str
    bytes: int
    dtype: np.dtype
    hashes: np.ndarray
    block: int
    cache: BlockCache

    def __len__(self) -> int:
        return self.bytes // self.dtype.itemsize

    def span(self, first: int, end: int) -> np.ndarray:
        """Tokens first..end-1; Refused where they cannot be had, or are not what they were."""
        size, block = self.dtype.itemsize, self.block
        low, high = first * size, end * size
        parts = [
            self._block(number)[max(low - number * block, 0) : high - number * block]
            for number in range(low // block, -(-high // block))
        ]
        raw = parts[0] if len(parts) == 1 else np.concatenate([np.empty(0, np.uint8), *parts])
        return raw.view(self.dtype)

    def rows(self, rows: np.ndarray, length: int) -> np.ndarray:
        """Windows by their numbers: [B] -> [B, length]."""
        out = np.empty((len(rows), length), self.dtype)
        for place, row in enumerate(rows.tolist()):
            out[place] = self.span(row * length, (row + 1) * length)
        return out

    def check(self) -> None:
        """Fetch all blocks that are not in the cache; Refused where one is damaged."""
        for number in range(len(self.hashes)):
            self._block(number)

    def soon(self, first: int, end: int) -> None:
        """Fetch the blocks of tokens first..end-1 in other threads."""
        size = self.dtype.itemsize
        for number in range(first * size // self.block, -(-end * size // self.block)):
            self.cache.soon(f"{self.digest}/{number}", partial(self._block, number))

    def _block(self, number: int) -> np.ndarray:
        """uint8 [block], the last one shorter."""
        name = f"{self.digest}/{number:06d}"
        start, end = number * self.block, min((number + 1) * self.block, self.bytes)
        return self.cache.get(
            name,
            lambda: remote.part(self.address, start, end),
            lambda raw: (
                len(raw) == end - start and xxh3_64(raw.data).intdigest() == self.hashes[number]
            ),
            f"{self.address}: bytes {start} to {end - 1}",
        )
