"""DeepSpeed, and what must be known about it; its private side is in deepspeed_hooks.py."""

import copy
import functools
import os
import shutil
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Generic, NoReturn, TypeVar

import torch
import torch.distributed as dist
from torch import nn

from januslm.config import Refused
from januslm.training import deepspeed_hooks, rank_env
from januslm.training.checkpoint import (
    Saving,
    Shelf,
    converted,
    gathered,
    load,
    on_rank0,
    rng_state,
    set_rng_state,
)
from januslm.training.ds_config import (
    OptimizerSettings,
    Values,
    merge,
    precision,
    products,
    read,
    stage,
)
from januslm.training.manifest import STATE, Found

__all__ = [
    "Engine",
    "OptimizerSettings",
    "Values",
    "World",
    "connect",
    "leave",
    "merge",
    "read",
    "sharder",
]

RESUME = 85  # exit code: stopped by a signal and saved; start the same command again

M = TypeVar("M", bound=nn.Module)


@dataclass(frozen=True)
class World:
    """This process among all: rank 0 writes files and logs."""

    rank: int
    size: int
    device: torch.device

    @property
    def first(self) -> bool:
        return self.rank == 0


@functools.cache
def _deepspeed():
    """Imported on first use, since it takes 5 seconds that merge() and its tests need not wait."""
    os.environ.setdefault("DS_ACCELERATOR", "cuda" if torch.cuda.is_available() else "cpu")
    warnings.filterwarnings("ignore", category=FutureWarning, module="torch|deepspeed")
    import deepspeed

    deepspeed_hooks.quiet()
    deepspeed_hooks.without_ops()
    deepspeed_hooks.without_compiler()
    torch.serialization.add_safe_globals(deepspeed_hooks.unpickled())
    return deepspeed


def connect(minutes: float = 30) -> World:
    """Join the other processes, started by any launcher that rank_env knows, or alone.

    A collective that waits longer than `minutes` for another rank fails.
    """
    place = rank_env.resolve()
    deepspeed = _deepspeed()
    port = int(os.environ["MASTER_PORT"])
    deepspeed.init_distributed(timeout=timedelta(minutes=minutes), distributed_port=port)
    device = torch.device("cpu")
    if torch.cuda.is_available():
        device = torch.device("cuda", place.local_rank)
        torch.cuda.set_device(device)
    return World(dist.get_rank(), dist.get_world_size(), device)


def leave(code: int) -> NoReturn:
    """End this process, the last thing it does.

    An ordinary exit destroys gloo's threads while DeepSpeed still refers to them, and now and then
    a run that has ended well aborts there (seen: "terminate called without an active exception").
    """
    mpi = sys.modules.get("mpi4py.MPI")
    if mpi and code in (0, RESUME):  # after an error another rank may never come to this
        mpi.Finalize()
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os._exit(code)


@dataclass(frozen=True)
class Agreed:
    """What all ranks know before an update: of it, what they ask for, and of the one before.

    counts: items by term, over all ranks.  asked: how many ranks ask, by name.  finished: results
    of the update before, None where there is none, or they are known already.
    """

    counts: dict[str, float]
    asked: dict[str, int]
    finished: dict | None


@dataclass(frozen=True)
class _Pending:
    """The results of an update that the ranks have not summed up yet.

    row: float64 [2 + names] on the device: loss, gradient norm, the sum of each term.
    """

    row: torch.Tensor
    names: list[str]
    counts: Mapping[str, float]
    skipped: bool


def sharder(ds: Mapping, world: World) -> Callable[[nn.Module], object] | None:
    """What keeps this process' share of a module's weights and lets go of the rest, at stage 3.

    For Seq2Seq(shard=...): without it each process makes the whole model before Engine shards it.
    """
    zero = ds.get("zero_optimization", {})
    # DeepSpeed makes the groups of hpZ in zero.Init, and makes them once in a process.
    if stage(ds) < 3 or world.size == 1 or zero.get("zero_hpz_partition_size", 1) > 1:
        return None
    config = {**ds, "train_micro_batch_size_per_gpu": 1}
    kind = torch.bfloat16 if precision(ds) == "bf16" else torch.float32

    def shard(module: nn.Module) -> object:
        return _deepspeed().zero.Init(module=module.to(kind), config_dict_or_path=config)

    return shard


