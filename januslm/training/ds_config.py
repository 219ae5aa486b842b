"""How a run is spread over processes: a file of ds_configs/ plus what the run file owns."""

import copy
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from januslm.cli.paths import SPREADS, shipped
from januslm.config import Refused, json_table, setting
from januslm.training.ds_keys import check_keys


@dataclass(frozen=True)
class OptimizerSettings:
    """Adam as in torch: adamw decays the weights, adam adds the decay to the gradient.

    muon: DeepSpeed's, for the matrices of the layers, and adamw for all else; lr, betas and eps are
    the latter's.  It wants train.clip = 0, and grad_norm is then the norm of its updates.
    cpu_adam: DeepSpeed's compiled adamw, for offload_optimizer alone.
    """

    # adamw decays the weights, adam the gradient; muon and cpu_adam are DeepSpeed's
    name: Literal["adam", "adamw", "muon", "cpu_adam"] = "adamw"
    lr: float = setting(5e-4, above=0)  # the schedule's peak
    # memory of the gradient's mean and of its square
    betas: tuple[float, ...] = setting((0.9, 0.98), low=0, below=1)
    eps: float = setting(1e-8, above=0)  # keeps the division from zero
    weight_decay: float = setting(0.01, low=0)  # how fast weights shrink
    muon_lr: float = setting(0.02, above=0)  # of the matrices, at the schedule's peak
    momentum: float = setting(0.95, low=0, below=1)  # of the matrices

    def __post_init__(self):
        if len(self.betas) != 2:
            raise Refused(f"betas must be two numbers, got {list(self.betas)}")


@dataclass(frozen=True)
class Values:
    """What the run file owns of a DeepSpeed configuration."""

    batch: int
    accumulate: int
    clip: float
    optimizer: OptimizerSettings


def read(path: str | Path) -> dict:
    """A file of ds_configs/, or Refused."""
    return json_table(path)


def check_spread(path: str, optimizer: OptimizerSettings, clip: float) -> None:
    """Refuse a file of ds_configs/ that cannot be used, or not with this [optimizer] and clip.

    "": the usual one, which can be used with the usual optimizer.
    """
    if path:
        path = shipped(path, SPREADS)
        ds = read(path)
        check_keys(ds, path)
        check_optimizer(optimizer, clip, ds, path)


def check_batch(batch: int, accumulate: int, world: int) -> None:
    """Refuse fewer examples per update than processes that share them."""
    if batch < world * accumulate:
        raise Refused(
            f"train.batch = {batch} is less than one example for each of {world} processes "
            f"x train.accumulate = {accumulate}"
        )


def merge(
    values: Values,
    ds: Mapping,
    world: int,
    where: str = "ds_config",
    universal: bool = False,
) -> dict:
    """The full DeepSpeed configuration: `ds` says how a run is spread, `values` what is learnt.

    `universal`: it will load a checkpoint that another number of processes wrote.
    """
    check_keys(ds, where)
    check_batch(values.batch, values.accumulate, world)
    # Rounded up: ranks may differ by one example, and DeepSpeed only prints this number.
    micro = -(-values.batch // (world * values.accumulate))
    check_optimizer(values.optimizer, values.clip, ds, where)
    merged = copy.deepcopy(dict(ds))
    if values.optimizer.name == "muon" and stage(ds) == 3:  # it wants whole gradients
        merged["zero_optimization"].setdefault("reduce_scatter", False)
    return merged | {
        "train_batch_size": micro * values.accumulate * world,
        "train_micro_batch_size_per_gpu": micro,
        "gradient_accumulation_steps": values.accumulate,
        # Left out, it would be 1.0.  Engine clips by itself at stage 0, where it needs the norm.
        "gradient_clipping": values.clip if stage(ds) else 0.0,
        "steps_per_print": None,
        "zero_force_ds_cpu_optimizer": False,
        "checkpoint": {"load_universal": universal},
        "optimizer": _optimizer(values.optimizer),
    }


def check_optimizer(optimizer: OptimizerSettings, clip: float, ds: Mapping, where: str) -> None:
    """Refuse an optimizer that does not go with a DeepSpeed JSON, or not with this machine."""
    zero = ds.get("zero_optimization", {})
    away = zero.get("offload_optimizer", {}).get("device", "none") != "none"
    asked = f"optimizer.name = {optimizer.name!r}"
    if optimizer.name == "cpu_adam":
        if not away:
            raise Refused(
                f"{where}: {asked} needs zero_optimization.offload_optimizer.device 'cpu'"
            )
        if not any(shutil.which(name) for name in (os.environ.get("CXX"), "c++", "g++") if name):
            raise Refused(
                f"{where}: {asked} is compiled on its first use, and there is no g++ here"
            )
    if optimizer.name == "muon":
        if clip:
            raise Refused(
                f"{where}: {asked} needs train.clip = 0, got {clip:g}: DeepSpeed would clip Muon's "
                "updates, which have the norm that they should have, in place of the gradient"
            )
        if stage(ds) == 0 or away:
            raise Refused(f"{where}: {asked} needs ZeRO stage 1 to 3 and no offload_optimizer")
        if stage(ds) == 3 and zero.get("reduce_scatter", False):
            raise Refused(
                f"{where}: {asked} at stage 3 needs zero_optimization.reduce_scatter false"
            )


def _optimizer(o: OptimizerSettings) -> dict:
    """DeepSpeed's table for it."""
    numbers = {"lr": o.lr, "betas": list(o.betas), "eps": o.eps, "weight_decay": o.weight_decay}
    if o.name == "cpu_adam":
        return {"type": "AdamW", "params": numbers | {"adam_w_mode": True}}
    # torch's Adam needs no compiler, and resumes bit for bit.
    torch_adam = {"torch_adam": True, "adam_w_mode": o.name != "adam"}
    if o.name == "muon":
        own = {"muon_lr": o.muon_lr, "momentum": o.momentum}
        return {"type": "Muon", "params": numbers | torch_adam | own}
    kind = "AdamW" if o.name == "adamw" else "Adam"
    return {"type": kind, "params": numbers | torch_adam | {"fused": True}}


def stage(ds: Mapping) -> int:
    """The ZeRO stage that a DeepSpeed JSON asks for."""
    return ds.get("zero_optimization", {}).get("stage", 0)


def precision(ds: Mapping) -> str:
    """fp32 or bf16: the type of the weights that are computed with."""
    return "bf16" if ds.get("bf16", {}).get("enabled", False) else "fp32"


def products(ds: Mapping) -> str:
    """fp32 or bf16: the type of the matrix products, which torch_autocast may lower."""
    autocast = ds.get("torch_autocast", {}).get("enabled", False)
    return "bf16" if autocast else precision(ds)
