"""From a resolved run to what the trainer needs: the model, its loss, its texts."""

from pathlib import Path

import torch

from januslm.interop import start
from januslm.model.joint_loss import ModelWithLoss
from januslm.model.transformer import size
from januslm.training import process
from januslm.training.engine import World, read, sharder
from januslm.training.estimate import Workload
from januslm.training.job import Job
from januslm.training.trainer import RunPlan
from pretrain.settings import ResolvedPretrainRun


def build(resolved: ResolvedPretrainRun, world: World) -> tuple[RunPlan, Job]:
    """The run's plan and its job in this process; rank 0 prints what they are."""
    run, objective = resolved.run, resolved.objective
    ds = process.spread(resolved.about["ds"], world)
    torch.manual_seed(run.train.seed)
    model = start.created(resolved.model, resolved.start, sharder(read(ds), world))
    job = Job(
        module=ModelWithLoss(model, objective.loss),
        objective=objective,
        tokenizer_file=Path(run.tokenizer),
        tokenizer=resolved.tokenizer,
        read=resolved.texts.read,
        read_valid=resolved.valid.read,
        valid_size=min(run.data.valid_samples, len(resolved.valid)),
        seed=run.train.seed,
        packing=run.packing,
        device=world.device,
        about=resolved.about,
    )
    if world.first:
        what = f"{size(resolved.model):,} parameters, {len(resolved.texts):,} samples"
        print(f"{what}, {world.size} processes, {ds.name}", flush=True)
        if note := resolved.tokenizer.note:
            print(f"{run.tokenizer}: {note}", flush=True)
    plan = RunPlan(Path(run.out), run.train, run.optimizer, run.schedule, ds, resolved.about)
    return plan, job


def workload(resolved: ResolvedPretrainRun) -> Workload:
    """What `--dry-run` looks at."""
    texts, ds = resolved.texts, resolved.about["ds"]
    return Workload(
        resolved.run, resolved.model, resolved.objective, ds, texts.read, len(texts), "samples"
    )
