"""What a build has finished, one JSON line per step, so that a killed build goes on from there."""

import fcntl
import json
import os
from pathlib import Path

from xxhash import xxh3_128_hexdigest

from januslm.config import Refused
from januslm.data import atomic


class Journal:
    """The journal of one output folder, which it locks until `close`.

    `parts` and `sealed` hold the finished steps by bundle number.
    """

    def __init__(self, out: Path, identity: dict, fresh: bool = False):
        out.mkdir(parents=True, exist_ok=True)
        self.path = out / "journal.jsonl"
        self.identity = xxh3_128_hexdigest(json.dumps(identity, sort_keys=True).encode())
        self._lock = open(out / ".lock", "w")  # noqa: SIM115 - held as long as the journal
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise Refused(f"{out}: another build is writing to it") from None
        if fresh:
            _clear(out)
        self.parts: dict[int, dict] = {}
        self.sealed: dict[int, dict] = {}
        lines = self._lines()
        if lines:
            self._compare(lines[0], identity)
        for line in lines[1:]:
            self._note(line)
        # written anew: what a kill left of a half line must not stay in front of the next one
        with atomic.durable(self.path) as file:
            file.writelines(json.dumps(line) + "\n" for line in lines or [identity])
        self._file = open(self.path, "a", encoding="utf-8")  # noqa: SIM115

    def append(self, line: dict) -> None:
        """Note a finished step; it is on the disk when this returns."""
        self._file.write(json.dumps(line) + "\n")
        self._file.flush()
        os.fsync(self._file.fileno())
        self._note(line)

    def close(self) -> None:
        """Let other builds write to the folder."""
        self._file.close()
        self._lock.close()

    def _note(self, line: dict) -> None:
        if "part" in line:
            self.parts[line["part"]] = line
        else:
            self.sealed[line["sealed"]] = line

    def _lines(self) -> list[dict]:
        if not self.path.exists():
            return []
        lines = []
        for raw in self.path.read_bytes().split(b"\n"):
            try:
                lines.append(json.loads(raw))
            except ValueError:
                break  # the half line of a killed build, or the end
        return lines

    def _compare(self, old: dict, new: dict) -> None:
        new, old = _flat(json.loads(json.dumps(new))), _flat(old)
        changed = [key for key in new.keys() | old.keys() if old.get(key) != new.get(key)]
        if changed:
            raise Refused(
                f"{self.path.parent}: holds shards of another recipe, which differs in "
                f"{_difference(changed, old, new)}; --fresh deletes them and builds again"
            )


def _flat(tables: dict, before: str = "") -> dict:
    """Nested tables as one, {"a.b": value}, so that a difference names one key."""
    found: dict = {}
    for key, value in tables.items():
        nested = isinstance(value, dict) and value
        found |= _flat(value, f"{before}{key}.") if nested else {before + key: value}
    return found


def _difference(changed: list[str], old: dict, new: dict) -> str:
    differences = []
    for key in sorted(changed):
        then, now = str(old.get(key)), str(new.get(key))
        short = len(then) + len(now) < 60
        differences.append(f"{key} ({then} then, {now} now)" if short else key)
    return ", ".join(differences)


def _clear(out: Path) -> None:
    """Delete what a build writes, and nothing else; the manifests and the journal first."""
    for pattern in (
        "*/manifest.json*",
        "journal.*",
        "parts/part-*",
        "train/shard-*",
        "valid/shard-*",
    ):
        for path in sorted(out.glob(pattern)):
            path.unlink()
