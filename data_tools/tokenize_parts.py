"""The work of one process in a build: a bundle into a part, a part into its shards."""

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import numpy as np
from xxhash import xxh3_64_intdigest, xxh3_128

from data_tools.counts import DROP, DUPLICATE, KEPT, LANGUAGE
from data_tools.documents import LONGEST, Document, Dropped, Input
from data_tools.duplicates import Equal, cutting, deduplicator, dropping
from data_tools.filtering import CHANGED, EDITED, Rejected, text_passed, tokens_dropped
from data_tools.find_duplicates import masked, record_limit
from data_tools.journal import CutPart, SealedGroup, TokenizedPart, part_file
from data_tools.readable import Tally
from data_tools.recipe import Bundle, Recipe
from data_tools.rejected import RejectedFile
from data_tools.sections import DamagedFile
from januslm.config import Refused
from januslm.data import atomic
from januslm.data.shard_writer import Writer, dtype_for
from januslm.data.shards import HEADER
from januslm.data.tokenizer import Tokenizer

Pieces = tuple[int, int] | None  # of a bundle's texts: from which of the corpus' to which

BATCH = 256  # documents per call of the tokenizer
SPLIT = "split"  # suffix of the file with each document's place in KEPT
COPIED = 8192  # documents copied at a time when a shard is sealed


@cache
def _tokenizer(path: str) -> Tokenizer:
    return Tokenizer.load(path)  # once per process


def passed(
    bundle: Bundle,
    recipe: Recipe,
    counts: Counter,
    tally: Tally,
    reject: Callable[[Rejected], object] = lambda rejected: None,
) -> Iterator[Document]:
    """The documents of a bundle that pass the filters of texts; `counts` gets the others.

    tally: gets what the source itself could not read.  reject: is given each document that a filter
    drops.
    """
    LONGEST.set(recipe.longest(bundle.source))
    for source_input in bundle.inputs:
        first, unread = counts["read"], Counter[str]()
        for found in _read(source_input):
            counts["read"] += 1
            if isinstance(found, Dropped):
                counts[DROP + found.reason] += 1
                unread[found.reason] += 1
                continue
            counts["repaired"] += found.repaired
            result = text_passed(found, bundle.rules, counts)
            if isinstance(result, Rejected):
                counts[DROP + result.dropped.reason] += 1
                reject(result)
            else:
                yield result
        tally.note(source_input.name, counts["read"] - first, unread)


def _read(source_input: Input) -> Iterator[Document | Dropped]:
    try:
        yield from source_input.read()
    except MemoryError:
        raise Refused(f"{source_input.name}: more than the memory holds; split it") from None


def split_of(document: Document, recipe: Recipe) -> int:
    """The place in KEPT of a document, by its group or by the hash of its text alone."""
    by_hash = xxh3_64_intdigest(document.raw) < recipe.validation * 2**64
    return int(by_hash or document.group in recipe.validation_groups)


@dataclass(frozen=True)
class Damaged:
    """A file that is not as it was written: of a part, or (None) of the search for duplicates."""

    file: Path
    part: int | None = None


def parts_folder(recipe: Recipe) -> Path:
    """Where everything lies until the shards are finished."""
    return Path(recipe.out) / "parts"


def damage(folder: Path, part: TokenizedPart, *suffixes: str) -> Damaged | None:
    """The first of these files of a part that is missing or does not match its hash."""
    wanted = {"bin": part.shard.bin, "idx": part.shard.idx} | part.facts
    return damaged_file(folder, part.part, {suffix: wanted[suffix] for suffix in suffixes})


def damaged_file(folder: Path, part: int, wanted: Mapping[str, str]) -> Damaged | None:
    """The first file of a part that has not the hash its suffix should have."""
    for suffix, hash in wanted.items():
        path = part_file(folder, part, suffix)
        try:
            found = _digest(path)
        except OSError:  # missing, a folder, a bad sector
            found = ""
        if found != hash:
            return Damaged(path, part)
    return None


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, xxh3_128).hexdigest()


