"""Checkpoints that are whole or not there: written aside, checked, then published by renaming."""

import errno
import functools
import os
import pickle
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from threading import Thread
from typing import Any

import torch
import torch.distributed as dist
import xxhash

from januslm.config import Refused
from januslm.data import atomic, sealed
from januslm.training.host_copy import HostCopy
from januslm.training.manifest import (
    MANIFEST,
    NEWEST,
    STATE,
    UNFINISHED,
    Found,
    Keep,
    check,
    digest,
    name,
    names,
    newest_whole,
    readable,
    remove,
    same_size,
    set_aside,
    step_of,
)


class NotSaved(Refused):
    """A checkpoint could not be written; the one before it is untouched."""


def gathered(value) -> list:
    """The value of every rank, on every rank."""
    if not dist.is_initialized():
        return [value]
    values = [None] * dist.get_world_size()
    dist.all_gather_object(values, value)
    return values


def on_rank0(function: Callable):
    """What rank 0's call returns, on every rank.

    A refusal or a failing disk on rank 0 is raised on every rank, so that none is left waiting.
    """
    answer: list = [None, None]
    if _rank() == 0:
        try:
            answer[0] = function()
        except Refused as error:
            answer[1] = str(error)
        except OSError as error:
            answer[1] = f"{error.filename or 'the disk'}: {error.strerror or error}"
    if dist.is_initialized():
        dist.broadcast_object_list(answer, src=0)
    if answer[1] is not None:
        raise Refused(answer[1])
    return answer[0]


def _rank() -> int:
    return dist.get_rank() if dist.is_initialized() else 0


class Shelf:
    """A run's checkpoints/ as this process knows it.

    whole: names of those that it wrote or checked; damaged: of those that it found damaged, which
    are never pruned.  resume: the checkpoint that the run goes on from.
    """

    def __init__(self, root: Path, keep: Keep, resume: Found | None = None):
        self.root, self.keep = Path(root), keep
        self.whole = {resume.folder.name} if resume else set()
        self.damaged = set(resume.damaged) if resume else set()
        self.free: list[memoryview] = []  # blocks of host memory between two copies
        self.removing: Thread | None = None

    def clear(self, step: int, estimate: int) -> None:
        """Make the folder that `step` is written in; Refused if the disk has no room for it.

        estimate: bytes of a checkpoint, used while there is none to look at.
        """
        self.finish()
        for left in self.root.glob(UNFINISHED + "*") if self.root.exists() else ():
            shutil.rmtree(left)
        (self.root / (UNFINISHED + name(step)) / STATE).mkdir(parents=True)
        last = next(readable(self.root), None)
        needed, free = last.bytes if last else estimate, shutil.disk_usage(self.root).free
        if free < needed:
            about = "as the last one" if last else "by the number of weights"
            raise Refused(f"it takes {needed:,} bytes, {about}, and {free:,} are free")

    def prune(self, step: int) -> list[str]:
        """Remove what `step` has made superfluous; one line for each that cannot or must not go.

        What this process has not seen whole is hashed before it goes.  A thread frees the disk,
        0.2 s a GB, while training goes on; finish() waits for it.
        """
        self.whole.add(name(step))
        self.damaged.discard(name(step))
        notes: list[str] = []
        while True:
            there = [n for n in names(self.root) if n not in self.damaged and n[0] != "."]
            doubtful = {found.folder.name for found in readable(self.root) if found.doubtful}
            going = self.keep.superseded(there, step, doubtful)
            found = [note for one in going if (note := self._damage(one))]
            if not found:
                break
            notes += found
        gone = []
        for one in going:
            try:
                gone.append(set_aside(self.root / one))
            except OSError as error:
                notes.append(f"{one} could not be removed: {error.strerror or error}")
        self.finish()
        self.removing = Thread(target=_removed, args=(gone,), name="pruning", daemon=True)
        self.removing.start()
        return notes

    def finish(self) -> None:
        """Wait until what was pruned is off the disk."""
        if self.removing:
            self.removing.join()
            self.removing = None

    def _damage(self, one: str) -> str:
        """A line on a checkpoint that turns out to be damaged."""
        if one in self.whole:
            return ""
        try:
            check(self.root / one)
        except Refused as error:
            self.damaged.add(one)
            return f"{one} is not complete and stays: {error}"
        self.whole.add(one)
        return ""


