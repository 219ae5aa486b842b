"""Runs the search for duplicates: many processes, each step noted in the journal."""

from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from functools import partial

from data_tools.find_duplicates import Search
from data_tools.journal import DuplicatesFile, Journal
from data_tools.sections import DamagedFile
from data_tools.tokenize_parts import Damaged
from data_tools.workers import finished
from januslm.cli.progress import Progress

WORDS = {  # for the progress line, by the kind of step
    "run": "runs sorted",
    "join": "runs joined",
    "clusters": "clusters found",
    "mask": "parts marked",
}


def decide(
    search: Search,
    checks: Sequence[Callable[[], Damaged | None]],
    journal: Journal,
    executor: Executor,
    progress: Progress,
) -> list[Damaged]:
    """Write the masks of one deduplicator, or go on with them; what was found to be damaged.

    checks: of the files of each part that are read.

    The masks say of each document which deduplicator drops it; nothing else is needed later.
    """
    if all(_there(search, journal, "mask", number) for number in range(search.masks)):
        return []
    progress.phase(len(checks), f"{search.name}: parts checked")
    damaged = [found for _, found in finished(executor, checks, progress.show) if found]
    for kind, count, step in () if damaged else search.phases():
        left = [number for number in range(count) if not _there(search, journal, kind, number)]
        before = count - len(left)
        progress.phase(count, f"{search.name}: {WORDS[kind]}", before)
        tasks = [partial(_done, step, search, kind, number) for number in left]

        def tick(done: int, before: int = before) -> None:
            progress.show(before + done)

        for _, found in finished(executor, tasks, tick):
            if isinstance(found, Damaged):
                damaged.append(found)
            else:
                journal.append(found)
        if damaged:
            break
    return [*dict.fromkeys(damaged)]


def _there(search: Search, journal: Journal, kind: str, number: int) -> bool:
    """Whether a step is finished and its file still there; who reads it looks at its bytes."""
    path = search.file(kind, number)
    noted = journal.duplicates.get(path.name)
    return noted is not None and path.is_file() and path.stat().st_size == noted.bytes


def _done(
    step: Callable[[Search, int], int], search: Search, kind: str, number: int
) -> DuplicatesFile | Damaged:
    """Do a step; what to note of it."""
    try:
        return DuplicatesFile(search.file(kind, number).name, step(search, number))
    except DamagedFile as error:
        return Damaged(error.path)
