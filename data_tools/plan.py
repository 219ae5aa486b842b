"""What a build will take, from a sample of its inputs: nothing is written.

Of each source some inputs, spread over all of them, are read, filtered and tokenized for some
seconds.  What is counted there is scaled by bytes: the documents of the sample to those of all
inputs, and time, tokens and drops by documents.
"""

import os
import resource
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from data_tools.counts import DROP
from data_tools.documents import Document, Dropped, Input
from data_tools.filtering import AFTER, rules, tokens_dropped
from data_tools.recipe import Bundle, Recipe, bundles
from data_tools.tokenize_parts import BATCH, passed
from januslm.cli.progress import duration
from januslm.cli.table import drawn, shown_bytes
from januslm.config import Refused
from januslm.data.shard_writer import dtype_for
from januslm.data.tokenizer import Tokenizer, train_tokenizer
from januslm.registry import find

SPREAD = 8  # inputs of a source to look into, if its time allows
LEARN = 2_000_000  # letters to learn a vocabulary from, where there is none yet
AHEAD = 1 << 19  # bytes; what readers have unpacked and not given yet is a small part of them
PATIENCE = 30  # seconds
LOOK = 20  # bytes of /proc/self/io that are read at a time: the first number
INDEX = 21  # bytes a document in .idx, and its split
DECIDE = 60  # bytes a document in the process that decides about duplicates
FEWEST, MOST = 1, 256  # processes that times are given for
Report = Callable[[str], None]


@dataclass
class Sample:
    """What was found in some inputs of a source.  counts: as a build counts, tokens besides."""

    seconds: float = 0.0  # of CPU
    inputs: int = 0
    text: int = 0  # bytes of texts that were read
    bytes: float = 0.0  # of the inputs, as they lie on disk, that held `documents`
    documents: float = 0.0
    counts: Counter = field(default_factory=Counter)

    def scaled(self, key: str, documents: float) -> float:
        """How often something is counted in so many documents."""
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
            before, given = self._marks[1] if len(self._marks) > 2 else (size, documents)
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
    work = bundles(recipe)
    inputs = {
        name: [i for b in work if b.source == name for i in b.inputs] for name in recipe.sources
    }
    sizes = {name: sum(one.bytes for one in some) for name, some in inputs.items()}
    whole = sum(sizes.values())
    report(f"plan of {recipe.out}: {sum(map(len, inputs.values())):,} inputs, {shown_bytes(whole)}")
    times = {n: seconds * max(size / max(whole, 1), 0.1) for n, size in sizes.items()}
    tokenizer = _tokenizer(recipe, inputs, times, report)
    samples = {name: sample(recipe, name, inputs[name], tokenizer, times[name]) for name in inputs}
    if not any(one.counts["kept"] for one in samples.values()):
        raise Refused(f"{recipe.out}: no document of the sample is kept; {_drops(samples, sizes)}")
    documents = {n: s.documents / max(s.bytes, 1) * sizes[n] for n, s in samples.items()}
    report(_sources(inputs, sizes, samples, documents))
    report(f"dropped, of all documents: {_drops(samples, documents)}")
    report("  duplicates come on top: a sample shows few of them")
    _needs(recipe, work, tokenizer, samples, documents, report)


def sample(
    recipe: Recipe, source: str, inputs: Sequence[Input], tokenizer: Tokenizer, seconds: float
) -> Sample:
    """Some inputs of one source through what a build does with them, for about so long."""
    found = Sample()
    order = sorted(range(len(inputs)), key=lambda i: i * 0.6180339887 % 1)  # spread over all
    # what is imported and loaded at the first document is no part of the work
    for _ in _texts(recipe, source, Meter(inputs[order[0]], 0, 0), Counter()):
        break
    began, cpu = time.monotonic(), time.process_time()
    for number, place in enumerate(order):
        now = time.monotonic()
        left = seconds - (now - began)
        if number and left < 0:
            break
        until = now + max(seconds / SPREAD, left / (len(inputs) - number))
        # of one at least it must be known how much was read: a piece of a packed file is large
        meter = Meter(inputs[place], until, until if found.bytes else until + PATIENCE)
        _through(recipe, _texts(recipe, source, meter, found.counts), tokenizer, found.counts)
        size, documents = meter.known()
        found.inputs += 1
        found.text += meter.text
        found.bytes += size
        found.documents += documents
    if not found.bytes:  # read as it is, or so it is assumed
        found.bytes, found.documents = found.text, found.counts["read"]
    found.seconds = time.process_time() - cpu
    return found


