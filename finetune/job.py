"""From a resolved run to what the trainer needs: the model, its loss, its pairs."""

from dataclasses import replace
from pathlib import Path

import torch

from finetune.evaluation.validation import TextScorer
from finetune.settings import ResolvedFinetuneRun
from januslm.data.token_pairs import Pairs, first, prepare, summary
from januslm.interop import start
from januslm.model.joint_loss import ModelWithLoss
from januslm.training import process
from januslm.training.checkpoint import on_rank0
from januslm.training.engine import World, read, sharder
from januslm.training.estimate import SAMPLES, Workload
from januslm.training.job import Job
from januslm.training.trainer import RunPlan


def build(resolved: ResolvedFinetuneRun, world: World) -> tuple[RunPlan, Job]:
    """The run's plan and its job in this process; rank 0 prints what they are."""
    run, objective = resolved.run, resolved.objective
    ds = process.spread(resolved.about["ds"], world)
    torch.manual_seed(run.train.seed)
    model = start.created(resolved.model, resolved.start, sharder(read(ds), world))
    train, valid = (_pairs(resolved, split, world.first) for split in ("train", "valid"))
    # Known only now: the same files under another path are the same run, other pairs are not.
    pairs = {"pairs": {"train": train.fingerprint}}
    about = resolved.about | {"data": resolved.about["data"] | pairs}
    job = Job(
        module=ModelWithLoss(model, objective.loss),
        objective=objective,
        tokenizer_file=resolved.tokenizer_file,
        tokenizer=resolved.tokenizer,
        read=train.read,
        read_valid=valid.read,
        valid_size=min(run.data.valid_samples, len(valid)),
        seed=run.train.seed,
        packing=run.packing,
        device=world.device,
        about=about,
        scorer=_scorer(resolved, len(valid)),
    )
    length = run.train.until(len(train))
    if world.first:
        passes = f"{length.steps * length.batch / len(train):.1f} epochs"
        note = _note(resolved)
        print(f"{length.steps:,} updates of {length.batch:,} pairs: {passes}{note}", flush=True)
        if note := resolved.tokenizer.note:
            print(f"{resolved.tokenizer_file}: {note}", flush=True)
    plan = RunPlan(Path(run.out), length, run.optimizer, run.schedule, ds, about)
    return plan, job


def workload(resolved: ResolvedFinetuneRun) -> Workload:
    """What `--dry-run` looks at: the first pairs, in the order of their files."""
    run = resolved.run
    most = max(SAMPLES, run.train.batch)
    pairs, total = first(resolved.task, resolved.root, resolved.tokenizer, resolved.limits, most)
    return Workload(
        run=replace(run, train=run.train.until(total)),
        model=resolved.model,
        objective=resolved.objective,
        ds=resolved.about["ds"],
        read=lambda ids: [pairs[i] for i in ids if i < len(pairs)],
        total=total,
        unit="pairs",
    )


def _pairs(resolved: ResolvedFinetuneRun, split: str, first: bool) -> Pairs:
    """The token pairs of a split, prepared by rank 0 unless they are there."""
    place, run = Path(resolved.run.out) / "data" / split, resolved.run
    what = (resolved.task, resolved.root, split, resolved.tokenizer, resolved.limits, place)
    counts = on_rank0(lambda: prepare(*what))
    if first:
        print(f"{split}: {summary(counts)}", flush=True)
    seed = run.train.seed if split == "train" else 0
    return Pairs(place, seed, resolved.tokenizer.special)


def _scorer(resolved: ResolvedFinetuneRun, texts: int) -> TextScorer | None:
    """What scores the model's own texts at validations; rank 0 reads them.  texts: there are."""
    if not (found := resolved.scoring):
        return None
    scorer = TextScorer(
        found,
        resolved.task,
        resolved.root,
        resolved.tokenizer,
        resolved.limits,
        resolved.objective,
        count=min(found.settings.texts, texts),
        untrained=resolved.start is None,
    )
    on_rank0(scorer.read)
    return scorer


def _note(resolved: ResolvedFinetuneRun) -> str:
    """What the log says of a model that was trained on another task before."""
    task = resolved.run.task
    learnt = resolved.start.about.get("task", task) if resolved.start else task
    return f", from a model of task {learnt!r}" if learnt != task else ""
