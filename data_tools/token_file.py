"""A file of tokens of another project: ids end to end, and where its documents end."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from januslm.config import Refused

BLOCK = 1 << 22  # tokens of whole documents in memory at a time


@dataclass(frozen=True)
class TokenFile:
    """tokens: whole numbers [T], mapped and not read yet; lengths: int64 [documents]."""

    path: Path
    tokens: np.ndarray
    lengths: np.ndarray

    def __post_init__(self):
        if (self.lengths < 0).any() or self.lengths.sum() != len(self.tokens):
            raise Refused(
                f"{self.path}: has {len(self.tokens):,} tokens, its documents have "
                f"{self.lengths.sum():,}: cut short, or of another index"
            )

    def blocks(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Documents in order, some at a time: their tokens end to end, and their lengths."""
        ends = np.cumsum(self.lengths)
        first = 0
        while first < len(ends):
            start = ends[first] - self.lengths[first]
            last = max(first + 1, int(np.searchsorted(ends, start + BLOCK, "right")))
            yield self.tokens[start : ends[last - 1]], self.lengths[first:last]
            first = last


def mapped(path: Path, dtype: str) -> np.ndarray:
    """The numbers of a file, not read yet; Refused where it is missing or ends within one."""
    try:
        size = path.stat().st_size
        if size % np.dtype(dtype).itemsize:
            raise Refused(f"{path}: {size:,} bytes are no whole numbers of {dtype}: cut short?")
        return np.memmap(path, dtype, "r") if size else np.empty(0, dtype)
    except OSError as error:
        raise Refused(f"{path}: cannot be read ({error.strerror})") from None
