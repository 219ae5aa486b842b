"""What every task reads into: a source text and the texts that are right answers to it."""

import gzip
import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from januslm.config import Refused

SPLITS = ("train", "valid", "test")


@dataclass(frozen=True)
class Pair:
    """One example: `targets` holds one text to learn, or every reference of a test example."""

    id: str
    source: str
    targets: tuple[str, ...]


def folder(root: Path, task: str, *files: str) -> Path:
    """The folder of a task: root/TASK, or root itself; the first where one of `files` lies."""
    root = Path(root)
    for place in (root / task, root):
        if any((place / name).is_file() for name in files):
            return place
    raise Refused(
        f"{root}: no data of task {task!r} there; looked for {files[0]} in it and in {task}/"
    )


def known(split: str) -> str:
    """The split itself; Refused where there is no such split."""
    if split not in SPLITS:
        raise Refused(f"no split {split!r}; there are {', '.join(SPLITS)}")
    return split


def lines(path: Path) -> Iterator[str]:
    """The lines of a text file, plain or .gz, ended by a line feed and by nothing else.

    str.splitlines would also break at U+2028 or a form feed, and shift every line after it.
    """
    path = Path(path)
    if not path.is_file():
        raise Refused(f"{path}: no such file")
    opened = gzip.open if path.suffix == ".gz" else open
    try:
        with opened(path, "rt", encoding="utf-8", newline="\n") as file:
            for line in file:
                yield line.rstrip("\r\n")
    except (UnicodeDecodeError, gzip.BadGzipFile, EOFError) as error:
        raise Refused(f"{path}: not readable as UTF-8 text: {error}") from None


def records(path: Path, *keys: str) -> Iterator[dict]:
    """The objects of a JSONL file, each with all of `keys`."""
    for number, line in enumerate(lines(path), 1):
        try:
            record = json.loads(line)
        except json.JSONDecodeError as error:
            raise Refused(f"{path}:{number}: not JSON ({error.msg})") from None
        missing = [key for key in keys if not isinstance(record, dict) or key not in record]
        if missing:
            raise Refused(f"{path}:{number}: no {missing[0]!r}; a line has {', '.join(keys)}")
        yield record


def aligned(source: Path, target: Path) -> Iterator[tuple[str, str]]:
    """Lines of two files side by side; Refused, before the first pair, if one file has more."""
    counts = [sum(1 for _ in lines(path)) for path in (source, target)]
    if counts[0] != counts[1]:
        raise Refused(f"{source} has {counts[0]} lines and {target} has {counts[1]}")
    yield from zip(lines(source), lines(target), strict=True)


def checked(
    pairs: Iterable[Pair], where: str, split: str, skipped: Counter | None = None
) -> Iterator[Pair]:
    """The pairs, where none is empty and no id comes twice.

    An empty text is Refused, unless the caller hands in `skipped` to count it: then a training
    pair is left out, and a test pair is kept, so that line n of the test set stays line n.
    """
    seen: set[str] = set()
    for number, pair in enumerate(pairs, 1):
        if pair.id in seen:
            raise Refused(f"{where}: id {pair.id!r} comes twice (second time in line {number})")
        seen.add(pair.id)
        if not pair.source.strip() or not all(text.strip() for text in pair.targets):
            side = "target" if pair.source.strip() else "source"
            if skipped is None:
                raise Refused(
                    f"{where}: line {number}: empty {side}; mend it or read with skipped=Counter()"
                )
            skipped[f"empty {side}"] += 1
            if split == "train":
                continue
        yield pair


def leading(text: str, count: int = 1, joint: str = " ") -> str:
    """The first sentences of a text: the baseline that any summarizer has to beat."""
    return joint.join(re.split(r"(?<=[.!?])\s+", text.strip())[:count])
