"""The examples of one update again, one by one, with the terms of their loss: which is not finite.

One process, no DeepSpeed: what an example is, noise included, is a function of its sample id.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from januslm.config import Refused
from januslm.data import sealed
from januslm.interop import native
from januslm.training import history
from januslm.training.checkpoint import newest
from januslm.training.engine import full_weights
from januslm.training.job import Job
from januslm.training.run_dir import CONFIG, EXPORTS, exported_step

SHORT = 60  # characters of a text that are shown


@dataclass(frozen=True)
class Replayed:
    """One example of an update.  terms: the mean of each over its slots; a text is shortened."""

    sample: int
    rank: int | None  # which had it, where the history knows
    terms: dict[str, float]
    source: str
    target: str

    @property
    def wrong(self) -> list[str]:
        """The terms that are not finite."""
        return [name for name, value in self.terms.items() if not math.isfinite(value)]


def samples_of(folder: Path, step: int, batch: int) -> tuple[list[int], dict[int, int]]:
    """The sample ids of an update, and the rank of each, as far as the history knows it.

    A skipped update is recorded; of another it is reckoned from the log, or from `batch`.
    """
    skipped = [e for e in history.read(folder) if e["event"] == "skipped" and e["step"] == step]
    if skipped:
        first, last = skipped[-1]["samples"]
        parts = enumerate(skipped[-1]["ranks"])
        ranks = {i: r for r, spans in parts for a, b in spans for i in range(a, b + 1)}
        return list(range(first, last + 1)), ranks
    end = step * batch
    if (folder / "train.jsonl").exists():
        for _, line in sealed.lines(folder / "train.jsonl"):
            if line and line.get("step") == step:
                end = line["samples"]
    return list(range(end - batch, end)), {}


def load_weights(folder: Path, step: int, job: Job) -> str:
    """Put the newest weights from before an update into the job's module; where they come from.

    From a checkpoint or an export, whichever is the later.
    """
    found: list[tuple[int, str, Path]] = []
    for place in (folder / EXPORTS).glob("step-*"):
        found.append((int(place.name.removeprefix("step-")), "export", place))
    if (at := exported_step(folder)) is not None:
        found.append((at, "export", folder / "export"))
    checkpoint, _ = newest(folder / "checkpoints", before=step)
    if checkpoint:
        found.append((checkpoint.step, "checkpoint", checkpoint.folder))
    found = [one for one in found if one[0] < step]
    if not found:
        return "the run's beginning: none were kept from between it and this update"
    at, kind, place = max(found)
    if kind == "export":
        weights = place / "model.safetensors"
        native.fill(job.module.model, native.load(weights), weights)
    else:
        assert checkpoint is not None, kind
        job.module.load_state_dict(full_weights(checkpoint))
    return f"{place}, after step {at:,}"


@torch.no_grad()
def replayed(job: Job, samples: Sequence[int], ranks: dict[int, int]) -> Iterator[Replayed]:
    """Each example of an update by itself, without dropout."""
    module = job.module.eval()
    for sample in samples:
        ids = np.array([sample])
        [(source, target)] = job.read(ids)
        batch = job.batches(ids).to(job.device)
        _, sums = module(batch, dict.fromkeys(job.weights, 1.0))
        counts = batch.counts
        terms = {name: float(value) / max(counts.get(name, 0), 1) for name, value in sums.items()}
        texts = ("" if one is None else job.tokenizer.decode(one) for one in (source, target))
        yield Replayed(sample, ranks.get(sample), terms, *(_short(text) for text in texts))


def report(folder: Path, step: int, job: Job, batch: int) -> Iterator[str]:
    """Lines for people: where the weights come from, a line an example, and a verdict.

    batch: examples per update.  Refused where there is no such update, or no weights from before.
    """
    if not step > 0:
        raise Refused(f"STEP must be at least 1, got {step}")
    samples, ranks = samples_of(folder, step, batch)
    yield f"step {step:,}: {len(samples):,} examples, weights of {load_weights(folder, step, job)}"
    wrong = 0
    for one in replayed(job, samples, ranks):
        wrong += bool(one.wrong)
        where = "" if one.rank is None else f" rank {one.rank}"
        terms = " ".join(f"{name} {value:.4f}" for name, value in one.terms.items())
        verdict = f" NOT FINITE: {', '.join(one.wrong)}" if one.wrong else ""
        texts = " => ".join(text for text in (one.source, one.target) if text)
        yield f"sample {one.sample:,}{where} | {terms} |{verdict} {texts}"
    yield f"{wrong:,} of {len(samples):,} examples have terms that are not finite"


def settings(folder: Path) -> dict:
    """What the run's config.json says, or Refused."""
    return sealed.read(folder / CONFIG)


def _short(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= SHORT else f"{text[: SHORT - 3]}..."
