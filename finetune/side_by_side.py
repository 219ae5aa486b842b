"""One sentence written several ways, under one another on a terminal: each NAR pass, each time."""

from __future__ import annotations

import os
import shutil
import sys
import time
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from itertools import groupby
from typing import TYPE_CHECKING

from januslm.config import Refused

if TYPE_CHECKING:  # they import torch
    from torch import Tensor

    from januslm.data.tokenizer import Tokenizer
    from januslm.decoding._templates import Templates
    from januslm.inference.generator import Generated
    from januslm.inference.trained_model import TrainedModel

NAMES = {
    "greedy": "AR",
    "mask_predict": "NAR",
    "speculative": "speculative",
    "draft": "draft",
}
MARGIN = max(map(len, NAMES.values())) + 2
NARROWEST = 20  # columns of text, however narrow the terminal is
HIDDEN = "_"  # in place of a word that is hidden again
PLAIN, NEW, FAINT = "", "\x1b[1m", "\x1b[2m"
RESET = "\x1b[0m"

Segment = tuple[str, str]  # a text and its style


class Screen:
    """Writes lines to stdout: labels in a margin, texts wrapped beside them."""

    def __init__(self, terminal: bool):
        plain = os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb"
        self.colours = terminal and not plain

    @property
    def width(self) -> int:
        """Columns of text: 80 less the margin where nothing says how wide it is."""
        return max(shutil.get_terminal_size().columns - MARGIN, NARROWEST)

    def put(self, label: str, segments: Iterable[Segment]) -> None:
        """A text of several styles; its first line has the label."""
        for line in wrapped(segments, self.width) or [[]]:
            body = "".join(self._styled(text, style) for text, style in line)
            sys.stdout.write(f"{label:{MARGIN}}{body}".rstrip() + "\n")
            label = ""
        sys.stdout.flush()

    def _styled(self, text: str, style: str) -> str:
        return f"{style}{text}{RESET}" if self.colours and style else text


class Writer:
    """Has one sentence at a time written in each way and shows how."""

    def __init__(self, model: TrainedModel, ways: dict[str, dict], screen: Screen):
        self.model, self.ways, self.screen = model, ways, screen
        self.decoder = model.incremental()

    def warm(self) -> None:
        """The first pass of each kind takes longer than all others: it is nobody's time."""
        [array], _ = self._tokens("a")
        for name in self.ways:
            self._made(name, array, {"iterations": 1} if name == "mask_predict" else {})

    def show(self, text: str) -> None:
        """Write a sentence in every way, pass by pass where there are passes to be seen."""
        [array], most = self._tokens(text)
        if most:
            self.screen.put("", [(f"(cut: the model was trained for {most} tokens)", FAINT)])
        first: Generated | None = None
        for name in self.ways:
            if name == "mask_predict":
                made, seconds = self._watched(array)
            else:
                made = self._made(name, array, {})
                seconds = made.seconds
                self.screen.put(NAMES[name], self._text(made))
            line = _cost(made, seconds, first, name)
            self.screen.put("", [(line, FAINT)])
            first = made if name == "greedy" else first

    def _tokens(self, text: str) -> tuple[list, int]:
        """The sentence's tokens, and the most there may be if it was cut, else 0."""
        from januslm.data.token_pairs import sources
        from januslm.inference import request

        most = request.limits(self.model.facts).source
        arrays, cut = sources([text], self.model.tokenizer, most)
        return arrays, most if cut else 0

    def _made(self, name: str, array, more: dict) -> Generated:
        from januslm import registry
        from januslm.inference import generator
        from januslm.inference.request import ALGORITHMS

        way = partial(registry.find(ALGORITHMS, name).decode, **(self.ways[name] | more))
        special = self.model.tokenizer.special
        return generator.write(self.decoder, {name: way}, [array], special, 1)[name]

    def _watched(self, array) -> tuple[Generated, float]:
        """NAR with a line for each pass; its time is without that of drawing."""
        drawing, passes, last = 0.0, 0, ""

        def watch(templates: Templates, again: Tensor) -> None:
            nonlocal drawing, passes, last
            began, passes = time.perf_counter(), passes + 1
            shown = list(pass_segments(self.model.tokenizer, templates, again))
            last = _joined(shown)
            self.screen.put(_label("NAR" if passes == 1 else "", passes), shown)
            drawing += time.perf_counter() - began

        made = self._made("mask_predict", array, {"watch": watch})
        if (best := self._text(made)) and _joined(best) != last:  # chosen by other scores
            self.screen.put("     chosen", best)
        return made, made.seconds - drawing

    def _text(self, made: Generated) -> list[Segment]:
        from januslm.inference import generator

        return [(generator.text(self.model.tokenizer, made.outputs[0]), PLAIN)]


