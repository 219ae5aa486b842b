"""How a run is spread over processes: a file of ds_configs/ plus what the run file owns."""

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from januslm.cli.paths import SPREADS, shipped
from januslm.config import Refused, json_table, setting, suggest

# What a DeepSpeed JSON must not say, and who says it instead.
OWNED = {
    "train_batch_size": "the run file as train.batch",
    "train_micro_batch_size_per_gpu": "the run file as train.batch and train.accumulate",
    "gradient_accumulation_steps": "the run file as train.accumulate",
    "gradient_clipping": "the run file as train.clip",
    "optimizer": "the run file as [optimizer]",
    "scheduler": "the run file as [schedule]",
    "steps_per_print": "the run file as train.log_every",
    "zero_force_ds_cpu_optimizer": "januslm/training/engine.py, which chooses the Adam",
    "managed_gradient_accumulation": "januslm/training/engine.py, which counts micro batches",
    "gradient_allreduce_op": "januslm/training/engine.py, which normalises by global counts",
    "checkpoint": "januslm/training/checkpoint.py, which writes checkpoints atomically",
    "fp16": "nobody: the losses need the range of bf16 or fp32; use bf16",
}
ALLOWED = frozenset(
    {
        # table = {}: ZeRO: `stage` 0 to 3, buckets, offload_optimizer, offload_param
        "zero_optimization",
        "bf16",  # table = {}: `enabled`: weights and activations in bfloat16, from stage 1 on
        "torch_autocast",  # table = {}: torch's autocast in the place of bf16
        "data_types",  # table = {}: `grad_accum_dtype`, in which gradients are summed up
        "aio",  # table = {}: how an NVMe disk is read and written when offloading to it
        "compile",  # table = {}: DeepSpeed's compiler passes
        "log_level",  # text = "warning": how much DeepSpeed says
        "communication_data_type",  # text = -: in which type gradients travel
        # true or false = false: divide gradients before they are summed up over processes
        "prescale_gradients",
        "gradient_predivide_factor",  # number = 1.0: by how much, where they are prescaled
        "timers",  # table = {}: of throughput
        "disable_allgather",  # true or false = false: broadcast in the place of gathering weights
        "disable_python_gc",  # true or false = false: no garbage collection within a step
        # true or false = false: optimizers that ZeRO was not tested with
        "zero_allow_untested_optimizer",
        "dump_state",  # true or false = false: print the engine's state at the start
        "comms_logger",  # table = {}: log what travels between processes
        "flops_profiler",  # table = {}: count FLOPs, parameters and time by module
        "wall_clock_breakdown",  # true or false = false: time of forward, backward and update
        "memory_breakdown",  # true or false = false: memory before and after each part of a step
        "tensorboard",  # table = {}: DeepSpeed's own curves, beside ours
        "csv_monitor",  # table = {}: the same as CSV files
        "wandb",  # table = {}: the same in Weights & Biases
        "comet",  # table = {}: the same in Comet
    }
)


@dataclass(frozen=True)
class OptimizerSettings:
    """Adam as in torch: adamw decays the weights, adam adds the decay to the gradient."""

    name: Literal["adam", "adamw"] = "adamw"  # adamw decays the weights, adam the gradient
    lr: float = setting(5e-4, above=0)  # the schedule's peak
    # memory of the gradient's mean and of its square
    betas: tuple[float, ...] = setting((0.9, 0.98), low=0, below=1)
    eps: float = setting(1e-8, above=0)  # keeps the division from zero
    weight_decay: float = setting(0.01, low=0)  # how fast weights shrink

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


def check_spread(path: str) -> None:
    """Refuse a file of ds_configs/ that cannot be used; "": the usual one, which can."""
    if path:
        path = shipped(path, SPREADS)
        _check(read(path), path)


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
    _check(ds, where)
    check_batch(values.batch, values.accumulate, world)
    # Rounded up: ranks may differ by one example, and DeepSpeed only prints this number.
    micro = -(-values.batch // (world * values.accumulate))
    o = values.optimizer
    adam = {"lr": o.lr, "betas": list(o.betas), "eps": o.eps, "weight_decay": o.weight_decay}
    return copy.deepcopy(dict(ds)) | {
        "train_batch_size": micro * values.accumulate * world,
        "train_micro_batch_size_per_gpu": micro,
        "gradient_accumulation_steps": values.accumulate,
        # Left out, it would be 1.0.  Engine clips by itself at stage 0, where it needs the norm.
        "gradient_clipping": values.clip if stage(ds) else 0.0,
        "steps_per_print": None,
        "zero_force_ds_cpu_optimizer": False,
        "checkpoint": {"load_universal": universal},
        # torch's Adam needs no compiler, and resumes bit for bit, which DeepSpeed's does not.
        "optimizer": {
            "type": "AdamW" if o.name == "adamw" else "Adam",
            "params": adam | {"torch_adam": True, "adam_w_mode": o.name == "adamw", "fused": True},
        },
    }


def _check(ds: Mapping, where: str) -> None:
    for key in ds:
        if key in OWNED:
            raise Refused(f"{where}: {key!r} belongs to {OWNED[key]}")
        if key not in ALLOWED:
            raise Refused(f"{where}: unknown key {key!r}{suggest(key, ALLOWED)}")
    for key in ("zero_optimization", "bf16"):
        if not isinstance(ds.get(key, {}), Mapping):
            raise Refused(f"{where}: {key} must be a table, got {ds[key]!r}")
    if precision(ds) == "bf16" and stage(ds) == 0:
        raise Refused(
            f"{where}: bf16 needs zero_optimization.stage of at least 1: with stage 0 DeepSpeed "
            "takes one Adam step too many at the start, and trains differently"
        )


def stage(ds: Mapping) -> int:
    """The ZeRO stage that a DeepSpeed JSON asks for."""
    return ds.get("zero_optimization", {}).get("stage", 0)


def precision(ds: Mapping) -> str:
    """fp32 or bf16: the type of the weights that are computed with."""
    return "bf16" if ds.get("bf16", {}).get("enabled", False) else "fp32"
