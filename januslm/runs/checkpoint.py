"""The checkpoints of a run.

PROGRAM checkpoint ls RUN                     step, size, processes, ZeRO stage, and what is wrong
PROGRAM checkpoint verify RUN                 hash every file; exit code 1 if one is damaged
PROGRAM checkpoint export RUN TO [--step N]   the model of a checkpoint, as training exports it
PROGRAM checkpoint prune RUN --keep N         remove all but the last N whole ones [--dry-run]
"""

import argparse
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

from januslm.cli.command import answered, parser
from januslm.cli.table import drawn, shown_bytes
from januslm.config import Refused
from januslm.runs.story import CHECKPOINTS, checkpoints, folder_bytes, is_run
from januslm.training.manifest import Found, Keep, check, name, names, remove
from januslm.training.run_lock import RunLock, holder, refusal

HEAD = ("checkpoint", "size", "processes", "ZeRO", "precision", "samples", "")


def main() -> int:
    options = _arguments()
    verbs: dict[str, Callable[[argparse.Namespace], int]] = {
        "ls": ls,
        "verify": verify,
        "export": export,
        "prune": prune,
    }
    return answered(lambda: verbs[options.verb](options))


def _arguments() -> argparse.Namespace:
    known = parser("checkpoint", __doc__)
    verbs = known.add_subparsers(dest="verb", required=True, metavar="ls | verify | export | prune")
    for verb in ("ls", "verify", "export", "prune"):
        one = verbs.add_parser(verb)
        one.add_argument("run", metavar="RUN", type=Path, help="the folder of a run")
        if verb == "export":
            one.add_argument("target", metavar="TO", type=Path, help="the folder to write")
            one.add_argument("--step", type=int, help="default: the newest whole one")
        if verb == "prune":
            one.add_argument("--keep", type=int, required=True, help="how many whole ones stay")
            one.add_argument("--dry-run", action="store_true", help="say what would go")
    return known.parse_args()


def ls(options: argparse.Namespace) -> int:
    """Nothing is hashed: verify does that."""
    rows = []
    for one, found in checkpoints(_run(options.run)):
        if isinstance(found, str):
            size = shown_bytes(folder_bytes(options.run / CHECKPOINTS / one))
            rows.append((one, size, *["-"] * 4, found))
            continue
        facts = found.manifest
        shown = [facts.get("world"), facts.get("stage"), facts.get("precision"), facts["samples"]]
        note = "while updates were skipped" if found.doubtful else "-"
        rows.append((one, shown_bytes(found.bytes), *map(str, shown), note))
    print(drawn([HEAD, *rows]) if rows else f"{options.run}: no checkpoint")
    return 0


def verify(options: argparse.Namespace) -> int:
    """1 if a checkpoint is damaged; one that was never finished is not counted as one."""
    root, damaged = _run(options.run) / CHECKPOINTS, 0
    for one in names(root):
        try:
            found = check(root / one)
            print(f"{one}: whole, {len(found.manifest['files'])} files, {shown_bytes(found.bytes)}")
        except Refused as error:
            print(f"{one}: {error}")
            damaged += not one.startswith(".")
    return int(bool(damaged))


def export(options: argparse.Namespace) -> int:
    """On the CPU, in one process, from any ZeRO stage and any number of processes."""
    root = _run(options.run) / CHECKPOINTS
    found = check_step(root, options.step) if options.step is not None else _newest(root)
    if options.target.exists():
        raise Refused(f"{options.target}: is there already; name a folder that is not")
    from januslm.runs.export import write

    aside = options.target.with_name(options.target.name + ".new")
    shutil.rmtree(aside, ignore_errors=True)
    try:
        write(found, options.run, aside)
        aside.rename(options.target)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    print(f"wrote {options.target}: step {found.step:,} of {options.run}")
    return 0


def prune(options: argparse.Namespace) -> int:
    """Damaged ones stay, and so does the newest whole one; refused while the run trains."""
    root = _run(options.run) / CHECKPOINTS
    if options.keep < 1:
        raise Refused(f"--keep must be at least 1, got {options.keep}")
    if options.dry_run:
        if who := holder(options.run):
            raise Refused(refusal(options.run, who))
    else:
        RunLock(options.run).take()
    whole: dict[str, Found] = {}
    for one in names(root):
        try:
            whole[one] = check(root / one)
        except Refused as error:
            print(f"{one} stays: {error}")
    if not whole:
        raise Refused(f"{root}: no whole checkpoint; nothing is removed")
    newest = max(found.step for found in whole.values())
    doubtful = {one for one, found in whole.items() if found.doubtful}
    for one in Keep(options.keep).superseded(list(whole), newest, doubtful):
        if one == name(newest):
            continue
        done = "would remove" if options.dry_run else "removed"
        print(f"{done} {one}, {shown_bytes(whole[one].bytes)}")
        if not options.dry_run:
            remove(root / one)
    return 0


def _run(folder: Path) -> Path:
    if not is_run(folder):
        raise Refused(f"{folder}: no run: no config.json beside checkpoints/ or a log")
    return folder


def check_step(root: Path, step: int) -> Found:
    """The checkpoint of one step, every file hashed; Refused if it is not there or damaged."""
    if name(step) not in names(root):
        there = ", ".join(n for n in names(root) if not n.startswith(".")) or "none"
        raise Refused(f"{root}: no {name(step)}; there are {there}")
    try:
        return check(root / name(step))
    except Refused as error:
        raise Refused(f"{root / name(step)}: {error}") from None


def _newest(root: Path) -> Found:
    for one in names(root):
        try:
            return check(root / one)
        except Refused as error:
            print(f"skipped {one}: {error}", file=sys.stderr)
    raise Refused(f"{root}: no whole checkpoint")


if __name__ == "__main__":
    sys.exit(main())
