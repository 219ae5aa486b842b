"""Documents that hold text of test sets, found by runs of words (Brown et al. 2020, appendix C)."""

import json
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from xxhash import xxh3_64_intdigest, xxh3_128_hexdigest

from data_tools.documents import Document, Dropped
from data_tools.files import matching
from data_tools.filtering import Prepared
from data_tools.words import plain_words
from januslm.config import Allowed, Refused
from januslm.data import atomic
from januslm.data import text_pairs as pairs
from januslm.data.tasks import TASKS, find
from januslm.registry import find as module_of
from januslm.registry import names

ALL = "all"
FACTOR = np.uint64(0x9E3779B97F4A7C15)  # odd: no bit of a word's hash is lost
NONE = np.empty(0, np.uint64)
Side = Literal["both", "source", "target"]


@dataclass(frozen=True)
class Index:
    """The n-grams of all test sets.  hashes: sorted uint64 [N]; owners: of each, a place in names.

    lengths: how many words an n-gram may have.
    """

    hashes: np.ndarray
    owners: np.ndarray
    names: Sequence[str]
    lengths: Sequence[int]


def prepared(
    root: Path,
    folder: Path,
    *,
    tasks: tuple[str, ...] = (ALL,),
    data: tuple[str, ...] = (),
    tests: dict[str, list[str]] | None = None,
    side: Side = "both",
    n: Annotated[int, Allowed(low=1, high=100)] = 13,
    least: Annotated[int, Allowed(low=1, high=100)] = 8,
) -> Prepared:
    """Drop what has n words in a row with a test set; case, marks and white space do not count.

    The hashes of all n-grams are written once, into a file that all processes share.

    tasks: of finetune/tasks/, whose test sets are read as the task reads them; "all": every one
    whose files are there.
    data: folders where they lie, below root; left out: $JANUSLM_DATA, else root.
    tests: test sets of your own by name, as patterns below root: of .jsonl every text in an object,
    of other files every line.
    side: of a task's examples, what is read, what is to be written, or both.
    n: words in a row; GPT-3's.
    least: a text of fewer than n words is looked for as a whole, if it has so many.
    """
    if least > n:
        raise Refused(f"least must be at most n, {n}, got {least}")
    folders = [root / one for one in data] or [Path(os.environ.get("JANUSLM_DATA") or root)]
    found: dict[str, np.ndarray] = {}
    lengths: set[int] = set()
    missing = []
    for name, texts in _test_sets(root, folders, tasks, tests or {}, side):
        if texts is None:
            missing.append(name)
            continue
        each = [_of_test(plain_words(text), n, least, lengths) for text in texts]
        found[name] = np.unique(np.concatenate([NONE, *each]))
    if not any(map(len, found.values())):
        places = ", ".join(map(str, folders))
        raise Refused(
            f"no text of a test set with {least} words: looked for tasks {', '.join(tasks)} in "
            f"{places}, and for tests {', '.join(tests or ()) or '(none given)'}"
        )
    index = _index(found, sorted(lengths))
    path = folder / f"{xxh3_128_hexdigest(index.hashes.tobytes())}.npy"
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic.durable(path, "wb") as file:
        np.save(file, np.stack([index.hashes, index.owners]))
    sizes = ", ".join(f"{name} {len(hashes):,}" for name, hashes in found.items())
    note = f"decontaminate: n-grams of test sets: {sizes}"
    return Prepared(
        partial(clean, path=str(path), names=index.names, lengths=index.lengths),
        {name: xxh3_128_hexdigest(hashes.tobytes()) for name, hashes in found.items()},
        (note + f"; not there: {', '.join(missing)}" * bool(missing),),
    )


def clean(
    document: Document, *, path: str, names: Sequence[str], lengths: Sequence[int]
) -> Document | Dropped:
    """The document, or the first test set whose text it holds, and how many n-grams of any."""
    hashes, owners = _mapped(path)
    return asked(document, Index(hashes, owners, names, lengths))


