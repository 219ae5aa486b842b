"""Texts written now by a run's exported model, with what each pass of a way has left."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from finetune.evaluation.predictions import Predictions
from finetune.side_by_side import FAINT, NAMES, NEW, PLAIN, Segment, pass_segments
from finetune.write import chosen
from januslm.config import Refused
from januslm.inference import request
from januslm.interop.export_folder import ExportFacts, read_facts
from januslm.launch.commands import need

if TYPE_CHECKING:  # they import torch
    from januslm.inference.generator import Generated
    from januslm.inference.trained_model import TrainedModel

OF_STYLE = {PLAIN: "", NEW: "new", FAINT: "hidden"}  # how `write` shows them, and the page's names


@dataclass(frozen=True)
class Step:
    """What a pass has left: texts, each with "", new, hidden, draft or accepted."""

    label: str
    pieces: list[Segment]


@dataclass(frozen=True)
class Way:
    """How one way wrote a text."""

    name: str
    algorithm: str
    cost: str  # passes and time
    steps: list[Step]


@dataclass(frozen=True)
class Example:
    """A text and what every way made of it."""

    name: str
    source: str
    reference: str
    ways: list[Way]


@dataclass
class Written:
    """Those of one run.  notes: what was left out, and why."""

    examples: list[Example] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


Text = tuple[str, str, str]  # its name, the source, a reference or ""


def of(
    folder: Path, known: Sequence[Predictions], count: int, iterations: int, threads: int | None
) -> Written:
    """Never refused: what cannot be written is among the notes.  known: predictions of the run."""
    if not count:
        return Written(notes=["Examples were not asked for (--examples 0)."])
    try:
        need("torch")
        facts = read_facts(folder)
        ways, notes = chosen(facts, iterations)
        texts = _texts(folder, facts, known, count)
        print(f"{folder}: {len(texts)} texts are written", file=sys.stderr, flush=True)
        return Written(list(_written(facts, ways, texts, threads)), notes)
    except (Refused, OSError) as error:
        return Written(notes=[f"No examples: {error}"])


def _texts(
    folder: Path, facts: ExportFacts, known: Sequence[Predictions], count: int
) -> list[Text]:
    """Of the run's predictions, evenly spread; else the first of the validation set."""
    if known:
        run = max(known, key=lambda one: len(one.ids))
        total = len(run.ids)
        places = sorted({(2 * n + 1) * total // (2 * count) for n in range(count)})
        first = [(one or [""])[0] for one in run.references]
        return [(run.ids[i], run.sources[i], first[i]) for i in places]
    if not facts.about.get("task"):
        raise Refused(f"{folder} was not trained on a task, so there is nothing to ask it")
    trained = request.find(folder)
    pairs = islice(trained.task.read(trained.root, "valid"), count)
    return [(pair.id, pair.source, pair.targets[0] if pair.targets else "") for pair in pairs]


def _written(
    facts: ExportFacts, ways: dict[str, dict], texts: Sequence[Text], threads: int | None
) -> Iterator[Example]:
    import torch

    from januslm.inference import trained_model

    torch.set_num_threads(threads or torch.get_num_threads())
    tracer = Tracer(trained_model.opened(facts), ways)
    tracer.ways_of(texts[0][1])  # the first passes take longer than all others
    for name, source, reference in texts:
        yield Example(name, source, reference, tracer.ways_of(source))


class Tracer:
    """Has a text written in each way, one text at a time, and notes what passes leave."""

    def __init__(self, model: TrainedModel, ways: dict[str, dict]):
        self.model, self.ways = model, ways
        self.decoder = model.incremental()

    def ways_of(self, text: str) -> list[Way]:
        """As many as the model has been taught, in the order of NAMES."""
        from januslm.data.token_pairs import sources

        most = request.limits(self.model.facts).source
        [array], _ = sources([text], self.model.tokenizer, most)
        ar = self._made("greedy", array, {}) if "greedy" in self.ways else None
        found = []
        for name in self.ways:
            steps: list[Step] = []
            watch = {"mask_predict": self._filling, "speculative": self._verifying}.get(name)
            made = ar if ar and name == "greedy" else self._made(name, array, {})
            if watch:
                self._made(name, array, {"watch": watch(steps)})
            final = self._text(made)
            if not steps or _joined(steps[-1].pieces) != " ".join(final.split()):
                steps.append(Step("text" if not steps else "chosen length", [(final, "")]))
            found.append(Way(NAMES[name], name, _cost(made, ar, name), steps))
        return found

    def _made(self, name: str, array, more: dict) -> Generated:
        from functools import partial

        from januslm import registry
        from januslm.inference import generator

        find = registry.find(request.ALGORITHMS, name)
        given = self.ways[name] | more
        # What would be chosen by speed is as where it is watched, so that the passes are the same.
        watched = getattr(find, "WATCHED", {}).items()
        given |= {key: value for key, value in watched if not given.get(key)}
        way = partial(find.decode, **given)
        special = self.model.tokenizer.special
        return generator.write(self.decoder, {name: way}, [array], special, 1)[name]

    def _text(self, made: Generated) -> str:
        from januslm.inference import generator

        return generator.text(self.model.tokenizer, made.outputs[0])

    def _filling(self, steps: list[Step]) -> Callable:
        """A watch of NAR."""

        from januslm.inference import passes

        def watch(templates, again) -> None:
            shown = pass_segments(self.model.tokenizer, templates, again)
            pieces = passes.runs((text, OF_STYLE[style]) for text, style in shown)
            steps.append(Step(f"pass {len(steps) + 1}", list(pieces)))

        return watch

    def _verifying(self, steps: list[Step]) -> Callable:
        """A watch of speculative: words of the draft that AR agreed to, its own, what is left."""

        from januslm.inference import passes

        def watch(texts) -> None:
            [text] = texts
            pieces = passes.runs(passes.verified(self.model.tokenizer, text, first=not steps))
            label = f"round {len(steps)}: {text.right} of the draft" if steps else "draft"
            steps.append(Step(label, list(pieces)))

        return watch


def _joined(pieces: Sequence[Segment]) -> str:
    return " ".join("".join(text for text, _ in pieces).split())


def _cost(made: Generated, ar: Generated | None, name: str) -> str:
    """9 passes, 12.0 ms, 1.7x AR's speed, AR's words."""
    passes = made.outputs[0].passes
    parts = [f"{passes} pass{'es' * (passes != 1)}", f"{1000 * made.seconds:.1f} ms"]
    if ar is not None and made is not ar:
        parts.append(f"{ar.seconds / made.seconds:.1f}\u00d7 AR's speed")
        same = made.outputs[0].tokens.tolist() == ar.outputs[0].tokens.tolist()
        if name == "speculative":
            parts.append("AR's words" if same else "not AR's words (a near tie)")
    return ", ".join(parts)
