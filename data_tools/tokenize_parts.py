"""The work of one process in a build: a bundle into a part, a part into its shards."""

import hashlib
import io
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from xxhash import xxh3_64_intdigest, xxh3_128

from data_tools.counts import DROP, KEPT, LANGUAGE
from data_tools.documents import LONGEST, Document, Dropped, Input
from data_tools.filtering import Rejected, text_passed, tokens_dropped
from data_tools.journal import SealedGroup, TokenizedPart
from data_tools.readable import Tally
from data_tools.recipe import Bundle, Recipe
from data_tools.rejected import RejectedFile
from januslm.config import Refused
from januslm.data import atomic
from januslm.data.shard_writer import Writer, dtype_for
from januslm.data.shards import HEADER
from januslm.data.tokenizer import Tokenizer
from januslm.registry import find

BATCH = 256  # documents per call of the tokenizer
COPIED = 8192  # documents copied at a time when a shard is sealed


def part_file(recipe: Recipe, number: int, suffix: str) -> Path:
    """Where a file of a part lies until its shard is finished."""
    return Path(recipe.out) / "parts" / f"part-{number:05d}.{suffix}"


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
    """A part's file that is not as it was written."""

    part: int
    file: Path


def damage(recipe: Recipe, part: TokenizedPart, *suffixes: str) -> Damaged | None:
    """The first of these files of a part that is missing or does not match its hash."""
    wanted = {"bin": part.shard.bin, "idx": part.shard.idx}
    wanted |= {"split.npy": part.split, "print.npy": part.print}
    for suffix in suffixes:
        path = part_file(recipe, part.part, suffix)
        try:
            found = _digest(path)
        except OSError:  # missing, a folder, a bad sector
            found = ""
        if found != wanted[suffix]:
            return Damaged(part.part, path)
    return None


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, xxh3_128).hexdigest()


def tokenize(bundle: Bundle, recipe: Recipe, tokenizer_file: str) -> TokenizedPart:
    """Write the part of a bundle and the facts about its documents; what to note of it."""
    if not recipe.rejected:
        return _tokenize(bundle, recipe, tokenizer_file, lambda rejected: None)
    with RejectedFile(Path(recipe.out), bundle.number, bundle.source) as file:
        return _tokenize(bundle, recipe, tokenizer_file, file.write)


def _tokenize(
    bundle: Bundle, recipe: Recipe, tokenizer_file: str, reject: Callable[[Rejected], object]
) -> TokenizedPart:
    tokenizer = _tokenizer(tokenizer_file)
    stem = part_file(recipe, bundle.number, "bin").stem
    writer = Writer(
        Path(recipe.out) / "parts", stem, dtype_for(tokenizer.size), tokenizer.special.eos
    )
    dedup = find("data_tools.dedup", recipe.deduplicate) if recipe.deduplicate else None
    counts: Counter = Counter()
    tally = Tally()
    prints, splits = [], []
    for batch in _batches(passed(bundle, recipe, counts, tally, reject), BATCH):
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
            splits.append(split_of(document, recipe))
            if dedup:
                prints.append(dedup.fingerprint(document))
        writer.add(kept)
    facts = {"split": np.array(splits, np.uint8)}
    if dedup:
        facts["print"] = np.array(prints, dedup.FINGERPRINT)
    hashes = {}
    for name, values in facts.items():
        path = part_file(recipe, bundle.number, f"{name}.npy")
        raw = io.BytesIO()  # np.save on a full disk tells neither the reason nor the file
        np.save(raw, values)
        with atomic.durable(path, "wb") as file:
            file.write(raw.getbuffer())
        hashes[name] = _digest(path)
    return TokenizedPart(bundle.number, writer.close(), dict(counts), **hashes, files=tally.files)


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
    members: list[tuple[TokenizedPart, np.ndarray]],
    recipe: Recipe,
    dtype: str,
    eos: int,
) -> SealedGroup | Damaged:
    """Copy the kept documents of some parts into one shard per split; what to note of it.

    members: the parts, and which of their documents to keep, bool [documents].  Nothing is written
    where a part is not as it was when it was tokenized.
    """
    for part, _ in members:
        if found := damage(recipe, part, "bin", "idx", "split.npy"):
            return found
    writers: dict[str, Writer] = {}
    counts = {}
    for part, keep in members:
        splits = np.load(part_file(recipe, part.part, "split.npy"))
        one = {DROP + "duplicate": int((~keep).sum())}
        for place, split in enumerate(KEPT):
            mine = keep & (splits == place)
            one[split] = int(mine.sum())
            if not one[split]:
                continue
            if split not in writers:
                folder = Path(recipe.out) / split
                writers[split] = Writer(folder, f"shard-{number:05d}", dtype, eos)
            _copy(recipe, part.part, mine, writers[split])
        counts[str(part.part)] = one
    shards = {split: writer.close() for split, writer in writers.items()}
    return SealedGroup(number, shards, counts)


def _copy(recipe: Recipe, part: int, mine: np.ndarray, writer: Writer) -> None:
    """Append the documents of a part that `mine` marks, 8192 at a time."""
    lengths = np.fromfile(part_file(recipe, part, "idx"), "<i4", len(mine), offset=HEADER)
    tokens = np.memmap(part_file(recipe, part, "bin"), writer.dtype, "r")
    ends = np.cumsum(lengths, dtype=np.int64)
    for start in range(0, len(mine), COPIED):
        here = slice(start, start + COPIED)
        span = slice(ends[start] - lengths[start], ends[here][-1])
        writer.copy(tokens[span][np.repeat(mine[here], lengths[here])], lengths[here][mine[here]])
