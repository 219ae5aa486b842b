"""What a build will take, from a sample of its inputs: nothing is left written.

Of each source some inputs, spread over all of them, go for some seconds through what a build does
with them, into a folder that is deleted.  What is counted there is scaled by bytes: the documents
of the sample to those of all inputs, and time, tokens and drops by documents.
"""

import os
import resource
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path

from data_tools.counts import DROP
from data_tools.documents import Document, Dropped, Input
from data_tools.journal import TokenizedPart
from data_tools.recipe import Bundle, Recipe, bundles
from data_tools.tokenize_parts import tokenize
from data_tools.train_tokenizer import learn_with
from januslm.cli.progress import duration
from januslm.cli.table import drawn, shown_bytes
from januslm.config import Refused

SPREAD = 8  # inputs of a source to look into, if its time allows
LEARN = 2.0  # MB of text to learn a vocabulary from, where there is none yet
AHEAD = 1 << 19  # bytes; what readers have unpacked and not given yet is a small part of them
LOOKS = 6  # that differed, at least, where less was read
PATIENCE = 30  # seconds
LOOK = 20  # bytes of /proc/self/io that are read at a time: the first number
DECIDE = 60  # bytes a document in the process that decides about duplicates
PROCESSES = (1, 4, 16, 64, 256)  # that times are given for
GOLDEN = 0.6180339887  # multiples of it, without their whole part, are spread evenly
Report = Callable[[str], None]


@dataclass
class Sample:
    """What was found in some inputs of a source.

    counts: a build's, and of what it keeps: "kept" documents, their "tokens", bytes "in shards",
    "in parts" until these are there, and "kept besides" of what filters drop.
    """

    seconds: float = 0.0  # of CPU
    inputs: int = 0
    text: int = 0  # bytes of texts that were read
    bytes: float = 0.0  # of the inputs, as they lie on disk, that held `documents`
    documents: float = 0.0
    counts: Counter = field(default_factory=Counter)

    def scaled(self, key: str, documents: float) -> float:
        """How much of something there is in so many documents."""
        return self.counts[key] * documents / max(self.counts["read"], 1)


class Meter:
    """An input that is read until its time is over, and how much of it that was.

    Readers read ahead, and unpack: the position in the input is what this process has read at all,
    as the system counts it, when the next piece is read and the one before has been given.
    """

    def __init__(self, source_input: Input, until: float, at_most: float):
        self.input, self._until, self._at_most = source_input, until, at_most
        self.read = self.text = 0
        self.whole = False
        # (bytes read, the documents that came of them) at the last looks that differed
        self._marks: list[tuple[int, int]] = []

    def documents(self) -> Iterator[Document | Dropped]:
        """Those of the input."""
        own = LOOK  # what looking adds to the count
        start = last = bytes_read()
        for found in self.input.read():
            now = bytes_read() - own
            own += LOOK
            if now != last:
                self._marks.append((last - start, self.read))
                last = now
            self.read += 1
            self.text += len(found.raw) if isinstance(found, Document) else 0
            yield found
            known = self.known()[0] or not start
            if time.monotonic() > (self._until if known else self._at_most):
                return
        self.whole = True

    def known(self) -> tuple[float, float]:
        """(bytes of the input, the documents in them); (0, 0) where it cannot be told.

        A reader unpacks some kB ahead of what it gives: the first look counts only where it is past
        by so much that this does not matter, else the differences after it do.
        """
        if self.whole:
            return self.input.bytes, self.read
        size, documents = self._marks[-1] if self._marks else (0, 0)
        if size < AHEAD:
            before, given = self._marks[1] if len(self._marks) >= LOOKS else (size, documents)
            size, documents = size - before, documents - given
        return min(size, self.input.bytes), documents


def bytes_read() -> int:
    """By this process, from anywhere, since it began; 0 where the system does not say."""
    try:
        with open("/proc/self/io", "rb", buffering=0) as file:
            return int(file.read(LOOK).split()[1])  # rchar: NUMBER
    except OSError:
        return 0


