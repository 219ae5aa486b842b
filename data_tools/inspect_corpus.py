"""Looks at a finished corpus: is every byte as it was written, and what is in it."""

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from data_tools.counts import table
from data_tools.histograms import bars
from data_tools.histograms import lengths as lengths_of
from januslm.cli.progress import Progress
from januslm.config import Refused
from januslm.data.sampler import Sampler
from januslm.data.shards import MANIFEST, Address, Corpus, open_corpus, read_manifest
from januslm.data.tokenizer import Tokenizer

SHOWN = 20  # languages


def folders(path: str) -> list[Path]:
    """The corpora in a folder: itself, or its train and valid; Refused if there are none."""
    there = [
        folder
        for folder in (Path(path), Path(path) / "train", Path(path) / "valid")
        if (folder / MANIFEST).exists()
    ]
    if not there:
        read_manifest(path)  # says what is missing
    return there


def verify(path: str, tokenizer_file: str, report: Callable[[str], None]) -> None:
    """Hash every byte of the corpora in a folder; raises Refused at the first that is damaged."""
    wanted = Tokenizer.load(tokenizer_file).sha256 if tokenizer_file else None
    for folder in folders(path):
        corpus = open_corpus(folder, wanted, "lazy")
        names = [about["name"] for about in corpus.manifest["shards"]]
        progress = Progress(f"verify {folder}", len(names), "shards")
        for number, name in enumerate(names):
            progress.show(number, name)
            corpus.check(number)
        progress.end()
        report(
            f"{folder}: sound, {len(names)} shards, {corpus.documents:,} documents, "
            f"{corpus.tokens:,} tokens, every byte as it was written"
        )


def inspect(path: str, amount: int, tokenizer_file: str, report: Callable[[str], None]) -> None:
    """Counts, lengths and some documents as text, if a tokenizer is found."""
    for folder in folders(path):
        corpus = open_corpus(folder)
        about = corpus.manifest
        size = f"{corpus.documents:,} documents, {corpus.tokens:,} tokens"
        report(f"{folder}: {size} of {about['dtype']}")
        if "counters" in about:
            report(table(about["counters"], f"{folder / MANIFEST}: counters"))
        lengths = np.sort(corpus.lengths())
        marks = [int(lengths[int(q * (len(lengths) - 1))]) for q in (0, 0.05, 0.5, 0.95, 1)]
        report("tokens in a document, least/5 %/median/95 %/most: " + " / ".join(map(str, marks)))
        for title, rows in _histograms(about, lengths):
            report("\n".join([f"{title}:", *bars(rows)]))
        file = Path(tokenizer_file) if tokenizer_file else tokenizer_of(folder)
        if file is None:
            usual = folder.parent / "tokenizer.json"
            report(f"no text shown: {usual} is not there; --tokenizer FILE names another")
            continue
        tokenizer = Tokenizer.load(file)
        if tokenizer.sha256 != about["tokenizer"]:
            raise Refused(f"{file}: not the tokenizer of {folder}, whose is {about['tokenizer']}")
        order = Sampler([corpus.documents], [1], seed=0)
        for i in order.locate(np.arange(min(amount, corpus.documents)))[1]:
            report(f"--- document {i}\n{tokenizer.decode(corpus.document(int(i)))[:600]}")


def _histograms(about: dict, lengths: np.ndarray) -> Iterator[tuple[str, list]]:
    """(title, its rows): lengths; sources and languages, where there are several."""
    yield "documents by their tokens", lengths_of(lengths)
    counters, split = about.get("counters", {}), about.get("split")
    sources = [(name, one[split]) for name, one in counters.items() if split in one]
    if len(sources) > 1:
        yield f"documents by their source, in {split}", sources
    languages: Counter = Counter()
    for one in counters.values():
        languages.update(one.get("languages", {}))
    if languages:
        named = languages.most_common(SHOWN)
        rest = sum(languages.values()) - sum(number for _, number in named)
        rows = [*named, *([("others", rest)] if rest else [])]
        yield "documents by their language, all splits, duplicates too", rows


def folder_of(corpus: Corpus) -> Path:
    """Where a corpus lies here; Refused where it is read from an address."""
    if isinstance(corpus.folder, Address):
        raise Refused(f"{corpus.folder}: an address; fetch the corpus into a folder first")
    return corpus.folder


def tokenizer_of(folder: Path, sha256: str = "") -> Path | None:
    """The tokenizer file beside or in a corpus; with sha256, only if it is that one."""
    for place in (folder.parent / "tokenizer.json", folder / "tokenizer.json"):
        if place.is_file() and sha256 in ("", hashlib.sha256(place.read_bytes()).hexdigest()):
            return place
    return None
