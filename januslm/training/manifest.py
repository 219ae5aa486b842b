"""What lies in a run's checkpoints/: which are whole, how large, which may go.  Without torch."""

import os
import re
import shutil
from collections.abc import Iterator, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import xxhash

from januslm.config import Refused
from januslm.data import sealed

MANIFEST, NEWEST, STATE = "manifest.json", "newest", "state"
UNFINISHED = ".saving-"  # before the name of a checkpoint that is being written
_NAME = re.compile(r"(\.saving-)?step-(\d+)")


@dataclass(frozen=True)
class Found:
    """A checkpoint whose manifest is whole.  damaged: names of newer ones that were skipped."""

    folder: Path
    manifest: dict[str, Any]
    damaged: frozenset[str] = frozenset()

    @property
    def step(self) -> int:
        return self.manifest["step"]

    @property
    def doubtful(self) -> bool:
        """Whether it was written while updates were skipped."""
        return bool(self.manifest.get("skipping"))

    @property
    def bytes(self) -> int:
        """Of all its files but the manifest."""
        return sum(facts["bytes"] for facts in self.manifest["files"].values())


@dataclass(frozen=True)
class Keep:
    """Which checkpoints stay: the last few, and for good those at a multiple of `every`, if any."""

    last: int
    every: int = 0

    def superseded(self, names: list[str], step: int, doubtful: Set[str] = frozenset()) -> list:
        """Which of these may go once `step` is saved.

        A higher step is of a run that went on from an older checkpoint, and would be gone on with.
        doubtful: written while updates were skipped; they stand for no other.
        """
        valid = sorted((n for n in names if step_of(n) <= step and n not in doubtful), key=step_of)
        stay = set(valid[-self.last :])
        if self.every:
            stay |= {n for n in valid if step_of(n) % self.every == 0}
        return [n for n in names if n not in stay]


def name(step: int) -> str:
    """The folder's name; zeros in front, so that names sort as steps do."""
    return f"step-{step:08d}"


def step_of(folder: str) -> int:
    """The step in a checkpoint's name."""
    return int(folder.rpartition("-")[2])


def names(root: Path) -> list[str]:
    """Folders of checkpoints, newest first; those that were never finished among them."""
    found = [match for path in root.glob("*step-*") if (match := _NAME.fullmatch(path.name))]
    return [match[0] for match in sorted(found, key=lambda m: (int(m[2]), m[0]), reverse=True)]


def read(folder: Path) -> Found:
    """A checkpoint by its manifest alone; Refused, saying what is wrong, without one to rely on."""
    if folder.name.startswith("."):
        raise Refused("its writing was never finished")
    if not (folder / MANIFEST).exists():
        raise Refused(f"it has no {MANIFEST}")
    try:
        table = sealed.read(folder / MANIFEST)
    except Refused as error:
        raise Refused(str(error).replace(f"{folder}/", "")) from None
    _well_formed(table)
    if name(table["step"]) != folder.name:
        raise Refused(f"{MANIFEST} is that of step {table['step']}")
    return Found(folder, table)


def _well_formed(table: dict) -> None:
    """Refuse what we never write: a sum of our kind protects from accidents, not from forgers."""
    files = table.get("files")
    fine = isinstance(files, dict) and all(_entry(*item) for item in files.items())
    numbers = [table.get(key) for key in ("step", "samples")]
    if not fine or not all(isinstance(n, int) and n >= 0 for n in numbers):
        raise Refused(f"{MANIFEST} is none of ours")


def _entry(path: str, facts: Any) -> bool:
    parts = Path(path).parts
    inside = bool(parts) and ".." not in parts and not Path(path).is_absolute()
    return (
        inside
        and isinstance(facts, dict)
        and isinstance(facts.get("bytes"), int)
        and isinstance(facts.get("xxh3"), str)
    )


def check(folder: Path, rank: int = 0, ranks: int = 1) -> Found:
    """A checkpoint that is whole; Refused, saying what is wrong, if it is not.

    Each of several ranks hashes its share of the files, and looks at the sizes of all.
    """
    try:
        found = read(folder)
        _nothing_else(folder, {*found.manifest["files"], MANIFEST})
        for number, (path, facts) in enumerate(sorted(found.manifest["files"].items())):
            same_size(folder / path, facts)
            if number % ranks == rank and digest(folder / path) != facts["xxh3"]:
                raise Refused(f"{Path(path).name} does not match its hash")
    except OSError as error:
        raise Refused(f"{error.filename}: {error.strerror}") from None
    return found


def _nothing_else(folder: Path, known: set[str]) -> None:
    """DeepSpeed finds the files of a checkpoint by patterns: none may lie there unchecked.

    Nor may a link, which leads elsewhere, or a pipe, which nobody fills.
    """
    for path in folder.rglob("*"):
        ours = path.is_dir() or (path.is_file() and str(path.relative_to(folder)) in known)
        if path.is_symlink() or not ours:
            raise Refused(f"{path.name} is no file of it")


def same_size(path: Path, facts: dict) -> None:
    """Refuse a file that is missing or has another size than its manifest says."""
    if not path.exists():
        raise Refused(f"{path.name} is missing (do all nodes see the same run folder?)")
    if path.stat().st_size != facts["bytes"]:
        raise Refused(
            f"{path.name} has {path.stat().st_size:,} bytes, the manifest says {facts['bytes']:,}"
        )


def remove(folder: Path) -> None:
    """Remove a checkpoint; a kill meanwhile leaves what the next save clears away."""
    shutil.rmtree(set_aside(folder))


def set_aside(folder: Path) -> Path:
    """Rename a checkpoint to what no longer counts as one; the next save clears it away."""
    aside = folder.with_name(f"{UNFINISHED}old-{folder.name}")
    os.rename(folder, aside)
    return aside


def digest(path: Path) -> str:
    """The hash of a file's content."""
    state = xxhash.xxh3_128()
    with open(path, "rb") as file:
        while block := file.read(1 << 22):
            state.update(block)
    return state.hexdigest()


def readable(root: Path) -> Iterator[Found]:
    """Checkpoints with a manifest to rely on, newest first; their files are not looked at."""
    for one in names(root):
        try:
            yield read(root / one)
        except Refused:
            continue


def newest_whole(root: Path) -> Found | None:
    """The newest checkpoint of which every file was hashed."""
    for one in names(root):
        try:
            return check(root / one)
        except Refused:
            continue
    return None
