"""What a run leaves behind as text: one JSON line per record, one short line for people."""

import json
import math
from pathlib import Path

from januslm.data import atomic


class Log:
    """Writes only where `first` is true (rank 0); everywhere else it is silent.

    The folder is there already (rundir.opened).
    """

    def __init__(self, folder: Path, first: bool = True):
        self.folder = Path(folder)
        self.first = first

    def record(self, file: str, **values) -> None:
        """Append one JSON object to FILE.jsonl; a number that is not finite becomes null."""
        if not self.first:
            return
        line = json.dumps({key: _finite(value) for key, value in values.items()})
        with open(self.folder / f"{file}.jsonl", "a", encoding="utf-8") as out:
            out.write(line + "\n")

    def rewind(self, file: str, step: int) -> int:
        """Drop the records after `step`, which a resumed run writes again; how many they were."""
        path = self.folder / f"{file}.jsonl"
        if not self.first or not path.exists():
            return 0
        lines = path.read_text(encoding="utf-8").splitlines()
        kept = [line for line in lines if _step(line) <= step]
        if len(kept) == len(lines):
            return 0
        with atomic.plain(path) as out:
            out.writelines(line + "\n" for line in kept)
        return len(lines) - len(kept)

    def line(self, text: str) -> None:
        """One line for people."""
        if self.first:
            print(text, flush=True)


def _finite(value):
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _step(line: str) -> float:
    try:
        return json.loads(line)["step"]
    except (ValueError, KeyError):
        return math.inf  # the half line of a killed process
