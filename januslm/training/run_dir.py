"""A run's folder: whose it is, whether it is done, how it goes on, and what it exports."""

import errno
import os
import re
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from safetensors import SafetensorError

from januslm.cli.paths import SPREADS, shipped
from januslm.config import Refused, json_table
from januslm.data import atomic, sealed
from januslm.training import history, identity
from januslm.training.ds_config import precision, read, stage

DONE, CONFIG, EXPORTED = "done", "config.json", "exported"
BEST = "best"  # best/export: the weights of the best validation (train.keep_best)
EXPORTS = "exports"  # one folder per save, step-00001000/ and so on, where train.exports keeps them
# What --from-scratch moves aside; pairs that were prepared and the logs of ranks stay.
OF_A_RUN = (
    "checkpoints",
    "export",
    EXPORTS,
    BEST,
    "board",
    CONFIG,
    DONE,
    EXPORTED,
    "train.jsonl",
    "valid.jsonl",
    history.HISTORY,
)


@dataclass(frozen=True)
class Start:
    """How the user wants a run to start: what may change in it, or whether it begins anew."""

    allow: Sequence[str] = ()  # keys of the run file
    from_scratch: bool = False


@dataclass
class Opened:
    """A run's folder that is ours. done: what its mark says, where it is done."""

    done: dict | None = None
    changes: dict[str, list] = field(default_factory=dict)  # key -> [before, now]
    notes: list[str] = field(default_factory=list)  # lines for people


def opened(
    folder: Path, config: Mapping, steps: int, start: Start = Start(), early: Mapping | None = None
) -> Opened:
    """Make the run's folder ours, or refuse one of another run.

    config: what may not silently change while a run goes on (see identity).  early: by what it may
    end before so many steps (goals.Goals.early).
    """
    found = Opened()
    if start.from_scratch and (aside := _moved_aside(folder)):
        found.notes.append(f"starting from scratch; what was there is in {aside}")
    found.changes = check_folder(folder, config, start)
    folder.mkdir(parents=True, exist_ok=True)
    for key, (before, now) in found.changes.items():
        found.notes.append(f"changed: {key}: {before!r} -> {now!r}")
    if bad := history.damaged(folder):
        found.notes.append(f"{history.HISTORY}: {_lines(bad)} damaged and passed over")
    found.done = _done(folder, steps, early or {}, found.notes)
    with atomic.durable(folder / CONFIG) as file:
        file.write(sealed.document(config))
    return found


def _done(folder: Path, steps: int, early: Mapping, notes: list[str]) -> dict | None:
    mark_path = folder / DONE
    if not mark_path.exists():
        return None
    try:
        done = sealed.read(mark_path)
    except Refused as error:  # a mark can be made again, from the last checkpoint
        notes.append(f"{error}; the run looks at its checkpoints instead")
        mark_path.unlink()
        return None
    if done.get("step", 0) >= steps or (early and done.get("early") == early):
        return done
    mark_path.unlink()  # train.steps or train.patience was raised: the run goes on
    return None


def check_folder(folder: Path, config: Mapping, start: Start = Start()) -> dict[str, list]:
    """Refuse a folder that cannot be made or written, and that of another run; writes nothing.

    Returns what has changed since the run's last start.
    """
    there = next(place for place in (folder, *folder.absolute().parents) if place.exists())
    if not there.is_dir():
        raise Refused(f"{folder}: cannot be a run's folder, {there} is a file")
    if not os.access(there, os.W_OK | os.X_OK):
        raise Refused(f"{folder}: cannot be written, {there} may not be written by this user")
    identity.check_allowed(start.allow, config)
    if start.from_scratch or CONFIG in start.allow:
        return {}
    out = f"put it back, --allow {CONFIG} to take what this start says for it, or --from-scratch"
    if not (folder / CONFIG).exists():
        if evidence := learnt(folder):
            raise Refused(f"{folder / CONFIG} is gone, but the run has {evidence}: {out}")
        return {}
    try:
        old = sealed.read(folder / CONFIG)
    except Refused as error:
        raise Refused(f"{error}; {out}") from None
    return identity.check(folder, old, config, start.allow)


def learnt(folder: Path) -> str:
    """What shows that the run has had a checkpoint, in words; "" where it may begin anew."""
    saved = [
        event.get("step", 0)
        for event in history.read(folder)
        if event["event"] == "saved" or (event["event"] in ("start", "stop") and event.get("saved"))
    ]
    if saved:
        return f"a checkpoint of step {max(saved):,} in its {history.HISTORY}"
    root = folder / "checkpoints"
    names = sorted(path.name for path in root.glob("step-*")) if root.is_dir() else []
    if names:
        return f"{root / names[-1]}"
    if (root / "newest").exists():
        return f"{root / 'newest'}"
    if (folder / DONE).exists():
        return f"{folder / DONE}"
    return _reached(folder)


def _reached(folder: Path) -> str:
    """The same by its log alone: whether it came to the update at which it saves."""
    try:
        every = sealed.read(folder / CONFIG)["train"]["save_every"]
        steps = [table["step"] for _, table in sealed.lines(folder / "train.jsonl") if table]
    except (Refused, OSError, KeyError, TypeError):
        return ""
    if steps and max(steps) >= every:
        return f"step {max(steps):,} in its train.jsonl, and train.save_every was {every:,}"
    return ""