def _texts(recipe: Recipe, source: str, meter: Meter, counts: Counter) -> Iterator[Document]:
    bundle = Bundle(0, source, (replace(meter.input, read=meter.documents),))
    return passed(bundle, recipe, counts)


def _through(
    recipe: Recipe, texts: Iterator[Document], tokenizer: Tokenizer, counts: Counter
) -> None:
    """Tokenize and fingerprint documents as a build does, and count them."""
    after = rules(recipe.filters, AFTER)
    dedup = find("data_tools.dedup", recipe.deduplicate) if recipe.deduplicate else None
    while batch := [document for _, document in zip(range(BATCH), texts, strict=False)]:
        encoded = tokenizer.encode([document.text for document in batch])
        for document, ids in zip(batch, encoded, strict=True):
            if dropped := tokens_dropped(ids, after):
                counts[DROP + dropped.reason] += 1
                continue
            counts["kept"] += 1
            counts["tokens"] += len(ids) + 1
            if dedup:
                dedup.fingerprint(document)


def _tokenizer(recipe: Recipe, inputs: dict, times: dict, report: Report) -> Tokenizer:
    """The recipe's, or one that is learnt from a sample and forgotten."""
    if recipe.tokenizer or recipe.tokenizer_file.exists():
        return Tokenizer.load(recipe.tokenizer_file)
    texts: list[str] = []
    for name, some in inputs.items():
        room = LEARN / len(inputs)
        for one in some:
            meter = Meter(one, time.monotonic() + times[name] / 4, time.monotonic() + times[name])
            for document in _texts(recipe, name, meter, Counter()):
                texts.append(document.text)
                room -= len(document.text)
                if room < 0:
                    break
            if room < 0:
                break
    report(f"{recipe.tokenizer_file}: not there yet; tokens are counted by one of the sample's")
    with tempfile.TemporaryDirectory() as folder:
        return train_tokenizer(texts, recipe.vocabulary, Path(folder) / "tokenizer.json")


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


def _sources(inputs: dict, sizes: dict, samples: dict, documents: dict) -> str:
    rows = [("source", "inputs", "size", "sampled", "documents", "kept", "tokens")]
    for name, one in samples.items():
        kept, tokens = (one.scaled(key, documents[name]) for key in ("kept", "tokens"))
        share = f"{one.inputs:,} inputs, {shown_bytes(one.bytes)}"
        numbers = [f"{n:,.0f}" for n in (documents[name], kept, tokens)]
        rows.append((name, f"{len(inputs[name]):,}", shown_bytes(sizes[name]), share, *numbers))
    return drawn(rows)


def _needs(
    recipe: Recipe,
    work: Sequence[Bundle],
    tokenizer: Tokenizer,
    samples: dict[str, Sample],
    documents: dict[str, float],
    report: Report,
) -> None:
    """Time, memory and disk."""
    each = {n: s.seconds / max(s.counts["read"], 1) for n, s in samples.items()}
    seconds = sum(each[name] * count for name, count in documents.items())
    counts = sorted({FEWEST, recipe.processes, 4, 16, 64, MOST})
    most = len(work)
    first, *others = [n for n in counts if n <= max(most, recipe.processes)]
    times = [f"{duration(seconds / first)} by {first} process"]
    times += [f"{duration(seconds / n)} by {n}" for n in others]
    report(f"time: {', '.join(times)}; there are {most:,} parts to share")
    kept = sum(s.scaled("kept", documents[name]) for name, s in samples.items())
    tokens = sum(s.scaled("tokens", documents[name]) for name, s in samples.items())
    one = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    decide = kept * DECIDE if recipe.deduplicate else 0
    memory = (recipe.processes + 1) * one + decide
    report(
        f"memory: {shown_bytes(memory)}: {shown_bytes(one)} in each of processes = "
        f"{recipe.processes} and the one that starts them, {shown_bytes(decide)} to find duplicates"
    )
    prints = find("data_tools.dedup", recipe.deduplicate).FINGERPRINT.itemsize if decide else 0
    shards = tokens * np.dtype(dtype_for(tokenizer.size)).itemsize + kept * INDEX
    parts = shards + kept * prints
    place = next(p for p in (Path(recipe.out), *Path(recipe.out).absolute().parents) if p.exists())
    free = shutil.disk_usage(place).free
    report(
        f"disk: {shown_bytes(parts + shards)} until it is built (parts {shown_bytes(parts)}, "
        f"shards {shown_bytes(shards)}), {shown_bytes(shards)} after; {shown_bytes(free)} are free"
        + ("" if free > parts + shards else ": NOT ENOUGH")
    )
