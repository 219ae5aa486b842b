"""Documents in, verified token shards out: a build that goes on where it was stopped.

0. Where paragraphs are compared, each bundle of inputs is read, and decided which are to go.
1. Each bundle of inputs is read, filtered and tokenized into a part (OUT/parts), by many processes.
2. What is alike among all documents decides, in the order of the bundles, which are duplicates.
3. The remaining documents of some parts at a time are copied into a shard of OUT/train and one
   of OUT/valid.
Every finished step is one line of OUT/journal.jsonl; the manifests come last.
"""

import errno
import shutil
from collections import Counter
from collections.abc import Iterable
from concurrent.futures import Executor
from dataclasses import dataclass
from functools import partial
from itertools import accumulate, pairwise
from pathlib import Path

import numpy as np

from data_tools import corpus_card
from data_tools.counts import KEPT, duplicate_rates, table, total
from data_tools.decide_duplicates import decide
from data_tools.duplicates import cutting, dropping
from data_tools.filtering import described
from data_tools.find_duplicates import Search, record_limit
from data_tools.journal import FRESH, Journal, Step, part_file
from data_tools.readable import poor_files, tallied
from data_tools.recipe import PREPARED, Bundle, Recipe, bundles, identity, notes
from data_tools.rejected import file_of
from data_tools.tokenize_parts import (
    SPLIT,
    Damaged,
    cut,
    damage,
    damaged_file,
    parts_folder,
    seal,
    tokenize,
)
from data_tools.train_tokenizer import Report, learn_with
from data_tools.workers import finished, pool, ranks
from januslm.cli.progress import Progress
from januslm.config import Refused
from januslm.data import atomic
from januslm.data.shard_writer import dtype_for, write_manifest
from januslm.data.shards import MANIFEST, open_corpus
from januslm.data.tokenizer import Tokenizer

FULL = (errno.ENOSPC, errno.EDQUOT)  # a write that fails so does not say where
ROUNDS = 3  # that a file may be found damaged and is made anew


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
    parts = [
        *it.journal.cut,
        *it.journal.parts,
        *(int(p) for g in it.journal.sealed.values() for p in g.counts),
    ]
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
    times: Counter[Path] = Counter()
    damaged: list[Damaged] | None = None
    while damaged != []:
        steps = (_cut_all, _tokenize_all, _decide, _seal_all)
        damaged = next((found for do in steps if (found := do(it, executor, progress))), [])
        times.update(one.file for one in damaged)
        for one in damaged:
            if times[one.file] == ROUNDS:
                raise Refused(
                    f"{one.file}: damaged again, in each of {ROUNDS} attempts: a failing disk?"
                )
            _forget(it, one)
    progress.end()
    counters = _counters(it)
    _publish(it, counters)
    it.report(table(counters))
    for name, rate in duplicate_rates(counters, it.recipe.deduplicate).items():
        it.report(f"duplicates ({name}): {rate['share']:.2%} of {rate['documents']:,} documents")
    for split in it.splits:
        it.report(_summary(it, it.out / split, ""))
    shutil.rmtree(it.out / "parts", ignore_errors=True)
    it.report(f"built in {progress.seconds:.0f} s")


def _cut_all(it: Build, executor: Executor, progress: Progress) -> list[Damaged]:
    """Decide which pieces of texts are to go, where the recipe says so; what was damaged."""
    if all(_there(it, bundle) for bundle in it.work):
        return []
    folder = parts_folder(it.recipe)
    for name in cutting(it.recipe.deduplicate):
        there = [
            bundle.number in it.journal.cut and part_file(folder, bundle.number, name).is_file()
            for bundle in it.work
        ]
        left = [bundle for bundle, is_there in zip(it.work, there, strict=True) if not is_there]
        progress.phase(len(it.work), f"{name}: parts read", len(it.work) - len(left))
        tasks = [partial(cut, bundle, recipe=it.recipe, name=name) for bundle in left]
        folder.mkdir(parents=True, exist_ok=True)
        for _, line in finished(executor, tasks, progress.show):
            it.journal.append(line)
        parts = [it.journal.cut[bundle.number] for bundle in it.work]
        checks = [partial(damaged_file, folder, part.cut, part.facts) for part in parts]
        starts = (0, *accumulate(part.pieces for part in parts))
        records = record_limit(it.recipe.deduplicate_megabytes)
        search = Search(folder, 0, (name,), it.recipe.deduplicate[name], starts, records)
        if damaged := decide(search, checks, it.journal, executor, progress):
            return damaged
    return []


def _pieces(it: Build) -> dict[int, tuple[int, int]]:
    """Where texts lose pieces: the first of each bundle's in the corpus, and where they end."""
    if not cutting(it.recipe.deduplicate):
        return {}
    counts = [it.journal.cut[bundle.number].pieces for bundle in it.work]
    return dict(enumerate(pairwise([0, *accumulate(counts)])))


