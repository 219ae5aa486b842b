"""What a run will take, before it does: `--dry-run` of the verbs that train.

Everything that a run file names has been found; one micro batch is trained on here, by one process,
and nothing is written.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from januslm.cli.progress import duration
from januslm.cli.table import drawn, shown_bytes
from januslm.model.config import PRESETS, ModelConfig
from januslm.model.joint_loss import ModelWithLoss
from januslm.model.packing import Batch, Packer
from januslm.model.transformer import Seq2Seq, parameters
from januslm.objective import Objective
from januslm.training import ds_config
from januslm.training.engine import World
from januslm.training.job import batch_of
from januslm.training.manifest import readable
from januslm.training.process import spread

SAMPLES = 512  # whose lengths stand for all
FEW = 2  # samples of a first micro batch, which tells how long larger ones may take
GROWTH = 4
PATIENCE = 10.0  # seconds: a micro batch that takes longer is measured in part


@dataclass(frozen=True)
class Workload:
    """A resolved run, as far as it decides what it takes."""

    run: Any  # PretrainRun or FinetuneRun; its train.steps is known
    model: ModelConfig
    objective: Objective
    ds: str  # as asked for; "": the usual one of this machine
    read: Callable[[np.ndarray], list]  # (source, target) of each global sample id
    total: int  # samples in a pass over the data
    unit: str  # what a sample is called


@dataclass(frozen=True)
class Measured:
    """Of one micro batch on this device; kept: bytes that its forward keeps for the backward."""

    parameters: int
    seconds: float
    optimizer: float  # seconds of one Adam step on all weights
    kept: float
    share: float  # of a micro batch that was run; the numbers are scaled up


def table(work: Workload, world: int) -> str:
    """A line for each thing to know.  world: processes that share the run."""
    cuda = torch.cuda.is_available()
    device = torch.device("cuda" if cuda else "cpu")
    file = spread(work.ds, World(0, world, device))
    ds = ds_config.read(file)
    settings = work.run.train
    micro = -(-settings.batch // (world * settings.accumulate))
    pairs = work.read(np.arange(min(max(micro, SAMPLES), work.total)))
    found = measured(work, pairs[:micro], device, ds)
    spread_over = f"{_number(world, 'process', 'es')}, {file.name}, {micro} {work.unit} at a time"
    rows = [
        ("folder", f"{work.run.out}: {_reached(Path(work.run.out))}"),
        ("objective", _objective(work)),
        ("model", f"{found.parameters:,} parameters; {_model(work)}"),
        ("data", _data(work, pairs)),
        ("memory", f"{_memory(found, ds, world)} ({spread_over})"),
        ("disk", _disk(found.parameters, ds, settings)),
        ("time", _time(found, settings, device)),
    ]
    return drawn(rows, left=2, heading=False)


def measured(work: Workload, pairs: Sequence, device: torch.device, ds: Mapping) -> Measured:
    """Train on a micro batch, or on a part of one that takes too long, without DeepSpeed."""
    torch.manual_seed(work.run.train.seed)
    module = ModelWithLoss(Seq2Seq(work.model), work.objective.loss).train()
    half = ds_config.precision(ds) == "bf16"
    module.to(device, torch.bfloat16 if half else torch.float32)
    weights, packing = work.objective.loss.weights, work.run.packing
    row = packing.row if device.type == "cuda" else 0
    packer = Packer(weights, packing.encoder_passes, row or None, work.model.length == "token")

    def batch(count: int) -> Batch:
        return batch_of(
            packer, work.objective, list(pairs[:count]), np.arange(count), 0, work.model
        ).to(device)

    count, part = min(FEW, len(pairs)), batch(min(FEW, len(pairs)))
    _once(module, part, weights)  # the first one also loads code
    whole, seconds = batch(len(pairs)), _fastest(module, part, weights)
    # Small ones are slow for their size: the next is never more than GROWTH times as large.
    while count < len(pairs):
        count = min(GROWTH * count, len(pairs))
        larger = batch(count)
        if seconds * larger.flops / part.flops > PATIENCE:
            break
        part, seconds = larger, _fastest(module, larger, weights)
    share = part.flops / whole.flops
    kept = _kept(module, part, weights)
    optimizer = torch.optim.AdamW(module.parameters(), lr=1e-6)
    optimizer.step()
    own = _seconds(optimizer.step)
    return Measured(parameters(module.model), seconds / share, own, kept / share, share)


def _once(module: ModelWithLoss, batch: Batch, weights: Mapping[str, float]) -> None:
    module.zero_grad()
    loss, _ = module(batch, {n: w / max(batch.counts.get(n, 0), 1) for n, w in weights.items()})
    loss.backward()


def _fastest(module: ModelWithLoss, batch: Batch, weights: Mapping[str, float]) -> float:
    return min(_seconds(lambda: _once(module, batch, weights)) for _ in range(2))


def _seconds(work: Callable[[], Any]) -> float:
    began = time.perf_counter()
    work()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - began


def _kept(module: ModelWithLoss, batch: Batch, weights: Mapping[str, float]) -> int:
    """Bytes that a forward keeps for its backward, weights apart."""
    own = {p.untyped_storage().data_ptr() for p in module.parameters()}
    found: dict[int, torch.UntypedStorage] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            found[storage.data_ptr()] = storage  # held, so that no other gets its place
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        _once(module, batch, weights)
    return sum(storage.nbytes() for storage in found.values())


def memory(count: int, ds: Mapping, world: int) -> dict[str, float]:
    """Bytes of `count` weights in one process: ZeRO's table, with Adam (arXiv 1910.02054)."""
    stage, half = ds_config.stage(ds), ds_config.precision(ds) == "bf16"
    each = 2 if half else 4
    return {
        "weights": count * each / (world if stage >= 3 else 1),
        "gradients": count * each / (world if stage >= 2 else 1),
        # The two moments; and a copy of the weights that is updated: in fp32, too, at 1 and 2.
        "optimizer": count * (12 if half or stage in (1, 2) else 8) / (world if stage else 1),
    }


