"""Documents in, verified token shards out: a build that goes on where it was stopped.

1. Each bundle of inputs is read, filtered and tokenized into a part (OUT/parts), by many processes.
2. The hashes of all documents decide, in the order of the bundles, which are duplicates.
3. The remaining documents of some parts at a time are copied into a shard of OUT/train and one
   of OUT/valid.
Every finished step is one line of OUT/journal.jsonl; the manifests come last.
"""

import errno
import shutil
from collections import Counter
from concurrent.futures import Executor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from data_tools import corpus_card
from data_tools.counts import KEPT, table, total
from data_tools.filtering import described
from data_tools.journal import FRESH, Journal
from data_tools.readable import poor_files, tallied
from data_tools.recipe import PREPARED, Bundle, Recipe, bundles, identity, notes
from data_tools.rejected import file_of
from data_tools.tokenize_parts import Damaged, damage, part_file, seal, tokenize
from data_tools.train_tokenizer import Report, learn_with
from data_tools.workers import finished, pool, ranks
from januslm.cli.progress import Progress
from januslm.config import Refused
from januslm.data import atomic
from januslm.data.shard_writer import dtype_for, write_manifest
from januslm.data.shards import MANIFEST, open_corpus
from januslm.data.tokenizer import Tokenizer
from januslm.registry import find

FULL = (errno.ENOSPC, errno.EDQUOT)  # a write that fails so does not say where
ROUNDS = 3  # that parts may be found damaged and are tokenized anew


@dataclass(frozen=True)
class Build:
    """One build: what is to do, what is done, and whom to tell."""

    recipe: Recipe
    work: list[Bundle]
    tokenizer: Tokenizer
    journal: Journal
    report: Report

    @property
    def out(self) -> Path:
        """The folder that is written."""
        return Path(self.recipe.out)

    @property
    def dtype(self) -> str:
        """Of the tokens on disk."""
        return dtype_for(self.tokenizer.size)

    @property
    def splits(self) -> tuple[str, ...]:
        """The corpora to write."""
        return KEPT if self.recipe.holds_out else KEPT[:1]


def build(recipe: Recipe, report: Report, fresh: bool = False, mpi: bool = False) -> None:
    """Make OUT/train and OUT/valid, or go on with them; raises Refused for a user's mistake."""
    with ranks() if mpi else pool(recipe.processes) as executor:
        work = bundles(recipe)
        if not recipe.tokenizer and not recipe.tokenizer_file.exists():
            learn_with(executor, recipe, work, report)
        tokenizer = Tokenizer.load(recipe.tokenizer_file)
        who = identity(recipe, work, tokenizer.sha256)
        journal = Journal(Path(recipe.out), who, report, fresh)
        it = Build(recipe, work, tokenizer, journal, report)
        try:
            _keep_tokenizer(it, fresh)
            _check_numbers(it)
            if not _done(it):
                for note in notes(work):
                    report(note)
                _run(it, executor)
            shutil.rmtree(it.out / PREPARED, ignore_errors=True)
            if note := corpus_card.write(it.out, recipe.licenses):
                report(note)
        except OSError as error:
            if error.errno in FULL and not error.filename:
                error.filename = recipe.out
            raise
        finally:
            journal.close()


def _keep_tokenizer(it: Build, fresh: bool) -> None:
    """Write a tokenizer that the corpus file names beside the shards, with what was added to it."""
    path, named = it.recipe.kept_tokenizer, it.recipe.tokenizer_file
    there = path.exists() and Tokenizer.load(path).sha256 == it.tokenizer.sha256
    if path.exists() and not (there or fresh):
        raise Refused(f"{path}: is another tokenizer than {named}; {FRESH}")
    if it.tokenizer.note:
        it.report(f"{named}: {it.tokenizer.note}; as it is used here: {path}")
    if not there:
        with atomic.durable(path) as file:
            file.write(it.tokenizer.text)


