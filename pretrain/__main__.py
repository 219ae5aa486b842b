"""Pretrain a model on token shards: `python -m pretrain RUN.toml [key=value ...]`."""

import argparse
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch

from januslm import config, learner, start
from januslm.config import Refused
from januslm.engine import Optimizer, World
from januslm.interop import native
from januslm.learner import Learner, Loss
from januslm.model import Seq2Seq, configure, parameters
from januslm.schedule import Schedule
from januslm.tokenizer import Tokenizer
from januslm.train import Plan, Train
from januslm.work import Packing, Training
from pretrain.data import Data, Texts


@dataclass(frozen=True)
class Run:
    """A run file of pretrain/runs/."""

    out: str  # the run's folder: checkpoints, logs, board/ for TensorBoard, export/
    tokenizer: str
    data: Data
    train: Train
    model: dict = field(default_factory=dict)  # preset, and what differs: januslm/model.py, Config
    objective: dict = field(default_factory=lambda: {"name": "janus"})
    noise: dict = field(default_factory=dict)  # name and options: januslm/noise.py
    loss: Loss = field(default_factory=Loss)
    optimizer: Optimizer = field(default_factory=Optimizer)
    schedule: Schedule = field(default_factory=Schedule)
    packing: Packing = field(default_factory=Packing)
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
        return settle(config.load(Run, options.run, options.changes), options.run, options.ds)

    return start.run(prepare, lambda text: print(f"error: {text}", file=sys.stderr), options.report)


def settle(run: Run, where: str, ds: str = "") -> Callable[[World], tuple[Plan, Training]]:
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
    objective = learner.settle(run.objective, run.noise, run.loss, "pretrain", special, where)
    texts = Texts(run.data, run.data.train, tokenizer, run.train.seed)
    valid = Texts(run.data, run.data.valid, tokenizer, seed=0)
    saved = native.read(run.start) if run.start else None
    if saved and saved.tokenizer.sha256 != tokenizer.sha256:
        raise Refused(f"{where}: start = {run.start!r} was trained with another tokenizer")
    about = asdict(run) | {
        "objective": {"name": objective.name, **objective.options},
        "noise": {"name": objective.hide.__name__, **objective.hide_options},
        "loss": asdict(objective.loss), "model": asdict(model_config),
        "data": asdict(run.data) | {"fingerprints": texts.fingerprint}, "ds": ds or run.ds,
    }  # fmt: skip

    def make(world: World) -> tuple[Plan, Training]:
        torch.manual_seed(run.train.seed)
        model = Seq2Seq(model_config)
        if saved:
            native.fill(model, saved.model.state_dict(), saved.folder)
        work = Training(
            Learner(model, objective.loss), objective, Path(run.tokenizer), tokenizer,
            texts.read, valid.read, min(run.data.valid_samples, len(valid)), run.train.seed,
            run.packing, world.device, about,
        )  # fmt: skip
        how = start.spread(about["ds"], world)
        if world.first:
            size = f"{parameters(model):,} parameters, {len(texts):,} samples"
            print(f"{size}, {world.size} processes, {how.name}", flush=True)
        return Plan(Path(run.out), run.train, run.optimizer, run.schedule, how, about), work

    return make


if __name__ == "__main__":
    sys.exit(main())
