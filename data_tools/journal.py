"""What a build has finished, a sealed line per step, so that a killed build goes on from there."""

import fcntl
import json
import os
import re
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path

from xxhash import xxh3_128_hexdigest

from januslm.config import Refused, build, json_table
from januslm.data import atomic, sealed
from januslm.data.shards import MANIFEST, Shard, read_manifest

SPLITS = ("train", "valid")
# What a build writes, by the folder below OUT.
WRITTEN = {
    "": r"journal\.jsonl?(\.new)?",
    "parts": r"part-\d{5,}\..+|duplicates-.+",
    "rejected": r"part-\d{5,}\..+",
} | dict.fromkeys(SPLITS, r"manifest\.json(\.new)?|shard-\d{5,}\.(bin|idx|xxh)(\.new)?")
FRESH = "--fresh deletes what was built and builds again"


def part_file(folder: Path, number: int, suffix: str) -> Path:
    """Where a file of a part lies until its shard is finished; folder: OUT/parts."""
    return folder / f"part-{number:05d}.{suffix}"


@dataclass(frozen=True)
class TokenizedPart:
    """A bundle that was tokenized into a part, with facts about its documents.

    files: what its source could not read, as in readable.Tally.
    """

    part: int  # the bundle's number
    shard: Shard
    counts: dict[str, int]
    facts: dict[str, str]  # xxh3_128 of the files of facts, by suffix: split, and deduplicators
    files: dict[str, dict[str, int]] = field(default_factory=dict)


@dataclass(frozen=True)
class CutPart:
    """A bundle whose texts were cut into pieces, of which prints were kept."""

    cut: int  # the bundle's number
    pieces: int
    facts: dict[str, str]  # xxh3_128 of the file of prints, by its suffix


@dataclass(frozen=True)
class DuplicatesFile:
    """A file of the search for duplicates; its content carries its own hashes."""

    duplicates: str  # its name in OUT/parts
    bytes: int


@dataclass(frozen=True)
class SealedGroup:
    """Some parts whose documents were copied into a shard of each split."""

    sealed: int  # the group's number
    shards: dict[str, Shard]  # by split
    counts: dict[str, dict[str, int]]  # by the part's number

    def __post_init__(self):
        if strange := [part for part in self.counts if not part.isdecimal()]:
            raise Refused(f"counts must be by the numbers of parts, got {strange[0]!r}")


Step = CutPart | TokenizedPart | DuplicatesFile | SealedGroup


KINDS: dict[str, type[Step]] = {  # by a key that no other step has
    "cut": CutPart,
    "part": TokenizedPart,
    "duplicates": DuplicatesFile,
}


class Journal:
    """The journal of one output folder, which it locks until `close`.

    `cut`, `parts` and `sealed` hold the finished steps by their numbers, `duplicates` by the names
    of their files.  A line that a kill cut short is left out, and so is a damaged one, which is
    reported: its step is done again.
    """

    def __init__(
        self, out: Path, identity: dict, report: Callable[[str], None], fresh: bool = False
    ):
        out.mkdir(parents=True, exist_ok=True)
        self.path = out / "journal.jsonl"
        self.identity, self.made_from = _digest(identity), made_from(identity)
        self._lock = open(out / ".lock", "w")  # noqa: SIM115 - held as long as the journal
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise Refused(f"{out}: another build is writing to it") from None
        if fresh:
            _clear(out)
        self.cut: dict[int, CutPart] = {}
        self.parts: dict[int, TokenizedPart] = {}
        self.duplicates: dict[str, DuplicatesFile] = {}
        self.sealed: dict[int, SealedGroup] = {}
        for step in self._steps(identity, report):
            self._note(step)
        self._compare_manifests()
        # written anew: what a kill left of a half line must not stay in front of the next one
        with atomic.durable(self.path) as file:
            file.write(sealed.line(identity))
            file.writelines(_line(part) for part in self.cut.values())
            file.writelines(_line(part) for part in self.parts.values())
            file.writelines(_line(one) for one in self.duplicates.values())
            file.writelines(_line(group) for group in self.sealed.values())
        self._file = open(self.path, "a", encoding="utf-8")  # noqa: SIM115

    def append(self, step: Step) -> None:
        """Note a finished step; it is on the disk when this returns."""
        self._file.write(_line(step))
        self._file.flush()
        os.fsync(self._file.fileno())
        self._note(step)

    def close(self) -> None:
        """Let other builds write to the folder."""
        self._file.close()
        self._lock.close()

    def _note(self, step: Step) -> None:
        if isinstance(step, TokenizedPart):
            self.parts[step.part] = step
        elif isinstance(step, CutPart):
            self.cut[step.cut] = step
        elif isinstance(step, DuplicatesFile):
            self.duplicates[step.duplicates] = step
        else:
            self.sealed[step.sealed] = step

    def _steps(self, identity: dict, report: Callable[[str], None]) -> list[Step]:
        """The steps of an earlier build of the same recipe; Refused where it was another one."""
        if not self.path.exists():
            return []
        (_, first), *rest = [*sealed.lines(self.path)] or [(1, None)]
        if first is None:
            raise Refused(
                f"{self.path}:1: damaged, or of an earlier version: it does not say which recipe "
                f"the parts are of; {FRESH}"
            )
        self._compare(first, identity)
        steps: list[Step] = []
        cut = not self.path.read_bytes().endswith(b"\n")  # the half line of a killed build
        for number, line in rest[: len(rest) - cut]:
            if line is None:
                report(f"{self.path}:{number}: damaged; what it noted is done again")
            else:
                kind = next((KINDS[key] for key in KINDS if key in line), SealedGroup)
                steps.append(build(kind, line, f"{self.path}:{number}"))
        return steps

    def _compare_manifests(self) -> None:
        """Refused where a finished corpus is of another recipe, whatever the journal says."""
        for split in SPLITS:
            folder = self.path.parent / split
            if not (folder / MANIFEST).exists():
                continue
            try:
                manifest = read_manifest(folder)
            except Refused as error:
                raise Refused(f"{error}; {FRESH}") from None
            if manifest.get("recipe") != self.identity:
                if isinstance(old := manifest.get("made_from"), dict):
                    self._compare(old, self.made_from)
                raise Refused(
                    f"{folder / MANIFEST}: of another recipe, of an earlier version or of no "
                    f"build: it does not note its recipe's keys; {FRESH}"
                )

    def _compare(self, old: dict, new: dict) -> None:
        new, old = _flat(json.loads(json.dumps(new))), _flat(old)
        changed = [key for key in new.keys() | old.keys() if old.get(key) != new.get(key)]
        if changed:
            raise Refused(
                f"{self.path.parent}: holds shards of another recipe, which differs in "
                f"{_difference(changed, old, new)}; {FRESH}"
            )


