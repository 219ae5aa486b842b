"""RUN/history.jsonl: every start, stop and skipped update of a run, each line with its hash."""

import os
from datetime import UTC, datetime
from pathlib import Path

from januslm.data import sealed

HISTORY = "history.jsonl"


def add(folder: str | Path, event: str, **facts) -> None:
    """Append one event, on the disk when this returns.  OSError where that cannot be.

    start: step, world, hosts, versions, code, changes; stop: step, code, reason; saved: step, the
    first checkpoint of a start; skipped: step, samples, ranks, terms; other facts where needed.
    """
    time = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    line = sealed.line({"time": time, "event": event, **facts}).encode()
    handle = os.open(Path(folder) / HISTORY, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
    try:
        end = os.fstat(handle).st_size
        if end and os.pread(handle, 1, end - 1) != b"\n":  # the half line of a killed process
            line = b"\n" + line
        os.write(handle, line)
        os.fsync(handle)
    finally:
        os.close(handle)


def read(folder: str | Path) -> list[dict]:
    """The events, oldest first, without damaged lines; [] where there is no history."""
    return [table for _, table in _lines(folder) if table is not None and "event" in table]


def damaged(folder: str | Path) -> list[int]:
    """The numbers of the lines that are not what was written."""
    return [number for number, table in _lines(folder) if table is None]


def _lines(folder: str | Path) -> list[tuple[int, dict | None]]:
    path = Path(folder) / HISTORY
    return list(sealed.lines(path)) if path.exists() else []
