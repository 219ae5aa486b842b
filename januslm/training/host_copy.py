"""A checkpoint's bytes in host memory, so that training goes on while they are written."""

import mmap
from typing import IO

BLOCK = 16 << 20


class HostCopy:
    """A file to write to that keeps its content, in blocks which are taken from a pool.

    pool: blocks that are free; release() gives them back, for the next copy: memory that has been
    used before is five times as fast.
    """

    def __init__(self, pool: list[memoryview]):
        self.pool, self.blocks, self.size = pool, list[memoryview](), 0

    def write(self, data) -> int:
        left = memoryview(data).cast("B")
        written = len(left)
        while left:
            at = self.size % BLOCK
            if at == 0:
                self.blocks.append(self.pool.pop() if self.pool else _block())
            room = min(len(left), BLOCK - at)
            self.blocks[-1][at : at + room] = left[:room]
            self.size += room
            left = left[room:]
        return written

    def flush(self) -> None:
        """torch asks for it; there is nothing to flush."""

    def copy_to(self, file: IO[bytes]) -> None:
        """Write the content into another file, in a few large pieces."""
        left = self.size
        for block in self.blocks:
            file.write(block[: min(left, BLOCK)])
            left -= BLOCK

    def release(self) -> None:
        """Give the blocks back; the content is gone."""
        self.pool += self.blocks
        self.blocks, self.size = [], 0


def _block() -> memoryview:
    memory = mmap.mmap(-1, BLOCK, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    if hasattr(mmap, "MADV_HUGEPAGE"):  # the first write of 450 MB: 70 ms in place of 250
        memory.madvise(mmap.MADV_HUGEPAGE)
    return memoryview(memory)
