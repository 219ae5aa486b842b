"""DeepSpeed, and everything that must be known about it: the only file that imports it."""

import copy
import functools
import logging
import os
import shutil
import socket
import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Generic, NoReturn, TypeVar

import torch
import torch.distributed as dist
from torch import nn

from januslm.config import Refused
from januslm.training.checkpoint import (
    STATE,
    Found,
    Saving,
    converted,
    gathered,
    on_rank0,
    rng_state,
    set_rng_state,
)
from januslm.training.ds_config import OptimizerSettings, Values, merge, precision, read, stage

__all__ = ["Engine", "OptimizerSettings", "Values", "World", "connect", "leave", "merge", "read"]

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
    import deepspeed.ops

    logging.getLogger("DeepSpeed").setLevel(logging.ERROR)
    # With no op called compatible, none is probed for (a second) and none compiled: else the
    # process group would start with a minute of g++ on a CPU.
    deepspeed.ops.__compatible_ops__ = {}
    _leave_muon_uncompiled()
    return deepspeed


def _leave_muon_uncompiled() -> None:
    """DeepSpeed imports its Muon to see that our optimizer is none; torch.compile would come along.

    That is torch._inductor, a third of the time in which a rank starts on a CPU.
    """
    from deepspeed.runtime import compiler

    compiled = compiler.compile
    compiler.compile = lambda *options, **more: lambda function: function
    try:
        import deepspeed.runtime.zero.muon.original_muon  # noqa: F401
    finally:
        compiler.compile = compiled


