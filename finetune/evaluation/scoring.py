"""Predictions scored: by a task's metrics, in its post-processing modes, beside its baselines."""

import inspect
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from types import ModuleType

import numpy as np

from finetune.evaluation.facts import Facts
from finetune.evaluation.predictions import Predictions
from januslm.config import Refused, assignments
from januslm.data.tasks import Task
from januslm.metrics import _bootstrap
from januslm.registry import find, options

PLUS_MINUS = "\u00b1: half of the interval that holds 95 % of 2,000 resampled test sets"


@dataclass(frozen=True)
class Metric:
    """A metric of januslm/metrics with the options it is called with."""

    name: str
    module: ModuleType
    options: dict = field(default_factory=dict)
    asked: bool = False  # on the command line: a number then says all that it was called with

    def score(self, predictions: list[str], references: list[list[str]]) -> dict[str, float]:
        """Its numbers by the names of its columns."""
        scores = self.module.score(predictions, references, **self.options)
        return {name + self.suffix: value for name, value in scores.items()}

    @property
    def suffix(self) -> str:
        """What follows each name: the mode, and what else was asked for, unless it is usual."""
        usual = inspect.signature(self.module.score).parameters
        shown = {
            key: value
            for key, value in self.options.items()
            if (self.asked or key == "mode") and value != usual[key].default
        }
        return "".join(
            f" {key if value is True else value if isinstance(value, str) else f'{key}={value}'}"
            for key, value in shown.items()
        )


def metrics(task: Task, named: Sequence[str]) -> list[Metric]:
    """The metrics a task names, or those of the command line: "bleu", "bleu:mode=compound"."""
    if not named:
        given = getattr(task, "OPTIONS", {})
        return [_metric(name, given.get(name, {})) for name in task.METRICS]
    return asked(named)


def asked(texts: Sequence[str]) -> list[Metric]:
    """The metrics of the command line: NAME or NAME:option=value,option=value."""
    found = []
    for text in texts:
        name, _, rest = text.partition(":")
        given = assignments([part for part in rest.split(",") if part], "mode=compound")
        metric = replace(_metric(name, given), asked=True)
        if hasattr(metric.module, "missing") and (why := metric.module.missing()):
            raise Refused(why)
        found.append(metric)
    return found


def named(task: Task, texts: Sequence[str]) -> list[Metric]:
    """The metrics of a run file: NAME, with the options that its task has for it, or as `asked`."""
    usual = getattr(task, "OPTIONS", {})
    return [_metric(text, usual[text]) if text in usual else asked([text])[0] for text in texts]


def columns(chosen: Sequence[Metric]) -> list[str]:
    """The names of their numbers."""
    return [name for metric in chosen for name in metric.score(["a b c d"], [["a b c d"]])]


def able(chosen: Sequence[Metric]) -> tuple[list[Metric], list[str]]:
    """The metrics whose optional programs are installed here, and a line on each of the others."""
    lacking = {m.name: m.module.missing() for m in chosen if hasattr(m.module, "missing")}
    lines = [f"left out: {why}" for why in lacking.values() if why]
    return [m for m in chosen if not lacking.get(m.name)], lines


def _metric(name: str, given: dict) -> Metric:
    module = find("januslm.metrics", name)
    known = inspect.signature(module.score).parameters
    chosen = options(module.score, given, f"metric {name}")
    return Metric(name, module, {key: chosen[key] for key in known if key in given})


def modes(task: Task) -> tuple[str, ...]:
    """("official", "plain") where the benchmark rewrites predictions before it scores them."""
    return ("official", "plain") if hasattr(task, "tidy") else ("plain",)


def texts(run: Predictions, task: Task, mode: str) -> tuple[list[str], list[list[str]]]:
    """Predictions and references as the metrics are to see them.

    A task may have tidy(prediction, mode), tidy_reference(reference, mode) and key(source): lines
    with one key become one, with the references of all and, as in the official scripts, the
    prediction of the last.
    """
    ours, theirs = run.predictions, run.references
    if hasattr(task, "tidy"):
        ours = [task.tidy(text, mode) for text in ours]
    if hasattr(task, "tidy_reference"):
        theirs = [[task.tidy_reference(text, mode) for text in several] for several in theirs]
    if not hasattr(task, "key"):
        return ours, theirs
    grouped: dict[str, tuple[str, list[str]]] = {}
    for source, prediction, several in zip(run.sources, ours, theirs, strict=True):
        key = task.key(source)
        grouped[key] = (prediction, grouped.get(key, ("", []))[1] + several)
    return [one for one, _ in grouped.values()], [several for _, several in grouped.values()]


def scores(run: Predictions, task: Task, chosen: Sequence[Metric], mode: str) -> dict[str, float]:
    """All numbers of one run in one mode; Refused where two of them have one name."""
    ours, theirs = texts(run, task, mode)
    found: dict[str, float] = {}
    for metric in chosen:
        made = metric.score(ours, theirs)
        if twice := found.keys() & made.keys():
            names = ", ".join(sorted(twice))
            raise Refused(f"--metric: {metric.name} and one before it both give {names}; one only")
        found |= made
    return found


def halves(run: Predictions, task: Task, chosen: Sequence[Metric], mode: str) -> dict[str, float]:
    """Half the 95 % interval of each score that is made of lines, of enough of them."""
    ours = texts(run, task, mode)
    if len(ours[0]) < _bootstrap.FEW:
        return {}
    return {
        one.name + metric.suffix: one.half
        for metric in chosen
        if hasattr(metric.module, "each")
        for one in _bootstrap.intervals(metric.module, *ours, options=metric.options)
    }


def draws(
    run: Predictions, task: Task, chosen: Sequence[Metric], mode: str, seed: int
) -> dict[str, np.ndarray]:
    """The same scores, float64 [1 + draws] each: of the test set itself, then of resampled ones."""
    ours = texts(run, task, mode)
    if len(ours[0]) < _bootstrap.FEW:
        return {}
    return {
        name + metric.suffix: scores
        for metric in chosen
        if hasattr(metric.module, "each")
        for name, scores in _bootstrap.drawn(
            metric.module, *ours, options=metric.options, seed=seed
        ).items()
    }


def signatures(run: Predictions, task: Task, chosen: Sequence[Metric], mode: str) -> list[str]:
    """A line for each metric that can say in full what it has computed."""
    ours = texts(run, task, mode)
    return [
        f"{m.name}: {m.module.signature(*ours, **m.options)}"
        for m in chosen
        if hasattr(m.module, "signature")
    ]


def baselines(run: Predictions, task: Task) -> list[Predictions]:
    """What a task's BASELINES make of the sources, as if algorithms had written it."""
    return [
        replace(
            run,
            facts=Facts(task=run.facts.task, label=name),
            predictions=[baseline(source) for source in run.sources],
        )
        for name, baseline in getattr(task, "BASELINES", {}).items()
    ]
