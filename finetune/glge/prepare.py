"""GLGE's official archives made ready: out/VERSION/TASK/{train,dev,test}.{src,tgt}."""

import argparse
import filecmp
import re
import shutil
import sys
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from finetune.glge.archive import DAMAGE, contents, copy
from januslm.cli.command import answered, parser, program
from januslm.cli.table import drawn
from januslm.config import Refused
from januslm.data.text_pairs import lines

TASKS = ("cnndm", "gigaword", "xsum", "msnews", "squadqg", "msqg", "coqa", "personachat")
VERSIONS = ("easy", "medium", "medium+", "hard")
SPLITS, SIDES = ("train", "dev", "test"), ("src", "tgt")
MEMBER = re.compile(
    r"(?:^|/)(easy|medium\+?|hard)/([a-z]+)_data/org_data/((?:train|dev|test)\.(?:src|tgt))$"
)
LAYOUT = "{easy,medium,hard}/TASK_data/org_data/{train,dev,test}.{src,tgt}"
HELP = f"""\
Make GLGE's official archives ready for the tasks.  They may not be passed on: ask for them at
https://microsoft.github.io/glge/; training data and test sets are two downloads.

  PROGRAM data glge --archive glge_public.tgz
  PROGRAM data glge --archive train_dev.zip --archive test.zip --out data/glge

An archive is a zip, a tar (.gz, .bz2, .xz) or an unpacked folder, with, at any depth,
  {LAYOUT}
TASK: {", ".join(TASKS)}.
Written are OUT/VERSION/TASK/train.src, train.tgt, ...; OUT/VERSION is the data.root of a run.
Nothing is written unless every task of a version has all its files and sources and targets have
the same number of lines; --partial takes what there is. Only test.tgt may be missing: such a test
set is decoded and sent in, and scored by the leaderboard."""

KEPT_BACK = "test.tgt"

STAGE = ".unpacked"  # in `out`, so that what is whole is moved and not copied
Part = tuple[str, str, str]  # ("easy", "xsum", "train.src")


@dataclass(frozen=True)
class Prepared:
    """What was written: lines per (version, task) and split; and what is not as one would expect.

    left_out: files whose other side is missing; unanswered: test sets without targets.
    """

    lines: dict[tuple[str, str], dict[str, int]]
    left_out: list[str]
    unanswered: list[str]


def prepare(archives: Sequence[Path], out: Path, *, partial: bool = False) -> Prepared:
    """Copy GLGE's files out of its archives to out/VERSION/TASK.

    Training and test data are published separately, so there may be several archives. Refused,
    with what is missing, unless all parts of every task of a version are there or `partial` says
    that they need not be. Source and target must agree. Test sets may come without targets.
    """
    with _staged(out) as stage:
        found: dict[Part, Path] = {}
        for archive in archives:
            _unpacked(archive, stage, found)
        missing = absent(set(found))
        if missing and not partial:
            raise Refused(f"{', '.join(map(str, archives))}: {_summary(missing)}")
        left_out = [one for one in found if _other(one) not in found and not _alone(one)]
        whole = {one: found[one] for one in found if one not in left_out}
        counts = _counted(whole, stage)
        unanswered = _unanswered(whole, stage, out)
        _moved(whole, stage, out)
    return Prepared(counts, sorted("/".join(one) for one in left_out), unanswered)


@contextmanager
def _staged(out: Path) -> Iterator[Path]:
    """A folder in `out` to unpack into; gone in the end, and so is `out` if it would be empty."""
    stage = out / STAGE
    try:
        shutil.rmtree(stage, ignore_errors=True)  # of a run that was killed
        stage.mkdir(parents=True)
    except OSError as error:
        raise Refused(f"{out}: cannot be written ({error.strerror})") from None
    try:
        yield stage
    finally:
        shutil.rmtree(stage, ignore_errors=True)
        with suppress(OSError):
            out.rmdir()


def _moved(whole: Iterable[Part], stage: Path, out: Path) -> None:
    """Give everything its place; Refused, before the first of them, where something is in it."""
    for target in (out.joinpath(*one) for one in whole):
        there = next(path for path in (target, *target.parents) if path.exists())
        if there.is_dir() == (there == target):
            raise Refused(f"{there}: is in the way of {target}")
    for one in whole:
        target = out.joinpath(*one)
        target.parent.mkdir(parents=True, exist_ok=True)
        stage.joinpath(*one).replace(target)


def absent(found: set[Part]) -> list[str]:
    """Files that a complete archive of the same versions would also have, targets to test apart."""
    parts = [f"{split}.{side}" for split in SPLITS for side in SIDES]
    parts.remove(KEPT_BACK)
    versions = [v for v in VERSIONS if any(v == version for version, _, _ in found)]
    wanted = [(v, task, part) for v in versions for task in TASKS for part in parts]
    return ["/".join(one) for one in wanted if one not in found]


def _unpacked(archive: Path, stage: Path, found: dict[Part, Path]) -> None:
    """Copy an archive's files into `stage`, and note in `found` which archive each one is from."""
    inside = 0
    try:
        for one, stream in _members(archive):
            inside += 1
            target = stage.joinpath(*one)
            new = target.with_name(f"{target.name}.new")
            new.parent.mkdir(parents=True, exist_ok=True)
            with new.open("wb") as file:
                copy(stream, file, f"{archive}: {'/'.join(one)}")
            if one in found and not filecmp.cmp(target, new, shallow=False):
                raise Refused(f"{found[one]} and {archive}: have different {'/'.join(one)}")
            new.replace(target)
            found[one] = archive
    except DAMAGE as error:
        raise Refused(f"{archive}: cannot be read to its end ({error}); load it anew") from None
    except RuntimeError as error:  # what zipfile has for encrypted and rarely compressed files
        raise Refused(f"{archive}: {error}; unpack it yourself and name the folder") from None
    except OSError as error:
        raise Refused(f"{archive}: cannot be copied to {stage} ({error})") from None
    if not inside:
        raise Refused(f"{archive}: not a GLGE archive; no {LAYOUT} in it")


