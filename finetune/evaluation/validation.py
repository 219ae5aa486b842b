"""Scores during training: validation texts that the model writes, scored as `evaluate` does.

The first texts of the validation split, in its order, so that `generate RUN --split valid --limit
N` and `evaluate` give the numbers of the last validation again.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from finetune.evaluation import scoring
from finetune.evaluation.facts import Facts
from finetune.evaluation.predictions import Predictions
from januslm import registry
from januslm.config import Refused, setting
from januslm.data.tasks import Task, name_of
from januslm.data.text_pairs import Pair
from januslm.data.token_pairs import Limits, sources
from januslm.data.tokenizer import Tokenizer
from januslm.inference import request
from januslm.inference.request import ALGORITHMS
from januslm.objective import Objective

if TYPE_CHECKING:  # it imports torch
    from januslm.model.transformer import Seq2Seq


@dataclass(frozen=True)
class ValidateSettings:
    """[validate]: scores of texts that the model writes during training."""

    # files of januslm/metrics/, as `evaluate --metric` has them: "bleu", "bleu:mode=compound"
    metrics: list[str] = field(default_factory=list)
    algorithm: str = "greedy"  # a file of januslm/decoding/
    options: dict = field(default_factory=dict)  # its options, over those of the task
    texts: int = setting(100, low=1)  # the first so many of the validation split are written
    batch: int = setting(16, low=1)  # texts written at once


@dataclass(frozen=True)
class Scoring:
    """[validate] of a run, found and checked; no text is read yet."""

    settings: ValidateSettings
    metrics: list[scoring.Metric]
    options: dict  # all of the algorithm's
    names: list[str]  # of the scores


def resolve(
    settings: ValidateSettings, task: Task, objective: Objective, where: str
) -> Scoring | None:
    """Refused, naming the key, for what cannot be decoded or scored; None without metrics."""
    where = f"{where}: validate"
    if not settings.metrics:
        return None
    try:
        metrics = scoring.named(task, settings.metrics)
        options = request.options_of(settings.algorithm, settings.options, task.DECODE)
        needs = registry.constant(ALGORITHMS, settings.algorithm, "NEEDS", ())
        request.check_ways(objective, needs)
    except Refused as error:
        raise Refused(f"{where}: {error}") from None
    if needs == ("all at once",) and "ce/length" not in objective.loss.weights:
        raise Refused(
            f"{where}: algorithm {settings.algorithm!r} must know how long texts are, and "
            "loss.weights has no ce/length"
        )
    return Scoring(settings, metrics, options, scoring.columns(metrics))


@dataclass
class TextScorer:
    """januslm.training.job.Scorer of a task.  untrained: the first look has nothing to score."""

    found: Scoring
    task: Task
    root: Path
    tokenizer: Tokenizer
    limits: Limits
    objective: Objective
    count: int  # of texts
    untrained: bool
    pairs: list[Pair] = field(default_factory=list)
    arrays: list[np.ndarray] = field(default_factory=list)

    @property
    def names(self) -> list[str]:
        """Of the scores."""
        return self.found.names

    def read(self) -> None:
        """The texts; for whoever is to decode them."""
        texts = self.task.read(self.root, "valid", skipped=Counter())
        self.pairs = list(islice(texts, self.count))
        most = self.limits.source
        self.arrays, _ = sources([p.source for p in self.pairs], self.tokenizer, most)

    def texts(self, step: int) -> int:
        """How many are written at this validation: what knows nothing yet writes to its limits."""
        return 0 if self.untrained and not step else self.count

    def scores(self, model: Seq2Seq, tick: Callable[[], None]) -> dict[str, float]:
        """The metrics of what the model writes now."""
        from januslm.inference import generator
        from januslm.inference.incremental import IncrementalDecoder

        settings = self.found.settings
        way = partial(registry.find(ALGORITHMS, settings.algorithm).decode, **self.found.options)
        decoder = IncrementalDecoder(model, self.objective, packed=True)
        special = self.tokenizer.special
        done = 0

        def ticks(now: int) -> None:
            nonlocal done
            for _ in range(now - done):
                tick()
            done = now

        made = generator.write(decoder, {"": way}, self.arrays, special, settings.batch, ticks)
        texts = [generator.text(self.tokenizer, output) for output in made[""].outputs]
        return self.scored(texts)

    def scored(self, texts: list[str]) -> dict[str, float]:
        """The same of texts that are written already."""
        facts = Facts(task=name_of(self.task), split="valid")
        ids, given = [p.id for p in self.pairs], [p.source for p in self.pairs]
        references = [list(p.targets) for p in self.pairs]
        run = Predictions(Path("validation"), facts, ids, given, texts, references)
        mode = scoring.modes(self.task)[0]
        return scoring.scores(run, self.task, self.found.metrics, mode)