def connect(minutes: float = 30) -> World:
    """Join the other processes: started by the deepspeed launcher, mpirun, or alone.

    A collective that waits longer than `minutes` for another rank fails.
    """
    deepspeed = _deepspeed()
    under_mpi = {"OMPI_COMM_WORLD_SIZE", "PMI_SIZE"} & set(os.environ)
    if "RANK" not in os.environ and not under_mpi:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            unused = str(free.getsockname()[1])
        alone = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1"}
        os.environ.update(alone, MASTER_ADDR="127.0.0.1", MASTER_PORT=unused)
    port = int(os.environ.get("MASTER_PORT", 29500))
    deepspeed.init_distributed(timeout=timedelta(minutes=minutes), distributed_port=port)
    device = torch.device("cpu")
    if torch.cuda.is_available():
        device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0)))
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
        self.stage, self.precision = stage(ds), precision(ds)
        moved = self._moved(resume, where) if resume else None
        config = merge(values, ds, world.size, where, universal=bool(moved))
        _understood(config, where)
        # The same module without storage: gathered_copy() fills it.
        empty = {id(p): _like(p, p.to("meta")) for p in module.parameters()}
        self.skeleton = copy.deepcopy(module, empty)
        self.engine, *_ = deepspeed.initialize(
            model=module, model_parameters=module.parameters(), config=config
        )
        self.module = module
        if resume:
            self._load(resume, moved)

    @property
    def device(self) -> torch.device:
        return self.world.device

    def reduce(self, values: Mapping[str, float], largest: bool = False) -> dict[str, float]:
        """The sum (or the largest) of each value over all ranks, which must give the same names."""
        row = torch.tensor(list(values.values()), dtype=torch.float64, device=self.device)
        dist.all_reduce(row, op=dist.ReduceOp.MAX if largest else dist.ReduceOp.SUM)
        return dict(zip(values, row.tolist(), strict=True))

    def step(self, batches: Sequence, weights: Mapping[str, float], normalize: str, lr: float):
        """One optimizer step over the micro batches of all ranks.  Returns, of all ranks together,

        loss, terms (name -> mean), tokens, flops, grad_norm, and skipped: whether the gradient
        was not finite on some rank, and the weights therefore stayed as they were on all.
        """
        assert len(batches) == self.values.accumulate, (len(batches), self.values.accumulate)
        counts = _total([batch.counts for batch in batches], [*weights, "tokens"])
        size = {
            "all tokens": sum(b.tokens for b in batches),
            "flops": sum(b.flops for b in batches),
        }
        counts = self.reduce(counts | size)
        for group in self.engine.optimizer.param_groups:
            group["lr"] = lr
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
        totals = self.reduce({"loss": sum(losses).item()} | _total(sums, weights))
        loss = totals.pop("loss") / (self.world.size * len(batches))
        return {
            "loss": loss,
            "terms": _means(totals, counts),
            "grad_norm": norm,
            "tokens": counts["all tokens"],
            "flops": counts["flops"],
            "skipped": not self.engine.was_step_applied() or norm == float("inf"),
        }

    def _coefficients(self, batch, counts: dict, weights: Mapping, normalize: str) -> dict:
        # DeepSpeed takes the mean over ranks and micro batches, where we want the sum.
        undo = self.world.size * self.values.accumulate
        if normalize == "microbatch":
            return {n: w / max(batch.counts.get(n, 0), 1) for n, w in weights.items()}
        if normalize == "tokens":
            return {n: w * undo / max(counts["tokens"], 1) for n, w in weights.items()}
        assert normalize == "term", normalize
        return {n: w * undo / max(counts[n], 1) for n, w in weights.items()}

    def _apply(self, last: bool) -> float | None:
        """engine.step(); after the last micro batch the gradient's norm, inf if not finite."""
        norm = None
        if last and self.stage == 0:  # where DeepSpeed neither tells the norm nor looks at it
            limit = self.values.clip or float("inf")
            norm = nn.utils.clip_grad_norm_(self.module.parameters(), limit).item()
            if not norm < float("inf"):
                norm = float("inf")
                self.engine.zero_grad()  # Adam passes over parameters without a gradient
        self.engine.step()
        if last and norm is None:
            norm = float(self.engine.get_global_grad_norm())
        return norm

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
        counts, sums = self.reduce(counts), self.reduce(_total(parts[:counted], weights))
        per = dict.fromkeys(sums, counts["tokens"]) if normalize == "tokens" else counts
        loss = sum(weights[name] * value for name, value in _means(sums, per).items())
        return {"loss": loss, **_means(sums, counts)}

    @contextmanager
    def gathered_copy(self) -> Iterator[M | None]:
        """A copy of the module with all its weights in fp32 on rank 0, None elsewhere.

        All ranks enter.  The live module would not do: ZeRO-3's hooks wait for other ranks in each
        forward, and ZeRO-1 and 2 keep all weights in one tensor, which safetensors refuses.
        """
        filled: dict[int, torch.Tensor] = {}
        for empty, live in zip(self.skeleton.parameters(), self.module.parameters(), strict=True):
            full = self._full(live)
            if self.world.first:
                filled[id(empty)] = _like(empty, full.to(torch.float32, copy=True))
        for old, buffer in zip(self.skeleton.buffers(), self.module.buffers(), strict=True):
            filled[id(old)] = buffer.to(old.dtype, copy=True)
        yield copy.deepcopy(self.skeleton, filled).eval() if self.world.first else None

    def _full(self, parameter: nn.Parameter) -> torch.Tensor:
        if self.stage < 3 and self.precision == "fp32":
            return parameter.detach()
        from deepspeed.utils import safe_get_full_fp32_param

        full = safe_get_full_fp32_param(parameter)  # a collective
        assert full is not None, tuple(parameter.shape)
        return full.detach().reshape(getattr(parameter, "ds_shape", parameter.shape))

    def save(self, root: Path, step: int, manifest: dict, keep: int) -> Path:
        """Write and publish a checkpoint, or raise NotSaved on all ranks."""
        saving = Saving(root, step)
        writer = self.engine.checkpoint_engine
        writer.save = lambda state_dict, path: saving.write(
            path, functools.partial(torch.save, state_dict)
        )
        # DeepSpeed would also put scripts there, which fail on tied weights.
        self.engine._copy_recovery_script = lambda path: None
        self.engine.save_checkpoint(str(saving.path), tag=STATE, save_latest=False)
        mine = saving.path / f"rank-{self.world.rank:05d}.pt"
        saving.write(mine, functools.partial(torch.save, rng_state()))
        facts = {"world": self.world.size, "stage": self.stage, "precision": self.precision}
        return saving.publish(manifest | facts, keep)

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
        path, _ = self.engine.load_checkpoint(str(moved or found.folder), tag=STATE)
        # DeepSpeed returns None for a checkpoint it cannot find, and would train from scratch.
        assert path is not None, found.folder
        if found.manifest["world"] == self.world.size:
            mine = found.folder / f"rank-{self.world.rank:05d}.pt"
            set_rng_state(torch.load(mine, weights_only=True))
        gathered(None)  # nobody may still be reading
        if moved and self.world.first:
            shutil.rmtree(moved)


def _like(parameter: nn.Parameter, data: torch.Tensor) -> nn.Parameter:
    return nn.Parameter(data.detach(), requires_grad=parameter.requires_grad)


def _total(tables: Sequence[Mapping], names) -> dict[str, float]:
    """Sums by name; tensors are fetched once, at the end."""
    unknown = {name for table in tables for name in table} - {*names, "tokens"}
    assert not unknown, f"no weight is given for {sorted(unknown)}"
    return {name: float(sum(table.get(name, 0) for table in tables)) for name in names}


def _means(sums: Mapping[str, float], counts: Mapping[str, float]) -> dict[str, float]:
    return {name: value / counts[name] for name, value in sums.items() if counts[name]}


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
