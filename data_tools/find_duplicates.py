"""The search for duplicates among all documents, in steps of bounded memory.

A document's number is its place in the corpus.  Each step writes one file of OUT/parts:

run K     the keys of some documents in order, in sections by the keys' upper bits
join S    section S of all runs together, where equal keys meet: what is a duplicate of what
clusters  of a Similar alone: which documents of which clusters do not stay
mask C    for each of some documents: 0, or the place from 1 of the deduplicator that drops it

What a file holds is a function of the documents, whoever writes it and when.
"""

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path

import numpy as np

from data_tools import sections
from data_tools.clusters import clusters, dropped
from data_tools.duplicates import Deduplicator, Equal, deduplicator
from data_tools.journal import part_file
from januslm.data.shards import HEADER

U8 = np.dtype("<u8")
BYTES = 512  # of memory for each key that a process sorts, with its share of a print
COMPARED = 1 << 13  # pairs of prints read and compared at a time


@dataclass(frozen=True)
class Search:
    """What the steps of one deduplicator need to know; it travels to other processes."""

    folder: Path  # of the parts
    place: int  # of the deduplicator in the recipe, from 0
    names: tuple[str, ...]  # of all of the recipe, in order
    options: dict
    starts: tuple[int, ...]  # the number of the first document of each part, then of all
    records: int  # keys in a process' memory, documents of a mask: a power of 2

    def __getstate__(self) -> dict:
        # the deduplicator may hold what does not travel: each process makes its own
        return {key: value for key, value in vars(self).items() if key != "way"}

    @property
    def name(self) -> str:
        """Of the deduplicator."""
        return self.names[self.place]

    @cached_property
    def way(self) -> Deduplicator:
        """The deduplicator itself."""
        return deduplicator(self.name, self.options)

    @property
    def documents(self) -> int:
        """All of them."""
        return self.starts[-1]

    @property
    def span(self) -> int:
        """Documents of a run: a power of 2, so that one mask covers it."""
        return 1 << max(0, (self.records // self.way.bands).bit_length() - 1)

    @property
    def joins(self) -> int:
        """Sections of a run."""
        return max(1, -(-self.documents * self.way.bands // self.records))

    @property
    def masks(self) -> int:
        """Files of masks."""
        return max(1, -(-self.documents // self.records))

    def file(self, kind: str, number: int, name: str = "") -> Path:
        """Of one step; the size of the steps is part of the name."""
        head = f"duplicates-{name or self.name}-{self.records}"
        return self.folder / f"{head}-{kind}-{number:05d}"

    def phases(self) -> Iterator[tuple[str, int, Callable[["Search", int], int]]]:
        """(kind of step, how many there are, what does one): each needs all that come before."""
        yield "run", max(1, -(-self.documents // self.span)), sort_run
        yield "join", self.joins, join
        if not isinstance(self.way, Equal):
            yield "clusters", 1, cluster
        yield "mask", self.masks, mask


def record_limit(megabytes: float) -> int:
    """Keys that a process may hold in so much memory: a power of 2."""
    return 1 << max(0, int(megabytes * 1e6 / BYTES).bit_length() - 1)


def masked(folder: Path, name: str, records: int, first: int, end: int) -> np.ndarray:
    """Of documents first to end: 0, or which deduplicator up to `name` drops it; uint8 [n]."""
    search = Search(folder, 0, (name,), {}, (0,), records)
    found = [np.empty(0, np.uint8)]
    for number in range(first // records, -(-end // records)):
        one = sections.read(search.file("mask", number), 0, np.dtype(np.uint8))
        start = number * records
        found.append(one[max(0, first - start) : end - start])
    return np.concatenate(found)


# --- a run


def sort_run(search: Search, number: int) -> int:
    """Sort the keys of a run's documents; its last section is what repeats within the run.

    Of equal keys in one run all but the first are marked here, so that a key that half of the
    corpus has is in the next step once a run.
    """
    first = number * search.span
    documents = np.arange(first, min(first + search.span, search.documents))
    if search.place:
        before = search.names[search.place - 1]
        where = (first, first + len(documents))
        documents = documents[masked(search.folder, before, search.records, *where) == 0]
    prints = _prints(search, first, search.span)[documents - first]
    has = prints[:, : 2 * search.way.bands].any(axis=1)
    if not has.all():
        documents, prints = documents[has], prints[has]
    other = _order(search, first, documents)
    # band after band, so that of equal keys the first document comes first
    columns = np.empty((search.way.bands, len(documents), 4), U8)
    columns[..., 2], columns[..., 3] = documents, other
    for band, rows in enumerate(columns):
        rows[:, :2] = prints[:, 2 * band : 2 * band + 2]
    found, repeated = _grouped(search, columns.reshape(-1, 4), prints, documents)
    cuts = np.arange(1, search.joins, dtype=object) * 2**64 // search.joins
    places = np.searchsorted(found[:, 0], np.array(cuts, dtype=U8))
    return sections.write(
        search.file("run", number), [*np.split(found, places), np.unique(repeated, axis=0)]
    )


def _order(search: Search, first: int, documents: np.ndarray) -> np.ndarray:
    """The fourth column of a run's keys: see `_grouped`."""
    if not isinstance(search.way, Equal):
        return documents.astype(U8)
    if search.way.keep == "first":
        return np.zeros(len(documents), U8)
    lengths = _lengths(search, first, search.span)[documents - first]
    return (2**32 - lengths).astype(U8)


def _grouped(
    search: Search,
    columns: np.ndarray,
    prints: np.ndarray | None = None,
    documents: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """(the columns in the order of their keys, each key once; what equal keys say).

    columns: uint64 [n, 4], ascending by document where keys are equal.  Of an Equal they are key,
    document and its order, the least of which stays; said is which documents do not.  Of a Similar
    they are key, and the first and last of neighbours that have it; said is pairs of duplicates,
    [pairs, 2]: each document of a key is compared with the one before it.
    """
    equal = isinstance(search.way, Equal)
    by = (columns[:, 3],) if equal else ()
    columns = columns[np.lexsort((*by, columns[:, 1], columns[:, 0]))]
    again = np.zeros(len(columns), bool)
    again[1:] = (columns[1:, :2] == columns[:-1, :2]).all(axis=1)
    if equal:
        return columns[~again], columns[again, 2]
    pairs = np.stack([columns[:-1, 3], columns[1:, 2]], axis=1)[again[1:]]
    starts = np.flatnonzero(~again)
    once = columns[starts]
    if len(once):
        once[:, 3] = columns[np.append(starts[1:], len(columns)) - 1, 3]
    return once, _alike(search, pairs, prints, documents)


def _alike(
    search: Search, pairs: np.ndarray, prints: np.ndarray | None, documents: np.ndarray | None
) -> np.ndarray:
    """Those of the pairs whose sketches agree; prints: of `documents`, else of the parts."""
    way = search.way
    if isinstance(way, Equal) or way.agree is None:
        return pairs
    pairs = np.unique(pairs, axis=0)  # near duplicates share many bands
    same = [np.empty(0, bool)]
    for start in range(0, len(pairs), COMPARED):
        some = pairs[start : start + COMPARED]
        if prints is not None and documents is not None:
            both = prints[np.searchsorted(documents, some.T)]
        else:
            both = np.stack([_prints_at(search, one) for one in some.T])
        sketches = np.ascontiguousarray(both[..., 2 * way.bands :]).view(np.uint8)
        same.append(way.agree(*sketches))
    return pairs[np.concatenate(same)]


def _pieces(search: Search, first: int, count: int) -> Iterator[tuple[int, int, int]]:
    """(part, its first document from 0, how many) of so many documents."""
    end = min(first + count, search.documents)
    part = int(np.searchsorted(search.starts, first, "right")) - 1
    while first < end:
        size = min(end, search.starts[part + 1]) - first
        if size:
            yield part, first - search.starts[part], size
        first, part = first + size, part + 1


def _prints(search: Search, first: int, count: int) -> np.ndarray:
    """The prints of neighbouring documents, uint64 [count, size / 8]."""
    size = search.way.size
    found = [np.empty(0, U8)]
    for part, start, many in _pieces(search, first, count):
        path = part_file(search.folder, part, search.name)
        found.append(np.fromfile(path, U8, many * size // 8, offset=start * size))
    return np.concatenate(found).reshape(-1, size // 8)


def _prints_at(search: Search, documents: np.ndarray) -> np.ndarray:
    """The prints of any documents, as above, read one by one: no file is mapped into memory."""
    size = search.way.size
    found = np.empty((len(documents), size // 8), U8)
    parts = np.searchsorted(np.array(search.starts, U8), documents, "right") - 1
    for part in np.unique(parts):
        handle = os.open(part_file(search.folder, int(part), search.name), os.O_RDONLY)
        try:
            for row in np.flatnonzero(parts == part):
                start = (int(documents[row]) - search.starts[part]) * size
                found[row] = np.frombuffer(os.pread(handle, size, start), U8)
        finally:
            os.close(handle)
    return found


def _lengths(search: Search, first: int, count: int) -> np.ndarray:
    """The tokens of neighbouring documents, int64 [count], from the parts' indices."""
    found = [np.empty(0, np.int64)]
    for part, start, size in _pieces(search, first, count):
        path = part_file(search.folder, part, "idx")
        found.append(np.fromfile(path, "<i4", size, offset=HEADER + 4 * start).astype(np.int64))
    return np.concatenate(found)


# --- the other steps


def _runs(search: Search) -> Iterator[Path]:
    for number in range(max(1, -(-search.documents // search.span))):
        yield search.file("run", number)


def join(search: Search, number: int) -> int:
    """Bring one section of all runs together; one section of what was found for each mask."""
    # in the order of the runs, so that of equal keys the first document comes first
    every = [sections.read(path, number, U8, 4) for path in _runs(search)]
    _, found = _grouped(search, np.concatenate(every))
    if isinstance(search.way, Equal):
        return sections.write(search.file("join", number), _by_mask(search, np.sort(found)))
    return sections.write(search.file("join", number), [found])


def _by_mask(search: Search, documents: np.ndarray) -> list[np.ndarray]:
    """Documents in order, cut where one mask ends and the next begins."""
    cuts = np.arange(1, search.masks, dtype=U8) * np.uint64(search.records)
    return np.split(documents.astype(U8), np.searchsorted(documents, cuts))


def _pairs(search: Search) -> Iterator[np.ndarray]:
    """All pairs of duplicates that runs and joins have found."""
    for path in _runs(search):
        yield sections.read(path, search.joins, U8, 2)
    for number in range(search.joins):
        yield sections.read(search.file("join", number), 0, U8, 2)


def cluster(search: Search, number: int) -> int:
    """Which documents of all clusters do not stay, one section for each mask."""
    members, first = clusters(lambda: _pairs(search))
    lengths = None
    if search.way.keep == "longest":
        bounds = np.searchsorted(members, np.array(search.starts, U8))
        lengths = np.zeros(len(members), np.int32)
        for part, (start, end) in enumerate(pairwise(bounds)):
            if start < end:
                begin = search.starts[part]
                every = _lengths(search, begin, search.starts[part + 1] - begin)
                lengths[start:end] = every[members[start:end].astype(np.int64) - begin]
    lost = dropped(members, first, lengths)
    return sections.write(search.file("clusters", number), _by_mask(search, lost))


def mask(search: Search, number: int) -> int:
    """What is dropped of some documents, by this deduplicator or one before it."""
    first = number * search.records
    end = min(first + search.records, search.documents)
    if search.place:
        found = masked(search.folder, search.names[search.place - 1], search.records, first, end)
    else:
        found = np.zeros(end - first, np.uint8)
    if isinstance(search.way, Equal):
        runs = [*_runs(search)][first // search.span : -(-end // search.span)]
        lost = [(path, search.joins) for path in runs]
        lost += [(search.file("join", one), number) for one in range(search.joins)]
    else:
        lost = [(search.file("clusters", 0), number)]
    for path, section in lost:
        documents = sections.read(path, section, U8)
        found[documents.astype(np.int64) - first] = search.place + 1
    return sections.write(search.file("mask", number), [found])
