"""Corpora from and to the token files of other projects, every byte and number checked."""

import glob
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from data_tools.inspect_corpus import folders
from data_tools.new_folder import new_folder, place
from data_tools.token_file import TokenFile
from januslm.cli.progress import Progress
from januslm.config import Refused
from januslm.data import atomic
from januslm.data.shard_writer import Writer, dtype_for, write_manifest
from januslm.data.shards import Shard, open_corpus
from januslm.data.tokenizer import Tokenizer
from januslm.registry import find

FORMATS = "data_tools.token_formats"
Report = Callable[[str], None]


def convert_from(
    kind: str, given: Sequence[str], out: str, tokenizer_file: str, report: Report
) -> None:
    """Write the corpus `out` of token files; raises Refused where they are not whole.

    given: their names with or without suffixes, folders that hold them, or patterns.
    """
    form = find(FORMATS, kind)
    stems = [stem for one in given for stem in _stems(one, form.SUFFIXES)]
    tokenizer = Tokenizer.load(tokenizer_file)
    opened = [form.read(stem) for stem in stems]  # all of them, before anything is written
    dtype, eos = dtype_for(tokenizer.size), tokenizer.special.eos
    shards, added = [], 0
    progress = Progress("convert", len(opened), "files")
    with new_folder(out) as aside:
        for number, one in enumerate(opened):
            progress.show(number, str(one.path))
            with Writer(aside, f"shard-{number:05d}", dtype, eos) as writer:
                added += _copy(one, writer, tokenizer.size)
                shards.append(writer.close())
        write_manifest(
            aside,
            shards,
            dtype=dtype,
            vocabulary=tokenizer.size,
            tokenizer=tokenizer.sha256,
            eos=eos,
            made_of=[{"format": kind, "file": stem.name} for stem in stems],
        )
        place(Path(tokenizer_file), aside / "tokenizer.json", copy=True)
    progress.end()
    documents, tokens = (
        sum(getattr(one, key) for one in shards) for key in ("documents", "tokens")
    )
    report(f"{out}: {documents:,} documents, {tokens:,} tokens of {len(opened):,} files")
    if added:
        report(f"{added:,} documents had no </s> at their end; it was added to each")


def _stems(given: str, suffixes: tuple[str, ...]) -> list[Path]:
    """The files that are meant, without suffixes, sorted; Refused if there are none."""
    main = suffixes[0]
    if os.path.isdir(given):
        found = glob.glob(os.path.join(glob.escape(given), f"*{main}"))
    else:
        base = given
        for suffix in sorted(suffixes, key=len, reverse=True):
            base = base.removesuffix(suffix)
        found = glob.glob(f"{base}{main}")
        if os.path.exists(f"{base}{main}"):
            found = [f"{base}{main}"]
    if not found:
        raise Refused(f"{given}: no {main} file there, nor a folder or pattern of some")
    return [Path(path.removesuffix(main)) for path in sorted(found)]


def _copy(one: TokenFile, writer: Writer, vocabulary: int) -> int:
    """Append all documents of a file; how many had no eos at their end, and have it now."""
    added = 0
    for tokens, lengths in one.blocks():
        if len(tokens) and not 0 <= int(tokens.min()) <= int(tokens.max()) < vocabulary:
            raise Refused(
                f"{one.path}: has ids from {tokens.min()} to {tokens.max()}, the tokenizer's are 0 "
                f"to {vocabulary - 1:,}: not the one it was made with"
            )
        ends = np.cumsum(lengths)
        last = np.full(len(lengths), -1, np.int64)
        last[lengths > 0] = tokens[ends[lengths > 0] - 1]
        missing = last != writer.eos
        tokens = np.asarray(tokens).astype(writer.dtype)
        if missing.any():
            tokens = np.insert(tokens, ends[missing], writer.eos)
            added += int(missing.sum())
        writer.copy(tokens, (lengths + missing).astype(np.int32))
    return added


def convert_to(kind: str, given: str, out: str, report: Report, copy: bool = False) -> None:
    """Write the corpora in a folder as token files, hard links where they are the same bytes."""
    form = find(FORMATS, kind)
    corpora = {folder: open_corpus(folder, verify="full") for folder in folders(given)}
    with new_folder(out) as aside:
        for folder, corpus in corpora.items():
            about, lengths = corpus.manifest, corpus.lengths() + 1
            split = "" if folder == Path(given) else f"{folder.name}-"
            first = 0
            for row in about["shards"]:
                shard = Shard(**row)
                stem = f"{split}{shard.name}"
                mine = lengths[first : first + shard.documents]
                first += shard.documents
                for name, content in form.files(stem, shard, mine, about).items():
                    if isinstance(content, bytes):
                        with atomic.durable(aside / name, "wb") as file:
                            file.write(content)
                    else:
                        place(folder / f"{shard.name}.{content}", aside / name, copy)
    for folder, corpus in corpora.items():
        size = f"{len(corpus.manifest['shards']):,} shards, {corpus.tokens:,} tokens"
        report(f"{out}: {kind} files of {folder}: {size}")