def made_from(identity: dict) -> dict:
    """An identity as a manifest keeps it: of the inputs, which may be many, their hash."""
    return identity | {"inputs": _digest(identity.get("inputs"))}


def _digest(value: object) -> str:
    return xxh3_128_hexdigest(json.dumps(value, sort_keys=True).encode())


def _line(step: Step) -> str:
    return sealed.line(asdict(step))


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
        if key == "inputs":
            differences.append(_changed_inputs(old.get(key), new.get(key)))
        else:
            short = len(then) + len(now) < 60
            differences.append(f"{key} ({then} then, {now} now)" if short else key)
    return ", ".join(differences)


def _changed_inputs(old: object, new: object) -> str:
    """inputs (a.jsonl has changed, and 3 more), as far as both are known."""
    if not isinstance(old, list) or not isinstance(new, list):
        return "inputs"
    then, now = _by_name(old), _by_name(new)
    what = [
        (name, "has changed" if (source, name) in then else "is new")
        for (source, name), pieces in now.items()
        if then.get((source, name)) != pieces
    ]
    what += [(name, "is gone") for source, name in then if (source, name) not in now]
    if not what:
        return "inputs (in another order)"
    more = f", and {len(what) - 1:,} more" if len(what) > 1 else ""
    return f"inputs ({what[0][0]} {what[0][1]}{more})"


def _by_name(inputs: list) -> dict[tuple[str, str], list]:
    """The inputs of an identity by source and name; a large file is several."""
    found: dict[tuple[str, str], list] = {}
    for source, name, *rest in inputs:
        found.setdefault((source, name), []).append(rest)
    return found


def _clear(out: Path) -> None:
    """Delete what a build has written, and nothing else; the manifests and the journal first.

    Refused where nothing proves that it was a build: shards have names that others use too.
    """
    noted = (out / "journal.jsonl").is_file() and any(
        step for _, step in sealed.lines(out / "journal.jsonl")
    )
    found = [
        path
        for folder, pattern in WRITTEN.items()
        for path in sorted((out / folder).glob("*"))
        if re.fullmatch(pattern, path.name)
    ]
    manifests = [path for path in found if path.name == MANIFEST]
    strange = [path for path in manifests if not _of_a_build(path, noted)]
    if not noted and not manifests:
        strange = found
    if strange:
        raise Refused(
            f"{strange[0]}: nothing proves that a build has written it, so --fresh does not delete "
            "it: delete it yourself, or name another out"
        )
    for path in [*manifests, *found]:
        path.unlink(missing_ok=True)


def _of_a_build(path: Path, noted: bool) -> bool:
    """Whether a manifest says so, or may have said so before it was damaged, as a journal shows."""
    try:
        table = json_table(path)
    except Refused:
        return noted
    return "recipe" in table or (noted and not sealed.is_whole(table))
