"""Checkpoints that are whole or not there: written aside, checked, then published by renaming."""

import errno
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.distributed as dist
import xxhash

from januslm.config import Refused
from januslm.data import atomic

MANIFEST, NEWEST, STATE = "manifest.json", "newest", "state"
_NAME = re.compile(r"(\.saving-)?step-(\d+)")


class NotSaved(Refused):
    """A checkpoint could not be written; the one before it is untouched."""


@dataclass(frozen=True)
class Found:
    """A complete checkpoint."""

    folder: Path
    manifest: dict

    @property
    def step(self) -> int:
        return self.manifest["step"]


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


def name(step: int) -> str:
    """The folder's name; zeros in front, so that names sort as steps do."""
    return f"step-{step:08d}"


class Saving:
    """One checkpoint being written by all ranks: write() each file, then publish()."""

    def __init__(self, root: Path, step: int):
        self.root, self.step = Path(root), step
        self.path = self.root / f".saving-{name(step)}"
        self.files: dict[str, dict] = {}
        self.failure = ""
        on_rank0(self._clear)

    def _clear(self) -> None:
        for left in self.root.glob(".saving-*") if self.root.exists() else ():
            shutil.rmtree(left)
        (self.path / STATE).mkdir(parents=True)

    def write(self, path: str | Path, save: Callable) -> None:
        """Write one file of this rank: save(file) writes it, then it is flushed and read back.

        A failing disk is remembered instead of raised: the other ranks are on their way to a
        collective, and a rank that left here would leave them hanging there.
        """
        if self.failure:
            return
        try:
            self.files[str(Path(path).relative_to(self.path))] = _written(Path(path), save)
        except OSError as error:
            self.failure = f"rank {_rank()}, {Path(path).name}: {error.strerror or error}"

    def publish(self, manifest: dict, keep: int | None) -> Path:
        """Make it the newest checkpoint and prune to `keep`, or raise NotSaved on all ranks.

        keep: None prunes nothing.
        """
        files: dict[str, dict] = {}
        failures: list[str] = []
        for one_files, failure in gathered((self.files, self.failure)):
            files |= one_files
            failures += [failure] if failure else []
        try:
            if failures:
                raise Refused("; ".join(failures))
            manifest = {"step": self.step, **manifest, "files": files}
            return on_rank0(lambda: self._rename(manifest, keep))
        except Refused as error:
            on_rank0(lambda: shutil.rmtree(self.path, ignore_errors=True))
            raise NotSaved(self._apology(str(error))) from None

    def _rename(self, manifest: dict, keep: int | None) -> Path:
        for file, facts in manifest["files"].items():
            _same_size(self.path / file, facts)
        atomic.sync_folder(self.path / STATE)
        with atomic.durable(self.path / MANIFEST) as file:
            file.write(json.dumps(manifest, indent=1))
        final = self.root / name(self.step)
        old = self.root / f".saving-old-{name(self.step)}"
        if final.exists():  # a damaged one that was skipped when this run resumed
            os.rename(final, old)
        os.rename(self.path, final)
        with atomic.durable(self.root / NEWEST) as file:
            file.write(final.name + "\n")
        shutil.rmtree(old, ignore_errors=True)
        if keep is not None:
            self._prune(keep)
        return final

    def _prune(self, keep: int) -> None:
        there = sorted(self.root.glob("step-*"))
        # A higher number than ours is a damaged one that was skipped when the run resumed.
        # One that was written while updates were skipped does not count.
        valid = [
            folder for folder in there if folder.name <= name(self.step) and not _skipping(folder)
        ]
        for folder in there:
            if folder not in valid[-keep:]:
                shutil.rmtree(folder)

    def _apology(self, why: str) -> str:
        found = on_rank0(lambda: next((c for c in _candidates(self.root) if c[0] != "."), None))
        kept = "there was no checkpoint before it"
        if found:
            kept = f"the last complete checkpoint, {self.root / found}, is untouched"
        return (
            f"{self.root / name(self.step)} could not be saved ({why}); {kept}. "
            "Make room and start the same command again: the run goes on from there"
        )


def _skipping(folder: Path) -> bool:
    try:
        return bool(json.loads((folder / MANIFEST).read_text()).get("skipping"))
    except (OSError, ValueError):
        return False


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
    if _digest(path) != facts["xxh3"]:
        raise OSError(errno.EIO, "what was read back is not what was written")
    return facts


def _digest(path: Path) -> str:
    state = xxhash.xxh3_128()
    with open(path, "rb") as file:
        while block := file.read(1 << 22):
            state.update(block)
    return state.hexdigest()


def _same_size(path: Path, facts: dict) -> None:
    if not path.exists():
        raise Refused(f"{path.name} is missing (do all nodes see the same run folder?)")
    if path.stat().st_size != facts["bytes"]:
        raise Refused(
            f"{path.name} has {path.stat().st_size:,} bytes, the manifest says {facts['bytes']:,}"
        )


def newest(
    root: Path, good: bool = False, before: int | None = None
) -> tuple[Found | None, list[str]]:
    """The newest complete checkpoint, the same on all ranks, and why newer ones were skipped.

    good: not one that was written while updates were skipped.  before: of an earlier update.
    """
    skipped: list[str] = []
    for candidate in on_rank0(lambda: _candidates(Path(root))):
        folder = Path(root) / candidate
        if before is not None and int(candidate.rpartition("-")[2]) >= before:
            continue
        problems = [problem for problem in gathered(_problem(folder)) if problem]
        if not problems:
            found = Found(folder, json.loads((folder / MANIFEST).read_text()))
            if good and found.manifest.get("skipping"):
                continue
            return found, skipped
        skipped.append(f"{candidate} is not complete: {problems[0]}")
    return None, skipped


def _candidates(root: Path) -> list[str]:
    found = [match for path in root.glob("*step-*") if (match := _NAME.fullmatch(path.name))]
    return [match[0] for match in sorted(found, key=lambda m: (int(m[2]), m[0]), reverse=True)]


def _problem(folder: Path) -> str:
    """What is wrong with a checkpoint, or nothing.  Each rank hashes its share of the files."""
    if folder.name.startswith("."):
        return "its writing was never finished"
    try:
        files = json.loads((folder / MANIFEST).read_text())["files"]
    except OSError:
        return f"it has no {MANIFEST}"
    except (ValueError, KeyError):
        return f"its {MANIFEST} cannot be read"
    size = dist.get_world_size() if dist.is_initialized() else 1
    try:
        for number, (file, facts) in enumerate(sorted(files.items())):
            _same_size(folder / file, facts)
            if number % size == _rank() and _digest(folder / file) != facts["xxh3"]:
                return f"{Path(file).name} does not match its hash"
    except Refused as error:
        return str(error)
    except OSError as error:
        return f"{error.filename}: {error.strerror}"
    return ""


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


def converted(found: Found, stage: int) -> Path:
    """The universal form, which any number of processes can load, in a hidden folder beside it.

    DeepSpeed's own tool makes it, in a process of its own.
    """
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
