"""Files of several arrays, each of which can be read, and is checked, by itself.

uint64 [sections + 1] with the place where each begins and the last one ends; then each section:
the xxh3_64 of its bytes, seeded with its number, and the bytes.
"""

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from xxhash import xxh3_64_intdigest

from januslm.data import atomic

PLACE = np.dtype("<u8")


class DamagedFile(Exception):
    """A file that is missing or not as it was written; `path` is the only argument."""

    @property
    def path(self) -> Path:
        """The file."""
        return self.args[0]


def write(path: Path, sections: Sequence[np.ndarray]) -> int:
    """Write arrays as the sections of a file; its size.  It is on the disk when this returns."""
    head = PLACE.itemsize * (len(sections) + 1)
    ends = np.cumsum([head, *(PLACE.itemsize + one.nbytes for one in sections)])
    with atomic.durable(path, "wb") as file:
        file.write(ends.astype(PLACE).tobytes())
        for number, one in enumerate(sections):
            raw = one.tobytes()
            file.write(xxh3_64_intdigest(raw, seed=number).to_bytes(PLACE.itemsize, "little"))
            file.write(raw)
    return int(ends[-1])


def read(path: Path, number: int, dtype: np.dtype, width: int = 1) -> np.ndarray:
    """A section as an array of `dtype`, [records], or [records, width] where width is not 1.

    Raises DamagedFile where the file, or this section, is not as it was written.
    """
    size = PLACE.itemsize
    try:
        with path.open("rb") as file:
            there = os.fstat(file.fileno()).st_size
            start, end = np.frombuffer(os.pread(file.fileno(), 2 * size, number * size), PLACE)
            if not start + size <= end <= there:
                raise DamagedFile(path)
            file.seek(int(start))
            raw = file.read(int(end - start))
    except (OSError, ValueError):  # missing, a bad sector, cut short
        raise DamagedFile(path) from None
    digest = int.from_bytes(raw[:size], "little")
    if len(raw) != end - start or xxh3_64_intdigest(raw[size:], seed=number) != digest:
        raise DamagedFile(path)
    found = np.frombuffer(raw, dtype, offset=size)
    return found.reshape(-1, width) if width > 1 else found
