"""Pretrain a model on token shards: `python -m pretrain RUN.toml [key=value ...]`."""

import argparse
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch

from januslm import config
from januslm.config import Refused
from januslm.data.token_samples import PretrainData, Texts
from januslm.data.tokenizer import Tokenizer
from januslm.interop import native
from januslm.model.transformer import Seq2Seq, configure, parameters
from januslm.objective import LossSettings, ModelWithLoss, resolve_objective
from januslm.training import process
from januslm.training.engine import OptimizerSettings, World
from januslm.training.job import Job, PackingSettings
from januslm.training.lr_schedule import ScheduleSettings
from januslm.training.trainer import RunPlan, TrainSettings


@dataclass(frozen=True)
class PretrainRun:
    """A run file of pretrain/runs/."""

    out: str  # the run's folder: checkpoints, logs, board/ for TensorBoard, export/
    tokenizer: str
    data: PretrainData
    train: TrainSettings
    model: dict = field(default_factory=dict)  # preset, and what differs
    objective: dict = field(default_factory=lambda: {"name": "janus"})
    noise: dict = field(default_factory=dict)  # name and options: a file of januslm/noise/
    loss: LossSettings = field(default_factory=LossSettings)
    optimizer: OptimizerSettings = field(default_factory=OptimizerSettings)
    schedule: ScheduleSettings = field(default_factory=ScheduleSettings)
    packing: PackingSettings = field(default_factory=PackingSettings)
    start: str = ""  # an exported model to go on from, e.g. BART's weights; "": from scratch
    ds: str = ""  # a file of ds_configs/; "": cpu_fp32 on a CPU, zero1_bf16 on a GPU


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m pretrain", description=__doc__)
    parser.add_argument("run", help="a file of pretrain/runs/")
    parser.add_argument("changes", nargs="*", metavar="key=value", help="e.g. train.steps=100")
    parser.add_argument("--ds", default="", help="a file of ds_configs/: how the run is spread")
    parser.add_argument("--report", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--local_rank", help=argparse.SUPPRESS)  # DeepSpeed's launcher adds it
    options = parser.parse_intermixed_args()

    def prepare():
        return resolve(
            config.load(PretrainRun, options.run, options.changes), options.run, options.ds
        )

    def tell(text: str) -> None:
        print(f"error: {text}", file=sys.stderr)

    return process.run(prepare, tell, options.report)


def resolve(run: PretrainRun, where: str, ds: str = "") -> Callable[[World], tuple[RunPlan, Job]]:
    """All that can be refused is looked at here, before the ranks meet; gives what makes the rest.

    Raises Refused, naming the file and the key.
    """
    tokenizer = Tokenizer.load(run.tokenizer)
    model_config = configure(run.model, tokenizer.size, f"{where}: model")
    if run.data.length + 1 > model_config.max_positions:
        raise Refused(
            f"{where}: data.length {run.data.length} needs model.max_positions of at least "
            f"{run.data.length + 1}, got {model_config.max_positions}"
        )
    special = tokenizer.special
    objective = resolve_objective(run.objective, run.noise, run.loss, "pretrain", special, where)
    texts = Texts(run.data, run.data.train, tokenizer, run.train.seed)
    valid = Texts(run.data, run.data.valid, tokenizer, seed=0)
    saved = native.read(run.start) if run.start else None
    if saved and saved.tokenizer.sha256 != tokenizer.sha256:
        raise Refused(f"{where}: start = {run.start!r} was trained with another tokenizer")
    about = asdict(run) | {
        "objective": {"name": objective.name, **objective.options},
        "noise": {"name": objective.noise, **objective.noise_options},
        "loss": asdict(objective.loss), "model": asdict(model_config),
        "data": asdict(run.data) | {"fingerprints": texts.fingerprint}, "ds": ds or run.ds,
    }  # fmt: skip

    def make(world: World) -> tuple[RunPlan, Job]:
        torch.manual_seed(run.train.seed)
        model = Seq2Seq(model_config)
        if saved:
            native.fill(model, saved.model.state_dict(), saved.folder)
        work = Job(
            ModelWithLoss(model, objective.loss), objective, Path(run.tokenizer), tokenizer,
            texts.read, valid.read, min(run.data.valid_samples, len(valid)), run.train.seed,
            run.packing, world.device, about,
        )  # fmt: skip
        how = process.spread(about["ds"], world)
        if world.first:
            size = f"{parameters(model):,} parameters, {len(texts):,} samples"
            print(f"{size}, {world.size} processes, {how.name}", flush=True)
        return RunPlan(Path(run.out), run.train, run.optimizer, run.schedule, how, about), work

    return make


if __name__ == "__main__":
    sys.exit(main())
