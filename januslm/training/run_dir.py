"""A run's folder: whose it is, whether it is done, and what it exports."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

from januslm.config import Refused, json_table
from januslm.data import atomic

DONE = "done"
EXPORTS = "exports"  # one folder per save, step-00001000/ and so on, where train.exports keeps them


def opened(folder: Path, config: dict, identity: tuple[str, ...], steps: int) -> dict | None:
    """Make the run's folder ours, or refuse one of another run; what `done` says, if it is done.

    `identity`: the tables of the configuration that may not change within a run.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path, done_mark = folder / "config.json", folder / DONE
    new = json.loads(json.dumps(config))
    if path.exists():
        old = json_table(path)
        for key in identity:
            # A key that is not there is younger than the run.
            if key in old and (found := difference(old[key], new.get(key), key)):
                raise Refused(f"{folder} holds another run: {found}; choose another folder")
    with atomic.plain(path) as file:
        file.write(json.dumps(new, indent=1))
    if not done_mark.exists():
        return None
    done = json_table(done_mark)
    if done.get("step", 0) >= steps:
        return done
    done_mark.unlink()  # train.steps was raised: the run goes on
    return None


def difference(old, new, key: str) -> str:
    """The first key in which two plain tables differ, with both values; empty if they agree."""
    if isinstance(old, dict) and isinstance(new, dict):
        for name in sorted(old.keys() | new.keys()):
            if found := difference(old.get(name), new.get(name), f"{key}.{name}"):
                return found
        return ""
    return "" if old == new else f"there {key} = {old!r}, here {new!r}"


def swapped(folder: Path, module, export: Callable) -> None:
    """Export aside, then put it in the place of the former export."""
    aside, old = folder.with_name(".export-new"), folder.with_name(".export-old")
    for left in (aside, old):
        shutil.rmtree(left, ignore_errors=True)
    aside.mkdir()
    export(module, aside)
    if folder.exists():
        os.rename(folder, old)
    os.rename(aside, folder)
    shutil.rmtree(old, ignore_errors=True)


def exported(folder: Path, step: int, keep: int, module, export: Callable) -> None:
    """Write export/; with `keep`, put a copy of it into exports/ and prune that to so many."""
    swapped(folder / "export", module, export)
    if not keep:
        return
    root = folder / EXPORTS
    mine, aside = root / f"step-{step:08d}", root / ".new"
    for left in (aside, mine):
        shutil.rmtree(left, ignore_errors=True)
    shutil.copytree(folder / "export", aside)
    os.rename(aside, mine)
    there = sorted(root.glob("step-*"))
    # A higher number than ours is of a run that went on from an older checkpoint.
    valid = [one for one in there if one.name <= mine.name]
    for one in there:
        if one not in valid[-keep:]:
            shutil.rmtree(one)


def mark(folder: Path, facts: dict) -> None:
    """Say that the run is done; launch.sh believes this file, not an exit code."""
    with atomic.plain(folder / DONE) as file:
        file.write(json.dumps(facts))