def _removed(folders: list[Path]) -> None:
    for folder in folders:
        shutil.rmtree(folder, ignore_errors=True)  # the next clear() says what cannot go


class Saving:
    """One checkpoint being written by all ranks: write() each file, start(), then publish().

    beside: write() copies to host memory and start() lets a thread write, while training goes on.
    Hashing, writing and reading back release Python's lock; a process beside measured the same.
    """

    def __init__(self, shelf: Shelf, step: int, estimate: int = 0, beside: bool = False):
        self.shelf, self.root, self.step = shelf, shelf.root, step
        self.path = self.root / (UNFINISHED + name(step))
        self.files: dict[str, dict] = {}
        self.failure = ""
        self.beside, self.copies = beside, dict[Path, HostCopy]()
        self.thread: Thread | None = None
        self.manifest: Mapping = {}
        self.prune = True
        try:
            on_rank0(lambda: shelf.clear(step, estimate))
        except Refused as error:
            raise self._not_saved(str(error)) from None

    def write(self, path: str | Path, value: Any) -> None:
        """Pickle a value into one file of this rank, which is then flushed and read back.

        A failing disk is remembered instead of raised: the other ranks are on their way to a
        collective, and a rank that left here would leave them hanging there.
        """
        if self.beside:
            copy = self.copies[Path(path)] = HostCopy(self.shelf.free)
            _pickle(value, copy)
        else:
            self._put(Path(path), functools.partial(_pickle, value))

    def start(self, manifest: Mapping, prune: bool = True) -> None:
        """Every file is handed over: let the writing begin of what was copied.

        manifest: what it shall say beside the step and the files, the same on all ranks.
        prune: whether older ones may make room for it.
        """
        self.manifest, self.prune = manifest, prune
        if self.beside:
            self.thread = Thread(target=self._write_copies, name="checkpoint", daemon=True)
            self.thread.start()

    @property
    def written(self) -> bool:
        """Whether this rank's files are written, or have failed to be."""
        return not (self.thread and self.thread.is_alive())

    def _write_copies(self) -> None:
        for path, copy in self.copies.items():
            self._put(path, copy.copy_to)
            copy.release()

    def _put(self, path: Path, save: Callable) -> None:
        if self.failure:
            return
        try:
            self.files[str(path.relative_to(self.path))] = _written(path, save)
        except OSError as error:
            self.failure = f"rank {_rank()}, {path.name}: {error.strerror or error}"
        except Exception as error:  # in a thread nobody would hear of it
            self.failure = f"rank {_rank()}, {path.name}: {error!r}"

    def publish(self, wait: bool = True) -> tuple[Path, list[str]]:
        """Make it the newest checkpoint and prune, or raise NotSaved on all ranks.

        Waits for what is still being written, and for what is pruned unless wait is false: then
        Shelf.finish does.  Returns its folder, and lines on checkpoints that were found damaged and
        stay.
        """
        if self.thread:
            self.thread.join()
        files: dict[str, dict] = {}
        failures: list[str] = []
        for one_files, failure in gathered((self.files, self.failure)):
            files |= one_files
            failures += [failure] if failure else []
        try:
            if failures:
                raise Refused("; ".join(failures))
            table = {"step": self.step, **self.manifest, "files": files}
            published = on_rank0(lambda: self._rename(table))
        except Refused as error:
            raise self._not_saved(str(error)) from None
        if wait:
            self.shelf.finish()
        return published

    def _rename(self, manifest: dict) -> tuple[Path, list[str]]:
        for file, facts in manifest["files"].items():
            same_size(self.path / file, facts)
        atomic.sync_folder(self.path / STATE)
        with atomic.durable(self.path / MANIFEST) as file:
            file.write(sealed.document(manifest))
        final = self.root / name(self.step)
        if final.exists():  # a damaged one that was skipped when this run resumed
            remove(final)
        os.rename(self.path, final)
        with atomic.durable(self.root / NEWEST) as file:
            file.write(final.name + "\n")
        return final, self.shelf.prune(self.step) if self.prune else []

    def _not_saved(self, why: str) -> NotSaved:
        """The error to raise on all ranks; nothing of this checkpoint stays."""
        kept = on_rank0(self._kept)
        return NotSaved(
            f"{self.root / name(self.step)} could not be saved ({why}); {kept}. "
            "Make room and start the same command again: the run goes on from there"
        )

    def _kept(self) -> str:
        shutil.rmtree(self.path, ignore_errors=True)
        found = newest_whole(self.root)
        if not found:
            return "there was no checkpoint before it"
        return f"the last complete checkpoint, {found.folder}, is untouched"


