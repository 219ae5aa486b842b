"""A run's folder: whose it is, whether it is done, and what it exports."""

import json
import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

from januslm.config import Refused, json_table
from januslm.data import atomic

DONE = "done"
IDENTITY = ("model", "objective", "data")  # what may not change while a run goes on
EXPORTS = "exports"  # one folder per save, step-00001000/ and so on, where train.exports keeps them


def opened(folder: Path, config: dict, identity: tuple[str, ...], steps: int) -> dict | None:
    """Make the run's folder ours, or refuse one of another run; what `done` says, if it is done.

    `identity`: the tables of the configuration that may not change within a run.
    """
    check_folder(folder, config, identity)
    folder.mkdir(parents=True, exist_ok=True)
    done_mark = folder / DONE
    with atomic.plain(folder / "config.json") as file:
        file.write(json.dumps(config, indent=1))
    if not done_mark.exists():
        return None
    done = json_table(done_mark)
    if done.get("step", 0) >= steps:
        return done
    done_mark.unlink()  # train.steps was raised: the run goes on
    return None


def check_folder(folder: Path, config: Mapping, identity: tuple[str, ...]) -> None:
    """Refuse a folder that cannot be made or written, and that of another run; writes nothing."""
    there = next(place for place in (folder, *folder.absolute().parents) if place.exists())
    if not there.is_dir():
        raise Refused(f"{folder}: cannot be a run's folder, {there} is a file")
    if not os.access(there, os.W_OK | os.X_OK):
        raise Refused(f"{folder}: cannot be written, {there} may not be written by this user")
    if not (folder / "config.json").exists():
        return
    old, new = json_table(folder / "config.json"), json.loads(json.dumps(config))
    for key in identity:
        # A key that is not there is younger than the run.
        if key in old and (found := difference(old[key], new.get(key), key)):
            raise Refused(f"{folder} holds another run: {found}; choose another folder")


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
    """Say that the run is done; the launcher of DeepSpeed may say 0 after a kill."""
    with atomic.plain(folder / DONE) as file:
        file.write(json.dumps(facts))
