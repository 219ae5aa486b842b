"""What a run leaves behind as text: one sealed JSON line per record, one short line for people."""

import math
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from januslm.data import atomic, sealed


class Log:
    """Writes only where `first` is true (rank 0); everywhere else it is silent.

    The folder is there already (run_dir.opened).  A disk that takes no more is said once a file
    and counted: a run of days does not end for a line.
    """

    def __init__(self, folder: Path, first: bool = True, say: Callable[[str], None] | None = None):
        """say: what prints a line for people, if it is not to be printed as it is."""
        self.folder = Path(folder)
        self.first = first
        self.say = say or _print
        self.lost: Counter[str] = Counter()  # what could not be written, by file

    def record(self, file: str, **values) -> None:
        """Append one JSON object to FILE.jsonl; a number that is not finite becomes null."""
        if self.first:
            line = sealed.line({key: _finite(value) for key, value in values.items()})
            self.borne(f"{file}.jsonl", lambda: _append(self.folder / f"{file}.jsonl", line))

    def borne(self, what: str, write: Callable[[], object]) -> bool:
        """Whether write() got through; a failing disk is said at its first failure and its end."""
        try:
            write()
        except OSError as error:
            self.lost[what] += 1
            if self.lost[what] == 1:
                why = error.strerror or error
                self.line(f"{what} could not be written ({why}); training goes on, losses counted")
            return False
        if lost := self.lost.pop(what, 0):
            self.line(f"{what} can be written again; {lost:,} entries before are lost")
        return True

    def rewind(self, file: str, step: int) -> tuple[int, int]:
        """Drop the records after `step`, which a resumed run writes again, and damaged ones.

        Returns how many there were of each.
        """
        path = self.folder / f"{file}.jsonl"
        if not self.first or not path.exists():
            return 0, 0
        found = [table for _, table in sealed.lines(path)]
        whole = [table for table in found if table is not None and "step" in table]
        kept = [table for table in whole if table["step"] <= step]
        if len(kept) < len(found):
            with atomic.plain(path) as out:
                out.writelines(map(sealed.line, kept))
        return len(whole) - len(kept), len(found) - len(whole)

    def line(self, text: str) -> None:
        """One line for people."""
        if self.first:
            self.say(text)


def _print(text: str) -> None:
    print(text, flush=True)


def _append(path: Path, line: str) -> None:
    with open(path, "ab") as out:
        out.write(line.encode())


def _finite(value):
    return None if isinstance(value, float) and not math.isfinite(value) else value
