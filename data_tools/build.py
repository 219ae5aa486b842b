"""Documents in, verified token shards out: a build that goes on where it was stopped.

1. Each bundle of inputs is read, filtered and tokenized into a part (OUT/parts), by many processes.
2. The hashes of all documents decide, in the order of the bundles, which are duplicates.
3. The remaining documents of some parts at a time are copied into a shard of OUT/train and one
   of OUT/valid.
Every finished step is one line of OUT/journal.jsonl; the manifests come last.
"""

import shutil
from collections import Counter
from concurrent.futures import Executor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from data_tools.counts import KEPT, table, total
from data_tools.journal import Journal
from data_tools.recipe import Bundle, Recipe, bundles, identity
from data_tools.tokenize_parts import first_seen, part_file, seal, tokenize
from data_tools.train_tokenizer import Say, learn_with
from data_tools.workers import finished, pool
from januslm.cli.progress import Progress
from januslm.config import Refused
from januslm.data.shard_writer import Shard, dtype_for, write_manifest
from januslm.data.shards import MANIFEST, open_corpus
from januslm.data.tokenizer import Tokenizer


@dataclass(frozen=True)
class Job:
    """One build: what is to do, what is done, and whom to tell."""

    recipe: Recipe
    work: list[Bundle]
    tokenizer: Tokenizer
    journal: Journal
    say: Say

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


def build(recipe: Recipe, say: Say, fresh: bool = False, mpi: bool = False) -> None:
    """Make OUT/train and OUT/valid, or go on with them; raises Refused for a user's mistake."""
    with pool(recipe.processes, mpi) as executor:
        if executor is None:
            return  # a rank that only serves
        work = bundles(recipe)
        if not recipe.tokenizer and not recipe.tokenizer_file.exists():
            learn_with(executor, recipe, work, say)
        tokenizer = Tokenizer.load(recipe.tokenizer_file)
        journal = Journal(Path(recipe.out), identity(recipe, work, tokenizer.sha256), fresh)
        job = Job(recipe, work, tokenizer, journal, say)
        try:
            if not _done(job):
                _run(job, executor)
        finally:
            journal.close()


def _done(job: Job) -> bool:
    """Whether an earlier build has finished; it is checked and told."""
    folders = [job.out / split for split in job.splits]
    if not all((folder / MANIFEST).exists() for folder in folders):
        return False
    for folder in folders:
        job.say(_told(job, folder, "already built, "))
    return True


def _told(job: Job, folder: Path, how: str) -> str:
    corpus = open_corpus(folder, job.tokenizer.sha256)
    return f"{folder}: {how}{corpus.documents:,} documents, {corpus.tokens:,} tokens"


def _run(job: Job, executor: Executor) -> None:
    progress = Progress("build")
    _tokenize_all(job, executor, progress)
    _seal_all(job, executor, progress)
    progress.end()
    counters = _counters(job)
    _publish(job, counters)
    job.say(table(counters))
    for split in job.splits:
        job.say(_told(job, job.out / split, ""))
    shutil.rmtree(job.out / "parts", ignore_errors=True)
    job.say(f"built in {progress.seconds:.0f} s")


def _tokenize_all(job: Job, executor: Executor, progress: Progress) -> None:
    left = [bundle for bundle in job.work if not _there(job, bundle)]
    before = len(job.work) - len(left)
    if before:
        job.say(f"{job.out}: {before} of {len(job.work)} parts are there already")
    left.sort(key=lambda bundle: -bundle.bytes)  # the longest first, so that all end together
    tasks = [(bundle, job.recipe, str(job.recipe.tokenizer_file)) for bundle in left]

    def tick(done: int) -> None:
        size = sum(_size(path) for path in job.out.glob("parts/*.bin*"))
        progress.show(
            f"tokenized {before + done} of {len(job.work)} parts, "
            f"{size / np.dtype(job.dtype).itemsize / 1e6:.1f} M tokens"
        )

    for _, line in finished(executor, tokenize, tasks, tick):
        job.journal.append(line)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0  # renamed a moment ago


def _there(job: Job, bundle: Bundle) -> bool:
    """Whether a part is finished and still there."""
    line = job.journal.parts.get(bundle.number)
    if not line or not part_file(job.recipe, bundle.number, "split.npy").exists():
        return False
    return _size(part_file(job.recipe, bundle.number, "bin")) == line["shard"]["bytes"]


def _seal_all(job: Job, executor: Executor, progress: Progress) -> None:
    hashes = [np.load(part_file(job.recipe, bundle.number, "hash.npy")) for bundle in job.work]
    if job.recipe.deduplicate:
        keep = first_seen(hashes)
    else:
        keep = [np.ones(len(one), dtype=bool) for one in hashes]
    groups = _groups(job)
    tasks = [
        (
            number,
            [(part, keep[part]) for part in group],
            job.recipe,
            job.dtype,
            job.tokenizer.special.eos,
        )
        for number, group in enumerate(groups)
        if number not in job.journal.sealed
    ]
    before = len(groups) - len(tasks)

    def tick(done: int) -> None:
        progress.show(f"sealed {before + done} of {len(groups)} shards")

    for _, line in finished(executor, seal, tasks, tick):
        job.journal.append(line)


def _groups(job: Job) -> list[list[int]]:
    """The parts of each shard: neighbours, up to shard_megabytes."""
    groups: list[list[int]] = []
    room = -1.0
    for part, line in sorted(job.journal.parts.items()):
        size = line["shard"]["bytes"]
        if size > room:
            groups.append([])
            room = job.recipe.shard_megabytes * 1e6
        groups[-1].append(part)
        room -= size
    return groups


def _counters(job: Job) -> dict[str, dict]:
    counts: dict[str, Counter] = {bundle.source: Counter() for bundle in job.work}
    for bundle in job.work:
        counts[bundle.source].update(job.journal.parts[bundle.number]["counts"])
    for line in job.journal.sealed.values():
        for part, one in line["counts"]:
            counts[job.work[part].source].update(one)
    return {source: total(one) for source, one in counts.items()}


def _publish(job: Job, counters: dict) -> None:
    """Write the manifests, unless there is nothing to write one for."""
    versions = {one.name: one.version for b in job.work for one in b.inputs if one.version}
    sealed = [line["shards"] for _, line in sorted(job.journal.sealed.items())]
    shards = {split: [Shard(**s[split]) for s in sealed if split in s] for split in job.splits}
    for split in job.splits:
        if not shards[split]:
            raise Refused(f"{job.out / split} would be empty\n{table(counters)}")
    for split in job.splits:
        write_manifest(
            job.out / split,
            shards[split],
            split=split,
            dtype=job.dtype,
            vocabulary=job.tokenizer.size,
            tokenizer=job.tokenizer.sha256,
            eos=job.tokenizer.special.eos,
            recipe=job.journal.identity,
            packages=versions,
            counters=counters,
        )