def cut(bundle: Bundle, recipe: Recipe, name: str) -> CutPart:
    """Write the prints of all pieces of a bundle's texts; what to note of it."""
    way = deduplicator(name, recipe.deduplicate[name])
    assert isinstance(way, Equal)
    assert way.pieces is not None
    count = 0
    with _Facts(part_file(parts_folder(recipe), bundle.number, name)) as facts:
        for document in passed(bundle, recipe, Counter(), Tally()):
            for piece in way.pieces(document.text):
                facts.write(way.print_of(replace(document, text=piece)))
                count += 1
    return CutPart(bundle.number, count, {name: facts.hexdigest()})


def _without_repeated(
    documents: Iterable[Document], recipe: Recipe, gone: np.ndarray, counts: Counter
) -> Iterator[Document]:
    """The documents without the pieces that came before; `counts` gets those with nothing left.

    gone: which pieces of all documents these are, bool [pieces].
    """
    (name,) = cutting(recipe.deduplicate)
    way, at = deduplicator(name, recipe.deduplicate[name]), 0
    assert isinstance(way, Equal)
    assert way.pieces is not None
    for document in documents:
        pieces = way.pieces(document.text)
        lost = gone[at : at + len(pieces)]
        at += len(pieces)
        if not lost.any():
            yield document
            continue
        left = "".join(pieces[i] for i in np.flatnonzero(~lost))
        if left.strip():
            counts[CHANGED + name] += 1
            counts[f"{EDITED}{name}: pieces that came before"] += int(lost.sum())
            yield replace(document, text=left)
        else:
            counts[DROP + DUPLICATE.format(name)] += 1
    if at != len(gone):
        raise Refused(f"{document.group}: was changed while it was read; begin anew with --fresh")


def tokenize(
    bundle: Bundle, recipe: Recipe, tokenizer_file: str, pieces: Pieces = None
) -> TokenizedPart | Damaged:
    """Write the part of a bundle and the facts about its documents; what to note of it.

    pieces: where texts lose some, the first of this bundle's in the corpus and where they end.
    """
    if not recipe.rejected:
        return _tokenize(bundle, recipe, tokenizer_file, pieces, lambda rejected: None)
    with RejectedFile(Path(recipe.out), bundle.number, bundle.source) as file:
        return _tokenize(bundle, recipe, tokenizer_file, pieces, file.write)


def _tokenize(
    bundle: Bundle,
    recipe: Recipe,
    tokenizer_file: str,
    pieces: Pieces,
    reject: Callable[[Rejected], object],
) -> TokenizedPart | Damaged:
    tokenizer, folder = _tokenizer(tokenizer_file), parts_folder(recipe)
    stem = part_file(folder, bundle.number, "bin").stem
    writer = Writer(folder, stem, dtype_for(tokenizer.size), tokenizer.special.eos)
    ways = {name: deduplicator(name, t) for name, t in dropping(recipe.deduplicate).items()}
    counts: Counter = Counter()
    tally = Tally()
    documents = passed(bundle, recipe, counts, tally, reject)
    if pieces:
        (name,) = cutting(recipe.deduplicate)
        try:
            gone = masked(folder, name, record_limit(recipe.deduplicate_megabytes), *pieces) > 0
        except DamagedFile as error:
            return Damaged(error.path)
        documents = _without_repeated(documents, recipe, gone, counts)
    with ExitStack() as opened:
        paths = {name: part_file(folder, bundle.number, name) for name in (SPLIT, *ways)}
        facts = {name: opened.enter_context(_Facts(path)) for name, path in paths.items()}
        for batch in _batches(documents, BATCH):
            ids = tokenizer.encode([document.text for document in batch])
            kept = []
            for document, tokens in zip(batch, ids, strict=True):
                if dropped := tokens_dropped(document, tokens, bundle.rules):
                    counts[DROP + dropped.dropped.reason] += 1
                    reject(dropped)
                    continue
                kept.append(tokens)
                if language := document.facts.get("language"):
                    counts[f"{LANGUAGE}{language}"] += 1
                facts[SPLIT].write(bytes([split_of(document, recipe)]))
                for name, way in ways.items():
                    facts[name].write(way.print_of(document))
            writer.add(kept)
    hashes = {name: one.hexdigest() for name, one in facts.items()}
    return TokenizedPart(bundle.number, writer.close(), dict(counts), hashes, tally.files)


