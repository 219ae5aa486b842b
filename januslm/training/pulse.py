"""The step a rank is at, in a file that its launcher made and maps: what outlives any kill."""

import mmap
import os
import struct
import time

VARIABLE = "JANUSLM_PULSE"
FORMAT = "<qd"  # step (-1 before the first update), seconds since 1970
SIZE = 32  # bytes of the file


class Pulse:
    """Writes into $JANUSLM_PULSE, an existing file; silent without one."""

    def __init__(self) -> None:
        self.memory: mmap.mmap | None = None
        try:
            with open(os.environ[VARIABLE], "r+b") as file:
                self.memory = mmap.mmap(file.fileno(), SIZE)
        except (KeyError, OSError, ValueError):  # a file that went away is no reason to end
            return
        self.beat(-1)

    def beat(self, step: int) -> None:
        """Update `step` has ended."""
        if self.memory is not None:
            struct.pack_into(FORMAT, self.memory, 0, step, time.time())
