"""Validation texts that a model writes, with what each pass has changed, as markdown for boards."""

import html
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch

from januslm.data.tokenizer import Tokenizer
from januslm.decoding import Output, greedy, mask_predict, speculative
from januslm.inference import passes
from januslm.inference.incremental import IncrementalDecoder
from januslm.inference.passes import ACCEPTED, DRAFT, HIDDEN, NEW, OLD, Piece
from januslm.layout import Example

ITERATIONS = 4  # of NAR
STYLE = {OLD: "", NEW: "**", ACCEPTED: "**", DRAFT: "*"}
HOLE, GAP = "\0", "\\_"  # in place of a word that is hidden again
LEGEND = (
    "**bold**: written, or taken over from the draft, in this pass; `_`: hidden again; *italic*: "
    "a draft that is not verified yet"
)

Row = tuple[str, str]  # way and pass, text


@dataclass(frozen=True)
class Samples:
    """Writes a few texts one by one in every way that the objective has taught."""

    decoder: IncrementalDecoder
    tokenizer: Tokenizer
    knows_lengths: bool  # else each text's own is given, as pretraining does not teach them

    def page(self, examples: Sequence[Example]) -> str:
        """A paragraph for each text, a line for each pass."""
        parts = [LEGEND]
        for number, example in enumerate(examples, 1):
            rows = [
                *([("source", self._plain(example.source))] if len(example.source) else []),
                ("target", self._plain(example.target)),
                *self._rows(example),
            ]
            # A table would break labels inside words where texts are long.
            lines = (f"`{label}` {text}" for label, text in rows)
            parts += [f"#### {number}", "  \n".join(lines)]
        return "\n\n".join(parts)

    def _rows(self, example: Example) -> Iterator[Row]:
        objective, most = self.decoder.objective, max(len(example.target), 1)
        one, special = [example.source], objective.special
        if objective.ar_read is not None:
            [out] = greedy.decode(self.decoder, one, special, max_length=most)
            yield f"AR, {out.passes} passes", self._plain(out.tokens)
        if objective.template is None:
            return
        yield from self._filled(example)
        if objective.ar_read is not None and self.knows_lengths:
            yield from self._verified(example, most)

    def _filled(self, example: Example) -> Iterator[Row]:
        """NAR: one length, likeliest or given, and the words that each pass fills in."""
        made: list[str] = []

        def watch(templates, again) -> None:
            made.append(marked(passes.filled(self.tokenizer, templates, again)))

        name = "NAR" if self.knows_lengths else "NAR, length given,"
        self._nar(example, watch)
        for number, text in enumerate(made, 1):
            yield f"{name} pass {number}", text

    def _nar(self, example: Example, watch: mask_predict.Watch) -> list[Output]:
        one, special = [example.source], self.decoder.objective.special
        if self.knows_lengths:
            return mask_predict.decode(
                self.decoder, one, special, watch, iterations=ITERATIONS, length_beam=1
            )
        known = torch.tensor([[len(example.target)]])
        hide = mask_predict.watched(mask_predict.schedule(ITERATIONS), watch)
        with torch.inference_mode():
            state = self.decoder.start(one)
            return mask_predict.write(self.decoder, state, special, known, hide, True)

    def _verified(self, example: Example, most: int) -> Iterator[Row]:
        """Speculative: the draft, and what AR agrees to in each pass."""
        made: list[tuple[str, str]] = []

        def watch(texts) -> None:
            [text] = texts
            first = not made
            label = "draft" if first else f"{len(made)}: {text.right} of it"
            made.append((label, marked(passes.verified(self.tokenizer, text, first))))

        special = self.decoder.objective.special
        speculative.decode(self.decoder, [example.source], special, watch, max_length=most)
        for label, text in made:
            yield f"speculative {label}", text

    def _plain(self, tokens) -> str:
        return escaped(" ".join(self.tokenizer.decode(tokens).split()))


def marked(pieces: Iterable[Piece]) -> str:
    """Pieces in markdown; a gap for each token that is hidden again, whatever it was."""
    parts = []
    for text, kind in passes.runs(map(_hollow, pieces)):
        parts.append(f"{STYLE[kind]}{escaped(text)}{STYLE[kind]}")
    return " ".join("".join(parts).replace(HOLE, GAP).split())


def _hollow(piece: Piece) -> Piece:
    text, kind = piece
    return (" " * text[:1].isspace() + HOLE, OLD) if kind == HIDDEN else piece


def escaped(text: str) -> str:
    """Text that means nothing to markdown or HTML, in one line."""
    shown = html.escape(text.replace("\n", " "), quote=False)
    return re.sub(r"([\\`*_{}\[\]()#+\-.!|])", r"\\\1", shown)
