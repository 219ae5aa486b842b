"""A folder for what was fetched from far away: checked by hash, of bounded size, shared by ranks.

A file has its content's hash in its name, is written aside and renamed, and is hashed again by each
process that takes it from here, so that nothing half written or damaged is used.  What was not used
for longest goes when room is needed; who has mapped it keeps it.
"""

import fcntl
import os
import queue
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
from xxhash import xxh3_64_intdigest

from januslm.config import Refused
from januslm.data import atomic

LOCKS = "locks"  # a folder beside them, whose files stand for the names being fetched
HELD = 96  # files that a process keeps mapped, each of which costs it an open file
FETCHERS = 4  # threads that fetch what will be needed soon
ROOM = 0.9  # of the size, that is left when files had to go


class BlockCache:
    """Names to bytes; `most` bytes lie in the folder at any time, whoever writes to it."""

    def __init__(self, folder: str | Path, most: float, held: int = HELD):
        self.folder, self.most, self.held = Path(folder), int(most), held
        self._mapped: OrderedDict[str, np.ndarray] = OrderedDict()
        self._sound: dict[str, int] = {}  # inodes of files that this process has hashed
        self._soon: queue.SimpleQueue | None = None
        self._asked: set[str] = set()  # names in that queue
        self._owner = 0  # the process that the fetching threads are of

    def get(
        self, name: str, fetch: Callable[[], bytes], whole: Callable[[np.ndarray], bool], where: str
    ) -> np.ndarray:
        """uint8 [N]: the file of that name, fetched unless it is there and whole.

        where: what is fetched, for Refused: its content does not match its hash.
        """
        if (found := self._mapped.get(name)) is not None:
            with suppress(KeyError):  # another thread has let it go
                self._mapped.move_to_end(name)
            return found
        found = self._here(name, whole)
        if found is None:
            with self._locked(f"{xxh3_64_intdigest(name.encode()) % 256:02x}"):
                found = self._here(name, whole)  # another process may have been faster
                if found is None:
                    found = np.frombuffer(fetch(), np.uint8)
                    if not whole(found):
                        raise Refused(
                            f"{where}: what was fetched does not match its hash; it was changed "
                            "or damaged there after it was written"
                        )
                    self._store(name, found)
                    mapped = self._here(name, whole)
                    found = found if mapped is None else mapped  # gone already: as it came
        self._mapped[name] = found
        while len(self._mapped) > self.held:
            with suppress(KeyError):
                self._mapped.popitem(last=False)
        return found

    def _here(self, name: str, whole: Callable[[np.ndarray], bool]) -> np.ndarray | None:
        """The file of that name, or None where it is missing or not what it should be."""
        path = self.folder / name
        try:
            facts = path.stat()
            found = np.asarray(np.memmap(path, np.uint8, "r")) if facts.st_size else _EMPTY
        except (OSError, ValueError):  # not there, or no longer
            return None
        if self._sound.get(name) != facts.st_ino:
            if not whole(found):
                return None
            self._sound[name] = facts.st_ino
        with suppress(OSError):  # of another user's, or deleted just now
            os.utime(path)  # it was used
        return found

    def soon(self, name: str, get: Callable[[], object]) -> None:
        """Call `get` in a thread, before it is needed; its errors are for whoever needs it."""
        if self._soon is None or self._owner != os.getpid():  # threads do not outlive a fork
            self._soon, self._owner, self._asked = queue.SimpleQueue(), os.getpid(), set()
            for number in range(FETCHERS):
                threading.Thread(target=self._fetch, daemon=True, name=f"fetch {number}").start()
        if name not in self._asked and name not in self._mapped:
            self._asked.add(name)
            self._soon.put((name, get))

    def _fetch(self) -> None:
        assert self._soon
        while True:
            name, get = self._soon.get()
            with suppress(Exception):
                get()
            self._asked.discard(name)

    def _store(self, name: str, content: np.ndarray) -> None:
        """Write it, once there is room."""
        path = self.folder / name
        if len(content) > self.most:
            raise Refused(
                f"{self.folder}: holds {self.most / 1e9:g} GB at most, and a file of "
                f"{len(content) / 1e9:.3f} GB is needed; raise data.cache_gigabytes"
            )
        try:
            with self._locked("size"):
                path.parent.mkdir(exist_ok=True)
                self._make_room(len(content))
                with atomic.plain(path, "wb") as file:
                    file.write(content.data)
        except OSError as error:
            raise Refused(f"{path}: cannot be written ({error.strerror})") from None

    def _make_room(self, wanted: int) -> None:
        """Delete what was not used for longest, if the folder would grow too large.

        The sum is kept in a file, and counted anew where something has to go.
        """
        note = self.folder / "size"
        try:
            total = int(note.read_text())
        except (OSError, ValueError):
            total = self.most  # not known
        if total + wanted > self.most:
            files = sorted(self._files(), key=lambda one: one[1].st_mtime_ns)
            total = sum(facts.st_size for _, facts in files)
            full = total + wanted > self.most
            room = max(int(self.most * ROOM), wanted) if full else self.most
            for path, facts in files:
                if total + wanted <= room:
                    break
                path.unlink(missing_ok=True)
                total -= facts.st_size
        note.write_text(str(total + wanted))

    def _files(self) -> Iterator[tuple[Path, os.stat_result]]:
        for path in self.folder.glob("*/*"):
            if path.parent.name != LOCKS:
                with suppress(FileNotFoundError):
                    yield path, path.stat()

    @contextmanager
    def _locked(self, name: str) -> Iterator[None]:
        """Alone among all threads and processes on this machine; a kill lets go of it."""
        try:
            (self.folder / LOCKS).mkdir(parents=True, exist_ok=True)
            file = open(self.folder / LOCKS / name, "a")  # noqa: SIM115
        except OSError as error:
            raise Refused(f"{self.folder}: cannot be written ({error.strerror})") from None
        with file:
            fcntl.flock(file, fcntl.LOCK_EX)
            try:
                yield
            finally:  # said, not left to closing: a process forked meanwhile has it open, too
                fcntl.flock(file, fcntl.LOCK_UN)


_EMPTY = np.empty(0, np.uint8)