class Engine(Generic[M]):
    """A module, its optimizer, and the ranks that train it together.

    module(batch, coefficients) -> (loss, sums): see trainer.Trainable.
    `resume`: the checkpoint to go on from, which may come from another number of processes.
    """

    def __init__(
        self,
        module: M,
        values: Values,
        ds: Mapping,
        world: World,
        where: str = "ds_config",
        resume: Found | None = None,
    ):
        deepspeed = _deepspeed()
        self.world, self.values = world, values
        self.stage, self.precision, self.products = stage(ds), precision(ds), products(ds)
        self.counts_collectives = ds.get("comms_logger", {}).get("enabled", False)
        moved = self._moved(resume, where) if resume else None
        config = merge(values, ds, world.size, where, universal=bool(moved))
        _understood(config, where)
        _prepare(values.optimizer, where)
        # The same module without storage: gathered_copy() fills it.
        empty = {id(p): _like(p, p.to("meta")) for p in module.parameters()}
        self.skeleton = copy.deepcopy(module, empty)
        self.engine, *_ = deepspeed.initialize(
            model=module, model_parameters=module.parameters(), config=config
        )
        self.module = module
        self.pending: _Pending | None = None
        if values.optimizer.name == "cpu_adam":
            deepspeed_hooks.resumes_exactly(self.engine.basic_optimizer)
        if resume:
            self._load(resume, moved)

    @property
    def device(self) -> torch.device:
        return self.world.device

    def reduce(self, values: Mapping[str, float]) -> dict[str, float]:
        """The sum of each value over all ranks, which must give the same names."""
        row = torch.tensor(list(values.values()), dtype=torch.float64, device=self.device)
        dist.all_reduce(row)
        return dict(zip(values, row.tolist(), strict=True))

    def agree(
        self, batches: Sequence, weights: Mapping[str, float], asked: Mapping[str, bool]
    ) -> "Agreed":
        """The one collective of an update, before it: all that ranks must know of each other.

        Counts of what this update sums over, how many ranks ask for what, and the results of the
        update before, which were left on the device: reading them here is the only wait for it.
        """
        assert len(batches) == self.values.accumulate, (len(batches), self.values.accumulate)
        counts = _total([batch.counts for batch in batches], [*weights, "tokens"])
        counts["all tokens"] = sum(b.tokens for b in batches)
        counts["flops"] = sum(b.flops for b in batches)
        mine = [*counts.values(), *map(float, asked.values())]
        row = torch.tensor(mine, dtype=torch.float64, device=self.device)
        if self.pending:
            row = torch.cat([row, self.pending.row])
        dist.all_reduce(row)
        numbers = row.tolist()
        summed = dict(zip([*counts, *asked], numbers, strict=False))
        return Agreed(
            {name: summed[name] for name in counts},
            {name: int(summed[name]) for name in asked},
            self._results(numbers[len(mine) :]),
        )

    def finish(self) -> dict | None:
        """The results of the last update, by a collective of their own: before a save, at the end.

        None if they are known already.
        """
        if not self.pending:
            return None
        row = self.pending.row.clone()
        dist.all_reduce(row)
        return self._results(row.tolist())

    def update(
        self, batches: Sequence, weights: Mapping[str, float], normalize: str, lr: float
    ) -> dict:
        """agree, step and finish in one call, for those who look at each update by itself."""
        self.step(batches, self.agree(batches, weights, {}).counts, weights, normalize, lr)
        result = self.finish()
        assert result is not None
        return result

    def _results(self, numbers: list[float]) -> dict | None:
        """Of all ranks together: loss, terms (name -> mean), tokens, flops, grad_norm, skipped.

        skipped: the gradient was not finite on some rank, and the weights therefore stayed as they
        were on all.
        """
        was, self.pending = self.pending, None
        if not was:
            return None
        loss, norm, *sums = numbers
        return {
            "loss": loss / (self.world.size * self.values.accumulate),
            "terms": _means(dict(zip(was.names, sums, strict=True)), was.counts),
            "grad_norm": norm,
            "tokens": was.counts["all tokens"],
            "flops": was.counts["flops"],
            "skipped": was.skipped or not norm < float("inf"),
        }

    def step(
        self,
        batches: Sequence,
        counts: Mapping[str, float],
        weights: Mapping[str, float],
        normalize: str,
        lr: float,
    ) -> None:
        """One optimizer step over the micro batches of all ranks.

        counts: what agree() said of these batches.  The next agree(), or finish(), tells what came
        of it.
        """
        self._set_lr(lr)
        self.engine.train()
        losses, sums = [], []
        for batch in batches:
            loss, parts = self.engine(
                batch.to(self.device), self._coefficients(batch, counts, weights, normalize)
            )
            # A loss that is not finite spoils its gradient for certain.  DeepSpeed sees that in
            # the norm that all ranks share, so all skip together and its counting stays right.
            bad = torch.where(torch.isfinite(loss.detach()), 1.0, float("nan"))
            self.engine.backward(loss * bad.to(loss.dtype))
            losses.append(loss.detach())
            sums.append(parts)
            norm = self._apply(last=len(losses) == len(batches))
        # The norm is every rank's already: only rank 0's counts in the sum.
        norm = torch.as_tensor(norm if self.world.first else 0.0)
        values = [sum(losses), norm, *(sum(t.get(n, 0.0) for t in sums) for n in weights)]
        row = [torch.as_tensor(v).to(self.device, torch.float64).reshape(()) for v in values]
        skipped = not deepspeed_hooks.applied(self.engine)
        self.pending = _Pending(torch.stack(row), list(weights), counts, skipped)

    def _set_lr(self, lr: float) -> None:
        """The rate of every group; Muon's follows the same schedule below a peak of its own."""
        o = self.values.optimizer
        for group in self.engine.optimizer.param_groups:
            group["lr"] = lr * o.muon_lr / o.lr if group.get("use_muon") else lr

    def _coefficients(self, batch, counts: Mapping, weights: Mapping, normalize: str) -> dict:
        # DeepSpeed takes the mean over ranks and micro batches, where we want the sum.
        undo = self.world.size * self.values.accumulate
        if normalize == "microbatch":
            return {n: w / max(batch.counts.get(n, 0), 1) for n, w in weights.items()}
        by = _divisors(normalize, counts, weights)
        return {n: w * undo / max(by[n], 1) for n, w in weights.items()}

    def _apply(self, last: bool) -> torch.Tensor | float | None:
        """engine.step(); after the last micro batch the gradient's norm, inf or nan if spoilt."""
        if last and self.stage == 0:  # where DeepSpeed neither tells the norm nor looks at it
            limit = self.values.clip or float("inf")
            norm = nn.utils.clip_grad_norm_(self.module.parameters(), limit)
            optimizer = self.engine.optimizer
            if getattr(optimizer, "_step_supports_amp_scaling", False):
                # torch's fused Adam leaves all as it was where this is 1; nobody waits for it.
                optimizer.grad_scale, optimizer.found_inf = None, (~norm.isfinite()).float()
            elif not norm.isfinite():
                self.engine.zero_grad()  # others pass over parameters without a gradient
        self.engine.step()
        if last and self.stage:
            norm = self.engine.get_global_grad_norm()
        return norm if last else None

    @torch.no_grad()
    def evaluate(self, batches: Sequence, weights: Mapping, normalize: str, counted: int) -> dict:
        """The loss, and the mean of every term, over the first `counted` batches of all ranks.

        ZeRO-3 gathers weights in each forward, so every rank must bring as many batches; those
        after `counted` only keep the others company.
        """
        self.engine.eval()
        parts = [self.engine(b.to(self.device), dict.fromkeys(weights, 1.0))[1] for b in batches]
        self.engine.train()
        counts = _total([batch.counts for batch in batches[:counted]], [*weights, "tokens"])
        sums = _total(parts[:counted], weights)
        both = self.reduce({f"sum of {n}": v for n, v in sums.items()} | counts)
        counts, sums = {n: both[n] for n in counts}, {n: both[f"sum of {n}"] for n in sums}
        per = _divisors(normalize, counts, weights)
        loss = sum(weights[name] * value for name, value in _means(sums, per).items())
        return {"loss": loss, **_means(sums, counts)}

    @contextmanager
    def gathered_copy(self) -> Iterator[M | None]:
        """A copy of the module with all its weights in fp32 on rank 0's CPU, None elsewhere.

        All ranks enter.  The live module would not do: ZeRO-3's hooks wait for other ranks in each
        forward, and ZeRO-1 and 2 keep all weights in one tensor, which safetensors refuses.
        """
        filled: dict[int, torch.Tensor] = {}
        for empty, live in zip(self.skeleton.parameters(), self.module.parameters(), strict=True):
            full = self._full(live)
            if self.world.first:
                filled[id(empty)] = _like(empty, full.to("cpu", torch.float32, copy=True))
            del full  # one parameter at a time: the device never holds the copy
        for old, buffer in zip(self.skeleton.buffers(), self.module.buffers(), strict=True):
            filled[id(old)] = buffer.to("cpu", old.dtype, copy=True)
        yield copy.deepcopy(self.skeleton, filled).eval() if self.world.first else None

    def _full(self, parameter: nn.Parameter) -> torch.Tensor:
        if self.stage < 3 and self.precision == "fp32":
            return parameter.detach()
        from deepspeed.utils import safe_get_full_fp32_param

        full = safe_get_full_fp32_param(parameter)  # a collective
        assert full is not None, tuple(parameter.shape)
        return full.detach().reshape(getattr(parameter, "ds_shape", parameter.shape))

    def save(
        self, shelf: Shelf, step: int, manifest: Mapping, beside: bool = False, prune: bool = True
    ) -> Saving:
        """Write a checkpoint, or raise NotSaved on all ranks; what is returned must be published.

        beside: only copy it to host memory, and let a thread write.  prune: see Saving.start.
        """
        saving = Saving(shelf, step, self._estimate(), beside)
        deepspeed_hooks.saved_by(self.engine, lambda state, path: saving.write(path, state))
        self.engine.save_checkpoint(str(saving.path), tag=STATE, save_latest=False)
        saving.write(saving.path / f"rank-{self.world.rank:05d}.pt", rng_state())
        facts = {"world": self.world.size, "stage": self.stage, "precision": self.precision}
        saving.start({**manifest, **facts}, prune)
        return saving

    def _estimate(self) -> int:
        """About how many bytes a checkpoint takes: weights, fp32 weights, Adam's two moments."""
        weights = sum(getattr(p, "ds_numel", p.numel()) for p in self.module.parameters())
        own = 0 if self.stage in (0, 3) else 4 if self.precision == "fp32" else 2
        return weights * (12 + own)

    def close(self) -> None:
        """Print what DeepSpeed has to say at the end of a run.  All ranks call it, once."""
        if self.counts_collectives:
            deepspeed_hooks.summarize_collectives()

    def _moved(self, found: Found, where: str) -> Path | None:
        """The universal form of a checkpoint that another number of processes wrote."""
        was = found.manifest
        if (was["stage"], was["precision"]) != (self.stage, self.precision):
            raise Refused(
                f"{found.folder} was written with ZeRO stage {was['stage']} in {was['precision']}, "
                f"{where} asks for stage {self.stage} in {self.precision}: keep the former, or "
                "start a new run from the exported weights"
            )
        if was["world"] == self.world.size or self.stage == 0:
            return None
        return Path(on_rank0(lambda: str(converted(found, self.stage))))

    def _load(self, found: Found, moved: Path | None) -> None:
        deepspeed_hooks.loaded_by(self.engine, load)
        path, _ = self.engine.load_checkpoint(str(moved or found.folder), tag=STATE)
        # DeepSpeed returns None for a checkpoint it cannot find, and would train from scratch.
        assert path is not None, found.folder
        if found.manifest["world"] == self.world.size:
            mine = found.folder / f"rank-{self.world.rank:05d}.pt"
            set_rng_state(load(mine))
        gathered(None)  # nobody may still be reading
        if moved and self.world.first:
            shutil.rmtree(moved)