def check_checkpoints(folder: Path, skipped: Sequence[str]) -> None:
    """Refuse to begin anew in a run that has learnt something; called where none can be used."""
    if evidence := learnt(folder):
        damaged = f"; damaged: {'; '.join(skipped)}" if skipped else ""
        raise Refused(
            f"{folder}: no checkpoint can be gone on from, but the run has {evidence}{damaged}: "
            "bring checkpoints/ back, or --from-scratch, which moves what is there aside"
        )


def check_spread_kept(folder: Path, ds: str, start: Start) -> None:
    """Refuse another ZeRO stage or precision than the newest checkpoint's, by its manifest.

    ds: a file of ds_configs/; "", the usual one, is looked at once the device is known.  So is a
    manifest that cannot be read.
    """
    root = folder / "checkpoints"
    there = sorted(path for path in root.glob("step-*") if re.fullmatch(r"step-\d+", path.name))
    if not ds or start.from_scratch or not there:
        return
    try:
        was = json_table(there[-1] / "manifest.json")
        before = int(was["stage"]), str(was["precision"])
    except (Refused, KeyError, TypeError, ValueError):
        return
    asked = read(shipped(ds, SPREADS))
    if before != (now := (stage(asked), precision(asked))):
        raise Refused(
            f"{there[-1]} was written with ZeRO stage {before[0]} in {before[1]}, {ds} asks for "
            f"stage {now[0]} in {now[1]}: keep the former, or start a new run from the exported "
            "weights"
        )


def _moved_aside(folder: Path) -> Path | None:
    """What a run has left, in a folder of its own; None where there is nothing."""
    there = [folder / name for name in OF_A_RUN if (folder / name).exists()]
    if not there:
        return None
    aside = folder / time.strftime("before-%Y%m%d-%H%M%S")
    while aside.exists():
        aside = aside.with_name(aside.name + "-")
    aside.mkdir()
    for path in there:
        os.rename(path, aside / path.name)
    return aside


def cleared(folder: Path) -> list[str]:
    """Remove what a kill left half done, and bring back an export that it took away.

    Returns the names.  Only for whoever has the run's lock.
    """
    left = [
        path
        for pattern in (
            "checkpoints/.universal-*",
            "checkpoints/.saving-*",
            ".export-new",
            f"{BEST}/.export-new",
        )
        for path in folder.glob(pattern)
    ]
    aside = [folder / ".export-old", folder / BEST / ".export-old"]
    for old in aside:
        if old.exists() and not old.with_name("export").exists():  # killed between two renames
            os.rename(old, old.with_name("export"))
    left += [path for path in (*aside, folder / EXPORTS / ".new") if path.exists()]
    for path in left:
        shutil.rmtree(path, ignore_errors=True)
    return [path.name for path in left]


def swapped(folder: Path, module, export: Callable) -> None:
    """Export aside, then put it in the place of the former export."""
    aside, old = folder.with_name(".export-new"), folder.with_name(".export-old")
    for left in (aside, old):
        shutil.rmtree(left, ignore_errors=True)
    aside.mkdir()
    try:
        export(module, aside)
    except SafetensorError as error:  # so it calls a full disk
        shutil.rmtree(aside, ignore_errors=True)
        raise OSError(errno.EIO, str(error), str(folder)) from None
    except OSError:
        shutil.rmtree(aside, ignore_errors=True)
        raise
    if folder.exists():
        os.rename(folder, old)
    os.rename(aside, folder)
    shutil.rmtree(old, ignore_errors=True)


def exported(folder: Path, step: int, keep: int, module, export: Callable) -> None:
    """Write export/; with `keep`, put a copy of it into exports/ and prune that to so many."""
    swapped(folder / "export", module, export)
    if keep:
        _kept(folder, step, keep)
    with atomic.plain(folder / EXPORTED) as file:
        file.write(sealed.document({"step": step}))


def exported_best(folder: Path, facts: Mapping, module, export: Callable) -> None:
    """Write best/export/ and, beside it, of which validation it is (goals.Best.state)."""
    (folder / BEST).mkdir(exist_ok=True)
    swapped(folder / BEST / "export", module, export)
    with atomic.plain(folder / BEST / "validation.json") as file:
        file.write(sealed.document(facts))


def exported_step(folder: Path) -> int | None:
    """The update after which export/ was written; None where nobody knows."""
    try:
        return sealed.read(folder / EXPORTED)["step"] if (folder / "export").exists() else None
    except (Refused, KeyError):
        return None


def _kept(folder: Path, step: int, keep: int) -> None:
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


def difference(old, new, key: str) -> str:
    """The first key in which two plain tables differ, with both values; empty if they agree."""
    if isinstance(old, dict) and isinstance(new, dict):
        for name in sorted(old.keys() | new.keys()):
            if found := difference(old.get(name), new.get(name), f"{key}.{name}"):
                return found
        return ""
    return "" if old == new else f"there {key} = {old!r}, here {new!r}"


def mark(folder: Path, facts: dict) -> None:
    """Say that the run is done; the launcher of DeepSpeed may say 0 after a kill."""
    with atomic.durable(folder / DONE) as file:
        file.write(sealed.document(facts))


def _lines(numbers: Sequence[int]) -> str:
    shown = ", ".join(map(str, numbers[:5])) + (", ..." if len(numbers) > 5 else "")
    return f"line {shown} is" if len(numbers) == 1 else f"{len(numbers)} lines ({shown}) are"