def plan(recipe: Recipe, report: Report, seconds: float = 5.0) -> None:
    """Say what the build of a recipe will take; raises Refused where the sample holds no text."""
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # as in a build's processes
    memory = Path("/dev/shm")  # no disk is written to, where there is such a place
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as folder:
        there = recipe.tokenizer or recipe.tokenizer_file.exists()
        aside = replace(recipe, out=folder, tokenizer=str(recipe.tokenizer_file) if there else "")
        work = bundles(aside)
        size = shown_bytes(sum(bundle.bytes for bundle in work))
        inputs = sum(len(bundle.inputs) for bundle in work)
        report(f"plan of {recipe.out}: {inputs:,} inputs, {size}, {len(work):,} parts")
        if not there:
            report(
                f"{recipe.tokenizer_file}: not there yet; tokens are counted by one of a sample's"
            )
            _learn(aside, work)
        _plan(aside, work, seconds, Path(recipe.out), report)


def _learn(recipe: Recipe, work: Sequence[Bundle]) -> None:
    """Learn a tokenizer from the first input of some bundles of each source."""
    chosen = []
    for source in recipe.sources:
        mine = [bundle for bundle in work if bundle.source == source]
        chosen += [replace(one, inputs=one.inputs[:1]) for one in _spread(mine)[:SPREAD]]
    few = replace(recipe, tokenizer_megabytes=LEARN)
    with ThreadPoolExecutor(1) as executor:
        learn_with(executor, few, chosen, lambda _: None)


def _plan(
    recipe: Recipe, work: Sequence[Bundle], seconds: float, out: Path, report: Report
) -> None:
    sizes = dict.fromkeys(recipe.sources, 0)
    for bundle in work:
        sizes[bundle.source] += bundle.bytes
    whole = max(sum(sizes.values()), 1)
    samples = {}
    for name, size in sizes.items():
        mine = [bundle for bundle in work if bundle.source == name]
        samples[name] = sample(recipe, mine, seconds * max(size / whole, 0.1))
    if not any(one.counts["kept"] for one in samples.values()):
        raise Refused(f"{out}: no document of the sample is kept; {_drops(samples, sizes)}")
    documents = {n: s.documents / max(s.bytes, 1) * sizes[n] for n, s in samples.items()}
    report(_sources(work, sizes, samples, documents))
    report(f"dropped, of all documents: {_drops(samples, documents)}")
    report("  duplicates come on top: a sample shows few of them")
    _needs(recipe, len(work), samples, documents, out, report)


def _spread(values: Sequence) -> list:
    """The same in an order whose beginnings are spread evenly over all of them."""
    return [values[i] for i in sorted(range(len(values)), key=lambda i: i * GOLDEN % 1)]


def sample(recipe: Recipe, work: Sequence[Bundle], seconds: float) -> Sample:
    """Some inputs of one source through what a build does with them, for about so long."""
    found = Sample()
    inputs = _spread([(bundle, one) for bundle in work for one in bundle.inputs])
    if not inputs:
        return found
    # what is imported and loaded at the first document is no part of the work
    _through(recipe, inputs[0][0], Meter(inputs[0][1], 0, 0), Counter())
    began, cpu = time.monotonic(), time.process_time()
    for number, (bundle, one) in enumerate(inputs):
        now = time.monotonic()
        left = seconds - (now - began)
        if number and left < 0:
            break
        until = now + max(seconds / SPREAD, left / (len(inputs) - number))
        # of one at least it must be known how much was read: a piece of a packed file is large
        meter = Meter(one, until, until if found.bytes else until + PATIENCE)
        _through(recipe, bundle, meter, found.counts)
        size, documents = meter.known()
        found.inputs += 1
        found.text += meter.text
        found.bytes += size
        found.documents += documents
    if not found.bytes:  # read as it is, or so it is assumed
        found.bytes, found.documents = found.text, found.counts["read"]
    found.seconds = time.process_time() - cpu
    return found