def full_weights(found: Found) -> dict[str, torch.Tensor]:
    """All weights of a checkpoint in fp32 on the CPU, by name, from any stage and world.

    Without a process group.  Raises Refused for a file that holds what we do not unpickle.
    """
    _deepspeed()
    for file in found.manifest["files"]:
        load(found.folder / file, mmap=True)  # DeepSpeed's function unpickles without asking
    if found.manifest.get("stage") == 0:
        return load(found.folder / STATE / "mp_rank_00_model_states.pt", "cpu")["module"]
    with open(os.devnull, "w") as nowhere, redirect_stdout(nowhere), redirect_stderr(nowhere):
        return deepspeed_hooks.full_weights(str(found.folder), STATE)


def _like(parameter: nn.Parameter, data: torch.Tensor) -> nn.Parameter:
    return nn.Parameter(data.detach(), requires_grad=parameter.requires_grad)


def _total(tables: Sequence[Mapping], names) -> dict[str, float]:
    """Sums by name; tensors are fetched once, at the end."""
    unknown = {name for table in tables for name in table} - {*names, "tokens"}
    assert not unknown, f"no weight is given for {sorted(unknown)}"
    return {name: float(sum(table.get(name, 0) for table in tables)) for name in names}


def _divisors(normalize: str, counts: Mapping, weights: Mapping) -> Mapping[str, float]:
    """What the sum of each term is divided by.  "goals": Mask-Predict's, ProphetNet's, BANG's."""
    if normalize == "tokens":
        return dict.fromkeys(weights, counts["tokens"])
    if normalize == "goals":
        asked = (n for n in weights if n.startswith("ce/") and n != "ce/length")
        return dict.fromkeys(weights, sum(counts[n] for n in asked))
    assert normalize in ("term", "microbatch"), normalize
    return counts