class _Facts:
    """A file with a record of fixed size for each document of a part."""

    def __init__(self, path: Path):
        self._whole, self._replacement = xxh3_128(), atomic.durable(path, "wb")

    def __enter__(self) -> "_Facts":
        self._file = self._replacement.__enter__()
        return self

    def __exit__(self, *error) -> None:
        self._replacement.__exit__(*error)

    def write(self, record: bytes) -> None:
        """Append the record of the next document."""
        self._file.write(record)
        self._whole.update(record)

    def hexdigest(self) -> str:
        """xxh3_128 of the file."""
        return self._whole.hexdigest()


def _batches(items: Iterable, size: int) -> Iterator[list]:
    batch: list = []
    for item in items:
        batch.append(item)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch


def seal(
    number: int,
    members: list[tuple[TokenizedPart, int]],
    recipe: Recipe,
    dtype: str,
    eos: int,
) -> SealedGroup | Damaged:
    """Copy the documents of some parts that stay into one shard per split; what to note of it.

    members: the parts, and the number in the corpus of the first document of each.  Nothing is
    written where a part is not as it was when it was tokenized.
    """
    folder, ways = parts_folder(recipe), dropping(recipe.deduplicate)
    for part, _ in members:
        if found := damage(folder, part, "bin", "idx", SPLIT):
            return found
    writers: dict[str, Writer] = {}
    counts = {}
    for part, first in members:
        splits = np.fromfile(part_file(folder, part.part, SPLIT), np.uint8)
        try:
            by = _dropped_by(folder, recipe, first, len(splits))
        except DamagedFile as error:
            return Damaged(error.path)
        one = {DROP + DUPLICATE.format(w): int((by == i).sum()) for i, w in enumerate(ways, 1)}
        for place, split in enumerate(KEPT):
            mine = (by == 0) & (splits == place)
            one[split] = int(mine.sum())
            if not one[split]:
                continue
            if split not in writers:
                folder_of_split = Path(recipe.out) / split
                writers[split] = Writer(folder_of_split, f"shard-{number:05d}", dtype, eos)
            _copy(folder, part.part, mine, writers[split])
        counts[str(part.part)] = one
    shards = {split: writer.close() for split, writer in writers.items()}
    return SealedGroup(number, shards, counts)


def _dropped_by(folder: Path, recipe: Recipe, first: int, count: int) -> np.ndarray:
    """Of each document of a part: 0 where it stays, or which deduplicator drops it, from 1."""
    if not dropping(recipe.deduplicate):
        return np.zeros(count, np.uint8)
    *_, last = dropping(recipe.deduplicate)
    records = record_limit(recipe.deduplicate_megabytes)
    return masked(folder, last, records, first, first + count)


def _copy(folder: Path, part: int, mine: np.ndarray, writer: Writer) -> None:
    """Append the documents of a part that `mine` marks, 8192 at a time."""
    lengths = np.fromfile(part_file(folder, part, "idx"), "<i4", len(mine), offset=HEADER)
    tokens = np.memmap(part_file(folder, part, "bin"), writer.dtype, "r")
    ends = np.cumsum(lengths, dtype=np.int64)
    for start in range(0, len(mine), COPIED):
        here = slice(start, start + COPIED)
        span = slice(ends[start] - lengths[start], ends[here][-1])
        writer.copy(tokens[span][np.repeat(mine[here], lengths[here])], lengths[here][mine[here]])