def _through(recipe: Recipe, bundle: Bundle, meter: Meter, counts: Counter) -> None:
    """Make a part of what the meter reads, count it, and delete it."""
    one = replace(meter.input, read=meter.documents)
    part = tokenize(replace(bundle, inputs=(one,)), recipe, str(recipe.tokenizer_file))
    assert isinstance(part, TokenizedPart), "no masks of paragraphs are read, which may be damaged"
    counts.update(part.counts)
    counts.update(kept=part.shard.documents, tokens=part.shard.tokens)
    sizes = {"in shards": sum(part.shard.sizes.values())}
    for name, what in (("parts", "in parts"), ("rejected", "kept besides")):
        folder = Path(recipe.out) / name
        sizes[what] = sum(path.stat().st_size for path in folder.glob("*"))
        shutil.rmtree(folder, ignore_errors=True)
    counts.update(sizes)


def _drops(samples: dict[str, Sample], documents: Mapping[str, float]) -> str:
    """Each reason with its share of all documents, the most frequent first."""
    found: dict[str, float] = {}
    for name, one in samples.items():
        for key in one.counts:
            if key.startswith(DROP):
                why = key.removeprefix(DROP)
                found[why] = found.get(why, 0.0) + one.scaled(key, documents[name])
    total = max(sum(documents.values()), 1)
    ordered = sorted(found.items(), key=lambda one: (-one[1], one[0]))
    return ", ".join(f"{why} {number / total:.2%}" for why, number in ordered) or "none"


def _sources(work: Sequence[Bundle], sizes: dict, samples: dict, documents: dict) -> str:
    rows = [("source", "inputs", "size", "sampled", "documents", "kept", "tokens")]
    for name, one in samples.items():
        inputs = sum(len(bundle.inputs) for bundle in work if bundle.source == name)
        kept, tokens = (one.scaled(key, documents[name]) for key in ("kept", "tokens"))
        share = f"{one.inputs:,} inputs, {shown_bytes(one.bytes)}"
        numbers = [f"{n:,.0f}" for n in (documents[name], kept, tokens)]
        rows.append((name, f"{inputs:,}", shown_bytes(sizes[name]), share, *numbers))
    return drawn(rows)


def _needs(
    recipe: Recipe,
    parts: int,
    samples: dict[str, Sample],
    documents: dict[str, float],
    out: Path,
    report: Report,
) -> None:
    """Time, memory and disk."""

    def together(key: str) -> float:
        return sum(one.scaled(key, documents[name]) for name, one in samples.items())

    each = {name: one.seconds / max(one.counts["read"], 1) for name, one in samples.items()}
    seconds = sum(each[name] * count for name, count in documents.items())
    most = max(parts, recipe.processes)
    counts = sorted(n for n in {*PROCESSES, recipe.processes} if n <= most)
    times = [f"{duration(seconds / n)} by {n}" for n in counts]
    times[0] += " process"
    report(f"time: {', '.join(times)}; there are {parts:,} parts to share")
    one = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    bound = recipe.deduplicate_megabytes * 1e6
    decide = min(together("kept") * DECIDE, bound) if recipe.deduplicate else 0
    report(
        f"memory: {shown_bytes((recipe.processes + 1) * one + decide)}: {shown_bytes(one)} in each "
        f"of processes = {recipe.processes} and the one that starts them, {shown_bytes(decide)} to "
        "find duplicates"
    )
    after = together("in shards") + together("kept besides")
    peak = together("in parts") + after
    place = next(p for p in (out, *out.absolute().parents) if p.exists())
    free, shards = shutil.disk_usage(place).free, shown_bytes(together("in shards"))
    report(
        f"disk: {shown_bytes(peak)} until it is built (parts {shown_bytes(peak - after)}, shards "
        f"{shards}), {shown_bytes(after)} after; {shown_bytes(free)} are free"
        + ("" if free > peak else ": NOT ENOUGH")
    )
