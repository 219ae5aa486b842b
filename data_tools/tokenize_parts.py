"""The work of one process in a build: a bundle into a part, a part into its shards."""

from collections import Counter
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path

import numpy as np
from xxhash import xxh3_64_intdigest

from data_tools.counts import DROP, KEPT
from data_tools.documents import Document, Dropped
from data_tools.filtering import AFTER, BEFORE, rules, text_passed, tokens_dropped
from data_tools.recipe import Bundle, Recipe
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


def passed(bundle: Bundle, recipe: Recipe, counts: Counter) -> Iterator[Document]:
    """The documents of a bundle that pass the filters of texts; `counts` gets the others."""
    before = rules(recipe.filters, BEFORE)
    for source_input in bundle.inputs:
        for found in source_input.read():
            counts["read"] += 1
            if isinstance(found, Document):
                counts["repaired"] += found.repaired
                found = text_passed(found, before)
            if isinstance(found, Dropped):
                counts[DROP + found.reason] += 1
            else:
                yield found


def split_of(document: Document, recipe: Recipe) -> int:
    """The place in KEPT of a document, by its group or by the hash of its text alone."""
    by_hash = xxh3_64_intdigest(document.raw) < recipe.validation * 2**64
    return int(by_hash or document.group in recipe.validation_groups)


def tokenize(bundle: Bundle, recipe: Recipe, tokenizer_file: str) -> dict:
    """Write the part of a bundle and the facts about its documents; the journal's line for it."""
    tokenizer = _tokenizer(tokenizer_file)
    stem = part_file(recipe, bundle.number, "bin").stem
    writer = Writer(
        Path(recipe.out) / "parts", stem, dtype_for(tokenizer.size), tokenizer.special.eos
    )
    after = rules(recipe.filters, AFTER)
    dedup = find("data_tools.dedup", recipe.deduplicate) if recipe.deduplicate else None
    counts: Counter = Counter()
    prints, splits = [], []
    for batch in _batches(passed(bundle, recipe, counts), BATCH):
        ids = tokenizer.encode([document.text for document in batch])
        kept = []
        for document, tokens in zip(batch, ids, strict=True):
            if dropped := tokens_dropped(tokens, after):
                counts[DROP + dropped.reason] += 1
                continue
            kept.append(tokens)
            splits.append(split_of(document, recipe))
            if dedup:
                prints.append(dedup.fingerprint(document))
        writer.add(kept)
    facts = {"split": np.array(splits, np.uint8)}
    if dedup:
        facts["print"] = np.array(prints, dedup.FINGERPRINT)
    for suffix, values in facts.items():
        with atomic.durable(part_file(recipe, bundle.number, f"{suffix}.npy"), "wb") as file:
            np.save(file, values)
    return {"part": bundle.number, "shard": writer.close().__dict__, "counts": dict(counts)}


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
    number: int, members: list[tuple[int, np.ndarray]], recipe: Recipe, dtype: str, eos: int
) -> dict:
    """Copy the kept documents of some parts into one shard per split; the journal's line for it.

    members: the parts' numbers, and which of their documents to keep, bool [documents].
    """
    writers: dict[str, Writer] = {}
    counts = []
    for part, keep in members:
        splits = np.load(part_file(recipe, part, "split.npy"))
        one = {DROP + "duplicate": int((~keep).sum())}
        for place, split in enumerate(KEPT):
            mine = keep & (splits == place)
            one[split] = int(mine.sum())
            if not one[split]:
                continue
            if split not in writers:
                folder = Path(recipe.out) / split
                writers[split] = Writer(folder, f"shard-{number:05d}", dtype, eos)
            _copy(recipe, part, mine, writers[split])
        counts.append([part, one])
    shards = {split: writer.close().__dict__ for split, writer in writers.items()}
    return {"sealed": number, "shards": shards, "counts": counts}


def _copy(recipe: Recipe, part: int, mine: np.ndarray, writer: Writer) -> None:
    """Append the documents of a part that `mine` marks, 8192 at a time."""
    lengths = np.fromfile(part_file(recipe, part, "idx"), "<i4", len(mine), offset=HEADER)
    tokens = np.memmap(part_file(recipe, part, "bin"), writer.dtype, "r")
    ends = np.cumsum(lengths, dtype=np.int64)
    for start in range(0, len(mine), COPIED):
        here = slice(start, start + COPIED)
        span = slice(ends[start] - lengths[start], ends[here][-1])
        writer.copy(tokens[span][np.repeat(mine[here], lengths[here])], lengths[here][mine[here]])
