"""What every task reads into: a source text and the texts that are right answers to it."""

import gzip
import json
import re
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path

from januslm.config import Refused, json_table

SPLITS = ("train", "valid", "test")
MADE = "distill.json"  # lies beside files that a teacher wrote, and says of which task


@dataclass(frozen=True)
class Pair:
    """One example: `targets` holds one text to learn, or every reference of a test example.

    None at all, where a test set was published without: it can be decoded and sent in, not scored.
    """

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


def made_for(task: str, place: Path) -> None:
    """Refused where a teacher of another task has written the files of a folder."""
    note = place / MADE
    if not note.is_file():
        return
    about = json_table(note).get("about")
    other = about.get("task") if isinstance(about, dict) else None
    if other != task:
        raise Refused(f"{note}: a distillation of task {other!r}, not of {task!r}")


def known(split: str) -> str:
    """The split itself; Refused where there is no such split."""
    if split not in SPLITS:
        raise Refused(f"no split {split!r}; there are {', '.join(SPLITS)}")
    return split


_opened: ContextVar[dict[Path, None] | None] = ContextVar("_opened", default=None)


@contextmanager
def opened() -> Iterator[dict[Path, None]]:
    """Collects the files that `lines` opens meanwhile: what a task really reads, in order.

    Asking the task would need a second list of its files, which could differ from the first.
    """
    files: dict[Path, None] = {}
    token = _opened.set(files)
    try:
        yield files
    finally:
        _opened.reset(token)


def lines(path: Path) -> Iterator[str]:
    """The lines of a text file, plain or .gz, ended by a line feed and by nothing else.

    str.splitlines would also break at U+2028 or a form feed, and shift every line after it.
    A byte order mark is no text. Refused for what is not UTF-8, with the line, and a damaged .gz.
    """
    path = Path(path)
    if not path.is_file():
        raise Refused(f"{path}: no such file")
    if (files := _opened.get()) is not None:
        files[path] = None
    try:
        with _open(path)(path, "rt", encoding="utf-8-sig", newline="\n") as file:
            for line in file:
                yield line.rstrip("\r\n")
    except UnicodeDecodeError:
        raise Refused(_undecodable(path)) from None
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise Refused(f"{path}: a damaged .gz: {error}") from None


def _open(path: Path):
    return gzip.open if path.suffix == ".gz" else open


def _undecodable(path: Path) -> str:
    """Which line it is; text mode decodes by blocks and does not know."""
    with _open(path)(path, "rb") as file:
        for number, raw in enumerate(file, 1):
            try:
                raw.decode("utf-8")
            except UnicodeDecodeError as error:
                byte, place = raw[error.start], error.start + 1
                return f"{path}:{number}: not UTF-8 text: {error.reason} 0x{byte:02x}, byte {place}"
    return f"{path}: not UTF-8 text"


def records(
    path: Path, *keys: str, texts: Sequence[str] = (), lists: Sequence[str] = ()
) -> Iterator[dict]:
    """The objects of a JSONL file, each with all keys: under `texts` a text, in `lists` several."""
    wanted = [*keys, *texts, *lists]
    for number, line in enumerate(lines(path), 1):
        try:
            record = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise Refused(f"{path}:{number}: not JSON ({error})") from None
        missing = [key for key in wanted if not isinstance(record, dict) or key not in record]
        if missing:
            raise Refused(f"{path}:{number}: no {missing[0]!r}; a line has {', '.join(wanted)}")
        for key in texts:
            if not isinstance(record[key], str):
                raise Refused(f"{path}:{number}: {key!r} must be a text, got {record[key]!r}")
            _whole(record[key], f"{path}:{number}: {key!r}")
        for key in lists:
            several = record[key]
            if not isinstance(several, list) or not all(isinstance(one, str) for one in several):
                raise Refused(f"{path}:{number}: {key!r} must be a list of texts, got {several!r}")
            _whole("".join(several), f"{path}:{number}: {key!r}")
        yield record


def _whole(text: str, where: str) -> None:
    """Refused for half a letter, which JSON can spell and UTF-8 cannot."""
    if half := re.search("[\ud800-\udfff]", text):
        raise Refused(f"{where} has half of a surrogate pair, {half[0]!a}: a cut text")


def aligned(source: Path, target: Path) -> Iterator[tuple[str, str]]:
    """Lines of two files side by side; Refused, before the first pair, if one file has more."""
    counts = [sum(1 for _ in lines(path)) for path in (source, target)]
    if counts[0] != counts[1]:
        raise Refused(f"{source} has {counts[0]} lines and {target} has {counts[1]}")
    yield from zip(lines(source), lines(target), strict=True)


def checked(
    pairs: Iterable[Pair], where: str, split: str, skipped: Counter | None = None
) -> Iterator[Pair]:
    """The pairs, where there are some and none is empty.

    An empty text is Refused, unless the caller hands in `skipped` to count it, as every command
    does: then a training pair is left out, and a test pair is kept, so that line n of the test set
    stays line n.  Only a test set may come without targets, and only as a whole.
    """
    number, answered = 0, None
    for number, pair in enumerate(pairs, 1):
        if not pair.targets and split != "test":
            raise Refused(f"{where}: line {number}: no target; only a test set may have none")
        if answered not in (None, bool(pair.targets)):
            raise Refused(f"{where}: line {number}: targets in some lines and none in others")
        answered = bool(pair.targets)
        if not pair.source.strip() or not all(text.strip() for text in pair.targets):
            side = "target" if pair.source.strip() else "source"
            if skipped is None:
                raise Refused(f"{where}: line {number}: empty {side}; mend it, or have it counted")
            skipped[f"empty {side}"] += 1
            if split == "train":
                continue
        yield pair
    if not number:
        raise Refused(f"{where}: nothing in it for the {split} split")


def distinct(pairs: Iterable[Pair], where: str) -> Iterator[Pair]:
    """The pairs of a file that has ids of its own; Refused where one comes twice.

    It remembers every id. Ids made of line numbers need neither the check nor the room for it.
    """
    seen: set[str] = set()
    for number, pair in enumerate(pairs, 1):
        if pair.id in seen:
            raise Refused(f"{where}: id {pair.id!r} comes twice (second time in line {number})")
        seen.add(pair.id)
        yield pair


def leading(text: str, count: int = 1, joint: str = " ") -> str:
    """The first sentences of a text: the baseline that any summarizer has to beat."""
    return joint.join(re.split(r"(?<=[.!?])\s+", text.strip())[:count])