def pass_segments(tokenizer: Tokenizer, templates: Templates, again: Tensor) -> Iterator[Segment]:
    """What a pass has left of the first sentence's best template: bold is new, `_` hidden again."""
    from januslm.inference import passes

    for text, kind in passes.filled(tokenizer, templates, again):
        if kind == passes.HIDDEN:
            yield (" " if text[:1].isspace() else "") + HIDDEN, FAINT
        else:
            yield text, NEW if kind == passes.NEW else PLAIN


def letters(tokenizer: Tokenizer, tokens: Sequence[int]) -> Iterator[tuple[str, list[int]]]:
    """See januslm.inference.passes."""
    from januslm.inference import passes

    return passes.letters(tokenizer, tokens)


def wrapped(segments: Iterable[Segment], width: int) -> list[list[Segment]]:
    """Lines of at most `width` columns, broken at spaces, inside a word only where it is longer.

    What is no letter of a line, such as a control character, becomes a space; no two in a row.
    """
    cells = [
        (letter if letter.isprintable() else " ", style)
        for text, style in segments
        for letter in text
    ]
    lines: list[list[Segment]] = []
    line: list[Segment] = []
    for blank, group in groupby(cells, lambda cell: cell[0] == " "):
        word = list(group)
        if blank:
            line += word[:1] if line else []
            continue
        if line and columns(line) + columns(word) > width:
            lines, line = [*lines, line], []
        for cell in word:
            if columns([*line, cell]) > width:
                lines, line = [*lines, line], []
            line.append(cell)
    lines += [line] if line else []
    return [_runs(line) for line in lines]


def columns(cells: Iterable[Segment]) -> int:
    """How wide letters are on a terminal: two columns for East Asia's, none for marks."""
    return sum(
        0 if unicodedata.combining(one) else 1 + (unicodedata.east_asian_width(one) in "WF")
        for text, _ in cells
        for one in text
    )


def _runs(cells: Sequence[Segment]) -> list[Segment]:
    """Neighbours of one style as one text; no space at the end."""
    while cells and cells[-1][0] == " ":
        cells = cells[:-1]
    groups = groupby(cells, lambda cell: cell[1])
    return [("".join(letter for letter, _ in group), style) for style, group in groups]


def _joined(segments: Iterable[Segment]) -> str:
    return " ".join("".join(text for text, _ in segments).split())


def _label(name: str, number: int) -> str:
    return f"{name:{MARGIN - 5}}{number:3}"


def _cost(made: Generated, seconds: float, ar: Generated | None, name: str) -> str:
    """9 passes, 12.0 ms: 1.7x AR's speed, AR's words."""
    passes = made.outputs[0].passes
    line = f"{passes} pass{'es' * (passes != 1)}, {1000 * seconds:.1f} ms"
    if ar is None:
        return line
    line += f": {ar.seconds / seconds:.1f}x AR's speed"
    if name in ("speculative", "draft"):
        same = made.outputs[0].tokens.tolist() == ar.outputs[0].tokens.tolist()
        line += ", AR's words" if same else ", not AR's words (a near tie)"
    return line


def read_lines(stream) -> Iterator[str]:
    """The lines of a pipe as they come; Refused, with the line, for what is not UTF-8."""
    number = 0
    for number, raw in enumerate(stream, 1):
        try:
            text = raw.decode("utf-8-sig" if number == 1 else "utf-8")
        except UnicodeDecodeError as error:
            byte = raw[error.start]
            raise Refused(
                f"stdin:{number}: not UTF-8 text: {error.reason} 0x{byte:02x}, byte "
                f"{error.start + 1}"
            ) from None
        yield text.rstrip("\r\n")
    if not number:
        raise Refused("stdin: has no texts")