def _means(sums: Mapping[str, float], counts: Mapping[str, float]) -> dict[str, float]:
    return {name: value / counts[name] for name, value in sums.items() if counts[name]}


def _prepare(optimizer: OptimizerSettings, where: str) -> None:
    """What an optimizer needs before DeepSpeed makes it; Refused where it cannot be had."""
    if optimizer.name == "muon":
        deepspeed_hooks.muon_takes(_in_layers)
    if optimizer.name == "cpu_adam" and (why := deepspeed_hooks.unbuilt_adam()):
        raise Refused(f"{where}: optimizer.name = 'cpu_adam' could not be compiled here: {why}")


def _in_layers(name: str, parameter: nn.Parameter) -> bool:
    """The matrices of a module list named layers: no embedding, no head, no vector."""
    shape = getattr(parameter, "ds_shape", parameter.shape)
    return ".layers." in f".{name}" and len(shape) == 2


def _understood(config: dict, where: str) -> None:
    """Let DeepSpeed look at its configuration first, and say in one line what it refuses."""
    from deepspeed.runtime.config import DeepSpeedConfig, DeepSpeedConfigError

    try:
        DeepSpeedConfig(copy.deepcopy(config))
    except (ValueError, AssertionError, DeepSpeedConfigError) as error:
        why = " ".join(str(error).split())
        if hasattr(error, "errors"):  # pydantic's, which is a page long
            first = error.errors()[0]
            why = f"{'.'.join(map(str, first['loc']))}: {first['msg']}, got {first['input']!r}"
        raise Refused(f"{where}: {why}") from None
