"""Documents in, verified token shards out: a build that goes on where it was stopped.

1. Each bundle of inputs is read, filtered and tokenized into a part (OUT/parts), by many processes.
2. The hashes of all documents decide, in the order of the bundles, which are duplicates.
3. Each part's remaining documents are copied into their shard of OUT/train or OUT/valid.
Every finished step is one line of OUT/journal.jsonl; the manifests come last.
"""

import shutil
from collections import Counter
from collections.abc import Callable
from concurrent.futures import Executor
from pathlib import Path

import numpy as np

from data_tools.counting import KEPT, table, total
from data_tools.journal import Journal
from data_tools.parts import first_seen, seal, tokenize
from data_tools.pool import finished, pool
from data_tools.progress import Progress
from data_tools.recipe import Bundle, Recipe, bundles, identity
from data_tools.writer import Shard, dtype_for, write_manifest
from januslm.config import Refused
from januslm.shards import MANIFEST, open_corpus
from januslm.tokenizer import Tokenizer

Say = Callable[[str], None]


def build(recipe: Recipe, say: Say, fresh: bool = False, mpi: bool = False) -> None:
    """Make OUT/train and OUT/valid, or go on with them; raises Refused for a user's mistake."""
    with pool(recipe.processes, mpi) as executor:
        if executor is None:
            return  # a rank that only serves
        if not recipe.tokenizer_file.exists():
            raise Refused(
                f"{recipe.tokenizer_file}: missing; the same command with `tokenizer` in place of "
                "`build` learns one from this corpus"
            )
        tokenizer = Tokenizer.load(recipe.tokenizer_file)
        work = bundles(recipe)
        journal = Journal(Path(recipe.out), identity(recipe, work, tokenizer.sha256), fresh)
        try:
            if not _done(recipe, journal, work, tokenizer, say):
                _run(executor, recipe, journal, work, tokenizer, say)
        finally:
            journal.close()


def _splits(recipe: Recipe) -> tuple[str, ...]:
    return KEPT if recipe.holds_out else KEPT[:1]


def _done(recipe: Recipe, journal: Journal, work: list[Bundle], tokenizer, say: Say) -> bool:
    folders = [Path(recipe.out) / split for split in _splits(recipe)]
    if len(journal.sealed) < len(work) or not all((f / MANIFEST).exists() for f in folders):
        return False
    for folder in folders:
        corpus = open_corpus(folder, tokenizer.sha256)
        say(f"{folder}: already built, {corpus.documents:,} documents, {corpus.tokens:,} tokens")
    return True


def _run(
    executor: Executor, recipe: Recipe, journal: Journal, work: list[Bundle], tokenizer, say: Say
) -> None:
    out = Path(recipe.out)
    progress = Progress("build")
    left = [bundle for bundle in work if not _part_there(journal, bundle, out)]
    if journal.parts:
        say(f"{out}: {len(work) - len(left)} of {len(work)} parts are there already")
    left.sort(key=lambda bundle: -bundle.bytes)  # the longest first, so that all end together
    tasks = [(bundle, recipe, str(recipe.tokenizer_file)) for bundle in left]

    def tick(done: int) -> None:
        size = sum(path.stat().st_size for path in out.glob("parts/*.bin"))
        size += sum(_size(path) for path in out.glob("parts/*.bin.tmp"))
        progress.show(
            f"tokenized {len(work) - len(left) + done} of {len(work)} parts, "
            f"{size / np.dtype(dtype_for(tokenizer.size)).itemsize / 1e6:.1f} M tokens"
        )

    for _, line in finished(executor, tokenize, tasks, tick):
        journal.append(line)
    _seal_all(executor, recipe, journal, work, tokenizer, progress)
    progress.end()
    counters = _counters(work, journal)
    _publish(recipe, journal, work, tokenizer, counters)
    say(table(counters))
    for split in _splits(recipe):
        corpus = open_corpus(out / split, tokenizer.sha256)
        say(f"{out / split}: {corpus.documents:,} documents, {corpus.tokens:,} tokens")
    shutil.rmtree(out / "parts", ignore_errors=True)
    say(f"built in {progress.seconds:.0f} s")


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0  # renamed a moment ago


def _part_there(journal: Journal, bundle: Bundle, out: Path) -> bool:
    if bundle.number in journal.sealed and bundle.number in journal.parts:
        # its hashes decide about later parts' duplicates, so they must still be there
        return (out / "parts" / f"part-{bundle.number:05d}.hash.npy").exists()
    line = journal.parts.get(bundle.number)
    return bool(line) and _size(out / "parts" / f"part-{bundle.number:05d}.bin") == (
        line["shard"]["bytes"]
    )


def _seal_all(
    executor: Executor, recipe: Recipe, journal: Journal, work: list[Bundle], tokenizer, progress
) -> None:
    parts = Path(recipe.out) / "parts"
    hashes = [np.load(parts / f"part-{bundle.number:05d}.hash.npy") for bundle in work]
    if recipe.deduplicate:
        keep = first_seen(hashes)
    else:
        keep = [np.ones(len(one), dtype=bool) for one in hashes]
    dtype, eos = dtype_for(tokenizer.size), tokenizer.special.eos
    tasks = [
        (bundle.number, keep[bundle.number], recipe, dtype, eos)
        for bundle in work
        if bundle.number not in journal.sealed
    ]
    before = len(work) - len(tasks)
    for _, line in finished(
        executor, seal, tasks, lambda done: progress.show(f"sealed {before + done} of {len(work)}")
    ):
        journal.append(line)


def _counters(work: list[Bundle], journal: Journal) -> dict[str, dict]:
    counts: dict[str, Counter] = {bundle.source: Counter() for bundle in work}
    for bundle in work:
        counts[bundle.source].update(journal.parts[bundle.number]["counts"])
        counts[bundle.source].update(journal.sealed[bundle.number]["counts"])
    return {source: total(one) for source, one in counts.items()}


def _publish(
    recipe: Recipe, journal: Journal, work: list[Bundle], tokenizer: Tokenizer, counters: dict
) -> None:
    """Write the manifests, unless there is nothing to write one for."""
    versions = {one.name: one.version for b in work for one in b.inputs if one.version}
    for split in _splits(recipe):
        lines = [line for _, line in sorted(journal.sealed.items())]
        shards = [Shard(**line[split]) for line in lines if line[split]]
        if not shards:
            raise Refused(f"{recipe.out}/{split} would be empty.\n{table(counters)}")
        write_manifest(
            Path(recipe.out) / split,
            shards,
            split=split,
            dtype=dtype_for(tokenizer.size),
            vocabulary=tokenizer.size,
            tokenizer=tokenizer.sha256,
            eos=tokenizer.special.eos,
            recipe=journal.identity,
            packages=versions,
            counters=counters,
        )