def _tokenize_all(it: Build, executor: Executor, progress: Progress) -> list[Damaged]:
    """Tokenize what is not tokenized; what was found to be damaged."""
    left = [bundle for bundle in it.work if not _there(it, bundle)]
    before = len(it.work) - len(left)
    if before:
        it.report(f"{it.out}: {before} of {len(it.work)} parts are there already")
    left.sort(key=lambda bundle: -bundle.bytes)  # the longest first, so that all end together
    pieces = _pieces(it) if left else {}
    tasks = [
        partial(
            tokenize,
            bundle,
            recipe=it.recipe,
            tokenizer_file=str(it.recipe.kept_tokenizer),
            pieces=pieces.get(bundle.number),
        )
        for bundle in left
    ]
    progress.phase(len(it.work), "parts tokenized", before)

    def tick(done: int) -> None:
        size = sum(_size(path) for path in it.out.glob("parts/*.bin*"))
        tokens = size / np.dtype(it.dtype).itemsize
        progress.show(before + done, f"{tokens / 1e6:.1f} M tokens")

    damaged = _noted(it, finished(executor, tasks, tick))
    if not damaged:
        _check_sources(it)
    return damaged


def _noted(it: Build, results: Iterable[tuple[int, Step | Damaged]]) -> list[Damaged]:
    """Note what is finished; what was found to be damaged."""
    damaged = []
    for _, found in results:
        if isinstance(found, Damaged):
            damaged.append(found)
        else:
            it.journal.append(found)
    return [*dict.fromkeys(damaged)]


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
    if not part or {SPLIT, *dropping(it.recipe.deduplicate)} - part.facts.keys():
        return False
    if it.recipe.rejected and not file_of(it.out, bundle.number).is_file():
        return False
    sizes: dict[str, int | None] = {**part.shard.sizes, **dict.fromkeys(part.facts)}
    folder = parts_folder(it.recipe)
    paths = {part_file(folder, bundle.number, suffix): size for suffix, size in sizes.items()}
    return all(
        path.is_file() and size in (None, path.stat().st_size) for path, size in paths.items()
    )


def _starts(it: Build) -> list[int]:
    """The number in the corpus of the first document of each part, then of all documents."""
    sizes = [it.journal.parts[bundle.number].shard.documents for bundle in it.work]
    return [0, *accumulate(sizes)]


def _decide(it: Build, executor: Executor, progress: Progress) -> list[Damaged]:
    """Find what is duplicate, by each deduplicator after the other; what was damaged."""
    parts = [it.journal.parts[bundle.number] for bundle in it.work]
    records = record_limit(it.recipe.deduplicate_megabytes)
    folder, ways, starts = parts_folder(it.recipe), dropping(it.recipe.deduplicate), _starts(it)
    for place, (name, options) in enumerate(ways.items()):
        search = Search(folder, place, tuple(ways), dict(options), tuple(starts), records)
        checks = [partial(damage, folder, part, name, "idx") for part in parts]
        if damaged := decide(search, checks, it.journal, executor, progress):
            return damaged
    return []


def _forget(it: Build, found: Damaged) -> None:
    """Note that a file is to be made anew."""
    if found.part is None:
        it.report(f"{found.file}: damaged since it was written; it is made anew")
        it.journal.duplicates.pop(found.file.name, None)
    else:
        it.report(f"{found.file}: damaged since it was written; its part is made anew")
        pieces = found.file.suffix[1:] in cutting(it.recipe.deduplicate)
        (it.journal.cut if pieces else it.journal.parts).pop(found.part, None)


def _seal_all(it: Build, executor: Executor, progress: Progress) -> list[Damaged]:
    """Seal what is not sealed; the parts that were found to be damaged."""
    starts = _starts(it)
    groups = _groups(it)
    if strange := it.journal.sealed.keys() - set(range(len(groups))):
        raise Refused(f"{it.journal.path}: notes shard {min(strange)} of {len(groups)}; {FRESH}")
    tasks = [
        partial(
            seal,
            number,
            members=[(it.journal.parts[part], starts[part]) for part in group],
            recipe=it.recipe,
            dtype=it.dtype,
            eos=it.tokenizer.special.eos,
        )
        for number, group in enumerate(groups)
        if not _sealed(it, number)
    ]
    before = len(groups) - len(tasks)
    progress.phase(len(groups), "shards sealed", before)
    return _noted(it, finished(executor, tasks, lambda done: progress.show(before + done)))


def _sealed(it: Build, number: int) -> bool:
    """Whether the shards of a group are finished and still there."""
    group = it.journal.sealed.get(number)
    return group is not None and all(
        _size(it.out / split / f"{shard.name}.{suffix}") == size
        for split, shard in group.shards.items()
        for suffix, size in shard.sizes.items()
    )


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
            duplicates=duplicate_rates(counters, it.recipe.deduplicate),
            filters={bundle.source: described(bundle.rules) for bundle in it.work},
        )