def _pickle(value: Any, file) -> None:
    # torch's own checksums take four times as long as the copy to memory, and ours covers all.
    before = torch.serialization.get_crc32_options()
    torch.serialization.set_crc32_options(False)
    try:
        torch.save(value, file)
    finally:
        torch.serialization.set_crc32_options(before)


class _Sink:
    """A file that hashes what was meant for it and keeps its first error to itself.

    torch's zip writer ends the process when a write raises inside its C++ destructor.
    """

    def __init__(self, file):
        self.file, self.hash, self.error = file, xxhash.xxh3_128(), None

    def write(self, data) -> int:
        if self.error is None:
            self.hash.update(data)
            try:
                self.file.write(data)
            except OSError as error:
                self.error = error
        return memoryview(data).nbytes

    def flush(self) -> None:
        """torch asks for it; the real flush follows the last write."""


def _written(path: Path, save: Callable) -> dict:
    with open(path, "wb") as file:
        sink = _Sink(file)
        save(sink)
        if sink.error:
            raise sink.error
        file.flush()
        os.fsync(file.fileno())
    facts = {"bytes": path.stat().st_size, "xxh3": sink.hash.hexdigest()}
    if digest(path) != facts["xxh3"]:
        raise OSError(errno.EIO, "what was read back is not what was written")
    return facts


def newest(
    root: Path, good: bool = False, before: int | None = None
) -> tuple[Found | None, list[str]]:
    """The newest complete checkpoint, the same on all ranks, and why newer ones were skipped.

    good: not one that was written while updates were skipped.  before: of an earlier update.
    """
    root, skipped, damaged = Path(root), list[str](), set[str]()
    ranks = dist.get_world_size() if dist.is_initialized() else 1
    for candidate in on_rank0(lambda: names(root)):
        if before is not None and step_of(candidate) >= before:
            continue
        found, problem = None, ""
        try:
            found = check(root / candidate, _rank(), ranks)
        except Refused as error:
            problem = str(error)
        problems = [one for one in gathered(problem) if one]
        if found and not problems and good and found.doubtful:
            continue
        if found and not problems:
            return replace(found, damaged=frozenset(damaged)), skipped
        damaged.add(candidate)
        skipped.append(f"{candidate} is not complete: {problems[0]}")
    return None, skipped


def rng_state() -> dict[str, torch.Tensor]:
    """The state of this rank's random generators."""
    state = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        state["cuda"] = torch.cuda.get_rng_state()
    return state


def set_rng_state(state: dict[str, torch.Tensor]) -> None:
    """Go on drawing where `rng_state` was called."""
    torch.set_rng_state(state["cpu"])
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"])


def load(path: str | Path, map_location=None, mmap: bool = False) -> Any:
    """Tensors and plain values of one file; Refused for any other pickle, of which none is run.

    mmap: tensors are read when they are looked at.
    """
    try:
        return torch.load(path, map_location=map_location, weights_only=True, mmap=mmap)
    except pickle.UnpicklingError as error:
        named = re.search(r"(?:GLOBAL|class|function) (\S+)", str(error))
        what = named[1] if named else "what no checkpoint of ours does"
        raise Refused(f"{path}: holds {what}, which is not unpickled") from None


def converted(found: Found, stage: int) -> Path:
    """The universal form, which any number of processes can load, in a hidden folder beside it.

    DeepSpeed's own tool makes it, in a process of its own, which unpickles without asking: it only
    gets files whose hashes matched, and of which `load` has been shown every pickle.
    """
    for file in found.manifest["files"]:
        load(found.folder / file, mmap=True)
    folder = found.folder.parent / f".universal-{found.folder.name}"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    command = [sys.executable, "-m", "deepspeed.checkpoint.ds_to_universal"]
    command += ["--input_folder", str(found.folder / STATE), "--output_folder", str(folder / STATE)]
    command += ["--inject_missing_state"] if stage < 3 else []
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    if ran.returncode:
        why = (ran.stderr.strip().splitlines() or ["no message"])[-1]
        raise Refused(f"{found.folder} could not be made universal: {why}; {' '.join(command)}")
    return folder