def _memory(found: Measured, ds: Mapping, world: int) -> str:
    parts = memory(found.parameters, ds, world) | {"kept for the backward": found.kept}
    named = ", ".join(f"{name} {shown_bytes(value)}" for name, value in parts.items())
    offloaded = "offload_optimizer" in ds.get("zero_optimization", {})
    note = "; the optimizer's in host memory" if offloaded else ""
    return f"{shown_bytes(sum(parts.values()))} a process: {named}{note}"


def _disk(count: int, ds: Mapping, settings: Any) -> str:
    own = 0 if ds_config.stage(ds) in (0, 3) else 4 if ds_config.precision(ds) == "fp32" else 2
    one = count * (12 + own)
    kept = settings.keep + (settings.steps // settings.keep_every if settings.keep_every else 0)
    export = shown_bytes(4 * count)
    return f"{kept} checkpoints of {shown_bytes(one)}, one more while it saves; export {export}"


def _time(found: Measured, settings: Any, device: torch.device) -> str:
    update = settings.accumulate * found.seconds + found.optimizer
    cpu = _number(torch.get_num_threads(), "CPU thread", "s")
    where = torch.cuda.get_device_name() if device.type == "cuda" else cpu
    part = "" if found.share == 1 else f", measured on {found.share:.0%} of a micro batch"
    total = settings.steps * update
    return (
        f"about {duration(total)}: {settings.steps:,} updates of {update:.2f} s on {where}{part}; "
        "validation, saving and waiting for other processes come on top"
    )


def _number(count: int, name: str, several: str) -> str:
    return f"{count} {name}{several if count > 1 else ''}"


def _reached(folder: Path) -> str:
    last = next(readable(folder / "checkpoints"), None)
    return f"goes on from update {last.step:,}" if last else "a new run"


def _objective(work: Workload) -> str:
    terms = ", ".join(f"{name} {weight:g}" for name, weight in work.objective.loss.weights.items())
    options = _given(work.run.objective, "name", "preset")
    noise = f"; noise {work.objective.noise}" if work.objective.noise else ""
    return f"{work.objective.name}{options}: {terms}{noise}{_given(work.run.noise, 'name')}"


def _model(work: Workload) -> str:
    if getattr(work.run, "start", ""):
        return f"from {work.run.start}{_given(work.run.model)}"
    preset = work.run.model.get("preset", "tiny")
    same = {k for k, v in PRESETS[preset].items() if work.run.model.get(k) == v}
    return f"preset {preset}{_given(work.run.model, 'preset', *same)}"


def _given(table: Mapping, *left_out: str) -> str:
    """What a table of the run file changes."""
    own = [f"{key} = {value}" for key, value in table.items() if key not in left_out]
    return f" with {', '.join(own)}" if own else ""


def _data(work: Workload, pairs: Sequence) -> str:
    settings = work.run.train
    mean = sum(len(target) - 1 for _, target in pairs) / len(pairs)
    seen = settings.steps * settings.batch
    return (
        f"{work.total:,} {work.unit} of {mean:.1f} target tokens; {settings.steps:,} updates of "
        f"{settings.batch:,}: {_passes(seen / work.total)}, {_count(seen * mean)} target tokens"
    )


def _passes(number: float) -> str:
    return f"{number:,.0f} passes" if number >= 10 else f"{number:.2g} passes"


def _count(number: float) -> str:
    for size, name in ((1e9, "billion"), (1e6, "million")):
        if number >= size:
            return f"{number / size:.1f} {name}"
    return f"{number:,.0f}"