def _check_numbers(it: Build) -> None:
    """Refuse a journal that notes what the recipe has not; its shards would be taken for ours."""
    parts = [*it.journal.parts, *(int(p) for g in it.journal.sealed.values() for p in g.counts)]
    splits = {split for group in it.journal.sealed.values() for split in group.shards}
    if not set(parts) <= set(range(len(it.work))) or not splits <= set(KEPT):
        raise Refused(f"{it.journal.path}: notes parts that this corpus has not; {FRESH}")


def _done(it: Build) -> bool:
    """Whether an earlier build has finished; it is checked and reported."""
    folders = [it.out / split for split in it.splits]
    if not all((folder / MANIFEST).exists() for folder in folders):
        return False
    for folder in folders:
        it.report(_summary(it, folder, "already built, "))
    return True


def _summary(it: Build, folder: Path, how: str) -> str:
    try:
        corpus = open_corpus(folder, it.tokenizer.sha256)
    except Refused as error:
        raise Refused(f"{error}; {FRESH}") from None
    return f"{folder}: {how}{corpus.documents:,} documents, {corpus.tokens:,} tokens"


def _run(it: Build, executor: Executor) -> None:
    progress = Progress("build")
    for _ in range(ROUNDS):
        _tokenize_all(it, executor, progress)
        _check_sources(it)
        damaged = _damaged_prints(it) or _seal_all(it, executor, progress)
        for found in damaged:
            it.report(f"{found.file}: damaged since it was written; its part is made anew")
            del it.journal.parts[found.part]
        if not damaged:
            break
    else:
        raise Refused(f"{found.file}: damaged again, in each of {ROUNDS} attempts: a failing disk?")
    progress.end()
    counters = _counters(it)
    _publish(it, counters)
    it.report(table(counters))
    for split in it.splits:
        it.report(_summary(it, it.out / split, ""))
    shutil.rmtree(it.out / "parts", ignore_errors=True)
    it.report(f"built in {progress.seconds:.0f} s")


def _tokenize_all(it: Build, executor: Executor, progress: Progress) -> None:
    left = [bundle for bundle in it.work if not _there(it, bundle)]
    before = len(it.work) - len(left)
    if before:
        it.report(f"{it.out}: {before} of {len(it.work)} parts are there already")
    left.sort(key=lambda bundle: -bundle.bytes)  # the longest first, so that all end together
    tasks = [
        partial(tokenize, bundle, recipe=it.recipe, tokenizer_file=str(it.recipe.kept_tokenizer))
        for bundle in left
    ]
    progress.phase(len(it.work), "parts tokenized", before)

    def tick(done: int) -> None:
        size = sum(_size(path) for path in it.out.glob("parts/*.bin*"))
        tokens = size / np.dtype(it.dtype).itemsize
        progress.show(before + done, f"{tokens / 1e6:.1f} M tokens")

    for _, line in finished(executor, tasks, tick):
        it.journal.append(line)


def _check_sources(it: Build) -> None:
    """Report files that could hardly be read; Refused where a whole source could not."""
    parts = [it.journal.parts[bundle.number] for bundle in it.work]
    pairs = zip(it.work, parts, strict=True)
    found = tallied((b.source, part.counts.get("read", 0), part.files) for b, part in pairs)
    for line in poor_files(it.recipe, found, it.recipe.minimum_kept):
        it.report(line)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0  # renamed a moment ago


def _there(it: Build, bundle: Bundle) -> bool:
    """Whether a part is finished and still there; `seal` looks at its bytes."""
    part = it.journal.parts.get(bundle.number)
    if not part or (it.recipe.deduplicate and not part.print):
        return False
    if it.recipe.rejected and not file_of(it.out, bundle.number).is_file():
        return False
    sizes = part.shard.sizes | {"split.npy": None, "print.npy": None}
    if not it.recipe.deduplicate:
        del sizes["print.npy"]
    paths = {part_file(it.recipe, bundle.number, suffix): size for suffix, size in sizes.items()}
    return all(
        path.is_file() and size in (None, path.stat().st_size) for path, size in paths.items()
    )


