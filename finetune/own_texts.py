"""Texts of one's own through a trained model: `generate RUN --input FILE --output FILE`, for pipes.

stdout carries predictions and nothing else; what is said goes to stderr.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import IO, TYPE_CHECKING

from finetune import decode, text_files
from finetune.text_files import STREAM, Texts
from januslm.cli.command import warn
from januslm.cli.progress import Progress
from januslm.config import Refused
from januslm.data import atomic
from januslm.data.token_pairs import sources
from januslm.inference import request
from januslm.interop.export_folder import ExportFacts, read_facts

if TYPE_CHECKING:  # it imports torch
    from januslm.inference.trained_model import TrainedModel

PORTION = 32  # batches that are sorted by length together, then written
BROKEN_PIPE = 141  # what a shell says of a program whose reader has gone
INTO = "prediction"


def arguments(known: argparse.ArgumentParser) -> None:
    """The options that are for texts of one's own."""
    own = known.add_argument_group("texts of your own")
    own.add_argument("--input", metavar="FILE", help="a file of texts, or - for stdin")
    own.add_argument(
        "--format",
        help=f"{', '.join(text_files.KINDS)} (default: as the file is called, else lines)",
    )
    own.add_argument("--column", help=f"which holds the text (default: {text_files.COLUMN})")
    own.add_argument("--into", help=f"the column to write (default: {INTO})")


def refuse_options(options: argparse.Namespace) -> None:
    """Refuse, where a task's texts are decoded, what is for one's own."""
    for name in ("format", "column", "into"):
        if getattr(options, name) is not None:
            raise Refused(f"--{name} is for texts of your own: name them with --input")


def generate(options: argparse.Namespace) -> int:
    """Decode the texts of --input; returns the exit code."""
    decode.check(options)
    for name in ("split", "task", "data", "verify"):
        if getattr(options, name):
            raise Refused(f"--{name} is of a task's texts, not of --input")
    facts, given = read_facts(options.run), decode.given(options)
    settings = request.settings(facts, options.algorithm, given, request.usual(facts))
    kind = text_files.kind_of(options.input, options.format)
    into, out = options.into or INTO, options.output or STREAM
    _check_output(out, kind)
    texts = text_files.read(options.input, kind, options.column)
    texts = Texts(texts.kind, texts.column, texts.rows[: options.limit])
    text_files.check_into(texts, into)
    arrays, cut = sources(texts.texts, facts.tokenizer, request.limits(facts).source)
    if cut and options.longer == "refuse":
        raise Refused(
            f"{options.input}: {len(cut)} of {len(arrays)} texts, number {cut[0] + 1} the first, "
            f"are longer than the {request.limits(facts).source} tokens the model was trained for"
        )
    warn(request.notes(facts, options.algorithm, given))
    try:
        with _sink(out) as file:
            counts = _decode(facts, options, settings, texts, arrays, into, file)
    except BrokenPipeError:  # the reader, `head` perhaps, has enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return BROKEN_PIPE
    print(_summary(options.algorithm, counts, len(cut)), file=sys.stderr)
    return 0


def _check_output(out: str, kind: str) -> None:
    if out == STREAM:
        return
    if text_files.kind_of(out, None) not in (kind, "lines"):
        raise Refused(f"{out}: the texts come as {kind} and go out as {kind}")
    decode.check_writable(Path(out))


@contextmanager
def _sink(out: str) -> Iterator[IO[str]]:
    """A file, which is there when all of it is; or stdout."""
    if out != STREAM:
        with atomic.plain(out) as file:
            yield file
        return
    sys.stdout.reconfigure(encoding="utf-8", newline="\n")  # type: ignore[union-attr]
    yield sys.stdout
    sys.stdout.flush()


def _decode(
    facts: ExportFacts,
    options: argparse.Namespace,
    settings: dict,
    texts: Texts,
    arrays: list,
    into: str,
    file: IO[str],
) -> Counter:
    """Portion by portion, each row where it stood; an empty text gets an empty prediction."""
    from januslm.inference import generator

    model, decoder = decode.opened(facts, options)
    way = decode.calls({options.algorithm: settings})
    progress, counts = Progress("decoded", len(arrays), "texts"), Counter(texts=len(arrays))
    file.write(text_files.heading(texts, into))
    size = PORTION * options.batch
    for start in range(0, len(arrays), size):
        rows = texts.rows[start : start + size]
        full = [i for i, row in enumerate(rows) if row[texts.column].strip()]
        found: list[tuple[str, list[dict]]] = [("", [])] * len(rows)
        if full:
            mine, special = [arrays[start + i] for i in full], model.tokenizer.special
            tick = partial(_tick, progress, start)
            done = generator.write(decoder, way, mine, special, options.batch, tick)
            made = done[options.algorithm]
            for i, output in zip(full, made.outputs, strict=True):
                found[i] = _said(model, output)
            counts.update(tokens=made.tokens, passes=round(made.passes * len(full)))
            counts["ms"] += round(1000 * made.seconds)
        counts["empty"] += len(rows) - len(full)
        for row, (text, others) in zip(rows, found, strict=True):
            file.write(text_files.with_column(texts, row, into, text, others))
        file.flush()
    progress.end()
    return counts


def _tick(progress: Progress, before: int, done: int) -> None:
    progress.show(before + done)


def _said(model: TrainedModel, output) -> tuple[str, list[dict]]:
    """The text, and the further ones with their scores."""
    from januslm.inference import generator

    others = [
        {INTO: generator.text(model.tokenizer, one), "score": one.score} for one in output.others
    ]
    return generator.text(model.tokenizer, output), others


def _summary(algorithm: str, counts: Counter, cut: int) -> str:
    """What was done and what it cost, for people."""
    written = max(counts["texts"] - counts["empty"], 1)
    line = (
        f"{algorithm}: {counts['texts']:,} texts, {counts['tokens']:,} tokens, "
        f"{counts['passes'] / written:.1f} passes a text, {counts['ms'] / written:.1f} ms a text"
    )
    line += f" | {cut:,} cut" if cut else ""
    return line + (f" | {counts['empty']:,} empty, left empty" if counts["empty"] else "")