def _summary(missing: list[str]) -> str:
    """What is missing, in one line, and the likeliest way to mend it."""
    more = f" and {len(missing) - 6} more" if len(missing) > 6 else ""
    only_tests = all("/test." in name for name in missing)
    only_training = not any("/test." in name for name in missing)
    hint = ""
    if only_tests or only_training:
        what = "the test sets" if only_tests else "training and validation data"
        hint = f"; {what} are a separate download, name it with another --archive"
    return f"missing {', '.join(missing[:6])}{more}{hint}; --partial takes what there is"


def _other(one: Part) -> Part:
    """The other side of the same split."""
    version, task, part = one
    split, _, side = part.partition(".")
    return version, task, f"{split}.{SIDES[side == 'src']}"


def _alone(one: Part) -> bool:
    """Whether a part is of use without its other side."""
    return _other(one)[2] == KEPT_BACK


def _unanswered(whole: Collection[Part], stage: Path, out: Path) -> list[str]:
    """Test sets that will have no targets in `out`; Refused where targets of another one lie."""
    names = []
    for one in sorted(whole, key=_rank):
        if _other(one) in whole:
            continue
        before, targets = out.joinpath(*one), out.joinpath(*_other(one))
        if not targets.is_file():
            names.append("/".join(one[:2]))
        elif not before.is_file() or not filecmp.cmp(stage.joinpath(*one), before, shallow=False):
            raise Refused(f"{targets}: of another {one[2]} than the archive's; take it away first")
    return names


def _rank(one: Part) -> tuple:
    """The order of the leaderboard."""
    return VERSIONS.index(one[0]), TASKS.index(one[1]), one[2]


def _counted(whole: Mapping[Part, Path], stage: Path) -> dict[tuple[str, str], dict[str, int]]:
    """Lines of each split; Refused where its sides have different numbers of them, or none.

    whole: each part and the archive it is from.
    """
    counts: dict[tuple[str, str], dict[str, int]] = {}
    for version, task, source in sorted(whole, key=_rank):
        split, _, side = source.partition(".")
        if side == "tgt":
            continue
        parts = [source, f"{split}.tgt"] if (version, task, f"{split}.tgt") in whole else [source]
        where = f"{whole[version, task, source]}: {version}/{task}"
        sizes = [_size(stage / version / task / part, where) for part in parts]
        if sizes[0] != sizes[-1]:
            raise Refused(f"{where}: {parts[0]} has {sizes[0]:,} lines, {parts[1]} {sizes[1]:,}")
        if not sizes[0]:
            raise Refused(f"{where}: nothing in {' and '.join(parts)}")
        counts.setdefault((version, task), {})[split] = sizes[0]
    return counts


def _size(copy: Path, where: str) -> int:
    """Lines of an unpacked file; what is refused names `where`, since the copy will be gone."""
    try:
        return sum(1 for _ in lines(copy))
    except Refused as error:
        raise Refused(f"{where}/{str(error).removeprefix(f'{copy.parent}/')}") from None


def _members(archive: Path) -> Iterator[tuple[Part, IO[bytes]]]:
    """((version, task, part), open file) for everything in an archive that is GLGE's."""
    for name, opened in contents(archive):
        match = MEMBER.search(name)
        if match and match[2] in TASKS:
            with opened() as stream:
                yield (match[1], match[2], match[3]), stream


def main(arguments: Sequence[str] | None = None) -> int:
    """python -m finetune.glge.prepare prepare: exit code 0, or 2 and one line on stderr."""
    usage = "PROGRAM data glge --archive PATH [--archive PATH] [--out FOLDER] [--partial]"
    known = parser("data glge", HELP, usage)
    known.add_argument("verb", choices=["prepare"], help=argparse.SUPPRESS)
    known.add_argument(
        "--archive",
        type=Path,
        action="append",
        required=True,
        metavar="PATH",
        help="as downloaded, or unpacked; several if need be",
    )
    known.add_argument(
        "--out",
        type=Path,
        default=Path("data/glge"),
        metavar="FOLDER",
        help="default: data/glge",
    )
    known.add_argument("--partial", action="store_true", help="take what there is")
    given = known.parse_args(arguments)

    def command() -> None:
        print(summary(prepare(given.archive, given.out, partial=given.partial), given.out))

    return answered(command)


def summary(made: Prepared, out: Path) -> str:
    """What was made, as a table of lines, and what to type next."""
    rows = [
        [f"{version}/{task}", *(f"{splits[s]:,}" if s in splits else "-" for s in SPLITS)]
        for (version, task), splits in made.lines.items()
    ]
    text = [drawn([["lines", *SPLITS], *rows])]
    if made.left_out:
        names = ", ".join(made.left_out)
        text.append(f"left out, since their other side is missing: {names}")
    if made.unanswered:
        names = ", ".join(made.unanswered)
        text.append(f"test sets without targets, to be sent in and not scored here: {names}")
    trainable = [one for one, splits in made.lines.items() if {"train", "dev"} <= set(splits)]
    text.append(f"written to {out}")
    if trainable:
        version, task = ("easy", "xsum") if ("easy", "xsum") in trainable else trainable[0]
        root = (
            "" if (out, version) == (Path("data/glge"), "easy") else f" data.root={out / version}"
        )
        text.append(f"next: {program()} finetune glge_janus task={task}{root}")
    return "\n".join(text)


if __name__ == "__main__":
    sys.exit(main())