def _damaged_prints(it: Build) -> list[Damaged]:
    """The parts whose hashes of documents are damaged; they decide about all the others."""
    if not it.recipe.deduplicate:
        return []
    parts = (it.journal.parts[bundle.number] for bundle in it.work)
    return [found for part in parts if (found := damage(it.recipe, part, "print.npy"))]


def _seal_all(it: Build, executor: Executor, progress: Progress) -> list[Damaged]:
    """Seal what is not sealed; the parts that were found to be damaged."""
    keep = _kept(it)
    groups = _groups(it)
    if strange := it.journal.sealed.keys() - set(range(len(groups))):
        raise Refused(f"{it.journal.path}: notes shard {min(strange)} of {len(groups)}; {FRESH}")
    tasks = [
        partial(
            seal,
            number,
            members=[(it.journal.parts[part], keep[part]) for part in group],
            recipe=it.recipe,
            dtype=it.dtype,
            eos=it.tokenizer.special.eos,
        )
        for number, group in enumerate(groups)
        if not _sealed(it, number)
    ]
    before = len(groups) - len(tasks)
    progress.phase(len(groups), "shards sealed", before)
    damaged = []
    for _, found in finished(executor, tasks, lambda done: progress.show(before + done)):
        if isinstance(found, Damaged):
            damaged.append(found)
        else:
            it.journal.append(found)
    return damaged


def _sealed(it: Build, number: int) -> bool:
    """Whether the shards of a group are finished and still there."""
    group = it.journal.sealed.get(number)
    return group is not None and all(
        _size(it.out / split / f"{shard.name}.{suffix}") == size
        for split, shard in group.shards.items()
        for suffix, size in shard.sizes.items()
    )


def _kept(it: Build) -> list[np.ndarray]:
    """Which documents of each part are not dropped as duplicates: bool [documents] each."""
    if not it.recipe.deduplicate:
        sizes = [it.journal.parts[bundle.number].shard.documents for bundle in it.work]
        return [np.ones(size, dtype=bool) for size in sizes]
    prints = [np.load(part_file(it.recipe, bundle.number, "print.npy")) for bundle in it.work]
    return find("data_tools.dedup", it.recipe.deduplicate).kept(prints)


def _groups(it: Build) -> list[list[int]]:
    """The parts of each shard: neighbours, up to shard_megabytes."""
    groups: list[list[int]] = []
    room = -1.0
    for part, line in sorted(it.journal.parts.items()):
        size = line.shard.bytes
        if size > room:
            groups.append([])
            room = it.recipe.shard_megabytes * 1e6
        groups[-1].append(part)
        room -= size
    return groups


def _counters(it: Build) -> dict[str, dict]:
    counts: dict[str, Counter] = {bundle.source: Counter() for bundle in it.work}
    for bundle in it.work:
        counts[bundle.source].update(it.journal.parts[bundle.number].counts)
    for group in it.journal.sealed.values():
        for part, one in group.counts.items():
            counts[it.work[int(part)].source].update(one)
    return {source: total(one) for source, one in counts.items()}


def _publish(it: Build, counters: dict) -> None:
    """Write the manifests, unless there is nothing to write one for."""
    named = [b for b in it.work if "files" not in it.recipe.sources[b.source]]  # the rest: hashes
    versions = {one.name: one.version for b in named for one in b.inputs if one.version}
    groups = [group.shards for _, group in sorted(it.journal.sealed.items())]
    shards = {split: [one[split] for one in groups if split in one] for split in it.splits}
    for split in it.splits:
        if not shards[split]:
            it.report(table(counters))
            raise Refused(f"{it.out / split} would be empty; what became of the texts stands above")
    for split in it.splits:
        write_manifest(
            it.out / split,
            shards[split],
            split=split,
            dtype=it.dtype,
            vocabulary=it.tokenizer.size,
            tokenizer=it.tokenizer.sha256,
            eos=it.tokenizer.special.eos,
            recipe=it.journal.identity,
            made_from=it.journal.made_from,
            packages=versions,
            licenses=it.recipe.licenses,
            counters=counters,
            filters={bundle.source: described(bundle.rules) for bundle in it.work},
        )
