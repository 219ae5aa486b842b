"""What a run's folder says of itself, read without torch and without touching it."""

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from januslm.config import Refused
from januslm.data import sealed
from januslm.training import history, run_lock
from januslm.training.manifest import Found, names, read

CHECKPOINTS = "checkpoints"
SIGNS = (CHECKPOINTS, "train.jsonl", "history.jsonl", "lock", "done")  # of a run, beside its config
TAIL = 1 << 16  # bytes of a log that are looked at for its last line


@dataclass(frozen=True)
class Story:
    """A run, as its folder tells it.  problems: what could not be read."""

    folder: Path
    config: dict[str, Any]
    done: dict[str, Any] | None
    events: list[dict[str, Any]]  # of history.jsonl, oldest first
    holder: dict[str, Any] | None  # who trains in it now
    train: dict[str, Any]  # the last records of its logs
    valid: dict[str, Any]
    problems: list[str]

    @property
    def state(self) -> str:
        """training, done, stopped (it said so, or nobody knows) or failed."""
        if self.holder:
            return "training"
        if self.done:
            return "done"
        if not self.events:
            return "stopped"
        last = [e for e in self.events if e["event"] in ("start", "stop")][-1:]
        ended = last and last[0]["event"] == "stop" and last[0].get("code") in (0, 85)
        return "stopped" if ended else "failed"

    @property
    def step(self) -> int:
        """The last update that any of its files knows of."""
        tables = (self.train, self.done or {}, self.holder or {})
        return max([t["step"] for t in tables if isinstance(t.get("step"), int)] + [0])

    @property
    def steps(self) -> int | None:
        """How many it was asked for; None where its data decide (epochs)."""
        train = self.config.get("train")
        if not isinstance(train, dict) or train.get("epochs"):
            return None
        return train.get("steps") or None

    @property
    def since(self) -> str:
        """When its state began: local time, to the minute."""
        if self.holder and isinstance(self.holder.get("began"), int | float):
            return shown_time(self.holder["began"])
        if self.events:
            return shown_time(datetime.fromisoformat(self.events[-1]["time"]).timestamp())
        logs = [self.folder / name for name in ("done", "train.jsonl", "config.json")]
        times = [path.stat().st_mtime for path in logs if path.exists()]
        return shown_time(max(times)) if times else "-"

    @property
    def bytes(self) -> int:
        """Of all files in the folder."""
        return folder_bytes(self.folder)


def story_of(folder: Path) -> Story:
    """The story of the run in a folder; Refused if there is none."""
    folder = Path(folder)
    if not is_run(folder):
        raise Refused(f"{folder}: no run: no config.json beside checkpoints/ or a log")
    problems: list[str] = []
    config = _table(folder / "config.json", problems) or {}
    done = _table(folder / "done", problems) if (folder / "done").exists() else None
    try:
        damaged = history.damaged(folder)
        events = history.read(folder)
    except OSError as error:
        damaged, events = [], []
        problems.append(f"{error.filename}: {error.strerror}")
    if damaged:
        problems.append(f"{folder / history.HISTORY}: damaged lines: {len(damaged)}")
    holder = run_lock.holder(folder)
    train, valid = (_last(folder / f"{name}.jsonl") for name in ("train", "valid"))
    return Story(folder, config, done, events, holder, train, valid, problems)


def is_run(folder: Path) -> bool:
    """Whether this is the folder of a run, and not that of an exported model."""
    return (folder / "config.json").is_file() and any((folder / sign).exists() for sign in SIGNS)


def below(root: Path) -> Iterator[Path]:
    """The folders of runs below `root`, itself among them; nothing below a run is one."""
    for place, folders, _ in os.walk(root):
        if is_run(Path(place)):
            folders.clear()
            yield Path(place)
        folders.sort()


def checkpoints(folder: Path) -> Iterator[tuple[str, Found | str]]:
    """Newest first: name, and what its manifest says, or what is wrong.  Nothing is hashed."""
    root = folder / CHECKPOINTS
    for name in names(root):
        try:
            yield name, read(root / name)
        except Refused as error:
            yield name, str(error)


def folder_bytes(folder: Path) -> int:
    """Bytes of all files in it."""
    total = 0
    for place, _, files in os.walk(folder):
        for file in files:
            try:
                total += os.lstat(os.path.join(place, file)).st_size
            except OSError:
                continue  # pruned meanwhile
    return total


def shown_time(seconds: float) -> str:
    """Local time, to the minute."""
    return datetime.fromtimestamp(seconds, UTC).astimezone().strftime("%Y-%m-%d %H:%M")


def _table(path: Path, problems: list[str]) -> dict | None:
    try:
        return sealed.read(path)
    except Refused as error:
        problems.append(str(error))
        return None


def _last(path: Path) -> dict:
    """The last whole record of a log."""
    try:
        with open(path, "rb") as file:
            file.seek(max(path.stat().st_size - TAIL, 0))
            lines = file.read().splitlines()
    except OSError:
        return {}
    for line in reversed(lines):
        try:
            table = json.loads(line)
        except ValueError:
            continue
        if sealed.is_whole(table):
            return table
    return {}