def asked(document: Document, index: Index) -> Document | Dropped:
    """The same with an index at hand."""
    found = plain_words(document.text)
    first, count = None, 0
    for length, hashes in _ngrams(found, index.lengths):
        at = np.searchsorted(index.hashes, hashes)
        at[at == len(index.hashes)] = 0
        hits = np.flatnonzero(index.hashes[at] == hashes)
        count += len(hits)
        if len(hits) and (first is None or hits[0] < first[0]):
            first = hits[0], length, int(index.owners[at[hits[0]]])
    if first is None:
        return document
    place, length, owner = first
    words = " ".join(found[place : place + length])
    return Dropped(f"decontaminate: holds text of the test set {index.names[owner]}", count, words)


@cache
def _mapped(path: str) -> np.ndarray:
    """uint64 [2, N], of which a process holds no more in memory than it looks at."""
    return np.load(path, mmap_mode="r")


def _index(found: Mapping[str, np.ndarray], lengths: Sequence[int]) -> Index:
    """One index of several sets; what two of them have belongs to the first."""
    hashes = np.concatenate(list(found.values()))
    owners = np.repeat(np.arange(len(found), dtype=np.uint64), [*map(len, found.values())])
    hashes, first = np.unique(hashes, return_index=True)
    return Index(hashes, owners[first], list(found), lengths)


def _of_test(found: list[str], n: int, least: int, lengths: set[int]) -> np.ndarray:
    """The hashes of a test text's n-grams, or of the whole if it is short; notes their length."""
    length = min(n, len(found))
    if length < least:
        return NONE
    lengths.add(length)
    [(_, hashes)] = _ngrams(found, [length])
    return hashes


def _ngrams(found: list[str], lengths: Sequence[int]) -> Iterator[tuple[int, np.ndarray]]:
    """(length, uint64 [words - length + 1]) of all n-grams: sums of their words' hashes times the
    powers of FACTOR, modulo 2**64."""
    each = np.fromiter(
        (xxh3_64_intdigest(word.encode("utf-8", "surrogatepass")) for word in found),
        np.uint64,
        len(found),
    )
    sums = each[:0]
    for length in range(1, min(max(lengths), len(found)) + 1):
        last = each[length - 1 :]
        sums = sums[: len(last)] * FACTOR + last if length > 1 else last
        if length in lengths:
            yield length, sums


def _test_sets(
    root: Path,
    folders: Sequence[Path],
    chosen: Sequence[str],
    own: Mapping[str, Sequence[str]],
    side: Side,
) -> Iterator[tuple[str, Iterable[str] | None]]:
    """(name, texts) of each test set; None for a task of "all" whose files are not there."""
    # what a task with options reads, a run file says
    fixed = [name for name in names(TASKS) if not hasattr(module_of(TASKS, name), "configured")]
    for name in fixed if ALL in chosen else chosen:
        yield name, _of_task(name, folders, side, needed=name in chosen)
    for name, patterns in own.items():
        yield (
            name,
            (
                text
                for file in matching(root, list(patterns))
                for text in _of_file(Path(file.place))
            ),
        )


def _of_task(name: str, folders: Sequence[Path], side: Side, needed: bool) -> list[str] | None:
    """The texts of a task's test set, from the first folder that has it."""
    why = None
    for folder in folders:
        with pairs.opened() as files:
            try:
                examples = [*find(name, {}, "decontaminate").read(folder, "test", Counter())]
            except Refused as error:
                if files:  # they are there, and something is wrong with them
                    raise
                why = error
                continue
        sources = [one.source for one in examples if side != "target"]
        return sources + [text for one in examples for text in one.targets if side != "source"]
    if needed:
        raise Refused(f"tasks: {name}: {why}")
    return None


def _of_file(path: Path) -> Iterator[str]:
    """Of .jsonl every text of an object, of other files every line; plain or .gz."""
    json_lines = ".jsonl" in path.suffixes
    for number, line in enumerate(pairs.lines(path), 1):
        try:
            yield from _texts(json.loads(line)) if json_lines and line.strip() else [line]
        except (ValueError, RecursionError) as error:
            raise Refused(f"{path}:{number}: not JSON ({error})") from None


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from _texts(inner)
