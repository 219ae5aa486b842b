"""An update of JANUS' pretraining at base and large size: seconds, MFU, memory, and where they go.

`python -m benchmarks.gpu_step [--size base large] [--tokens 65536] [--rounds 5] [--limit 90]`
Four settings take turns, every other round in reverse: ZeRO-1 in bf16 and ZeRO-0 in fp32 (TF32
products), each with its layers through torch.compile and without.  The engine is ours, around
DeepSpeed's; without DeepSpeed torch's own AdamW under bf16 autocast stands in for it, and says so.
gpu_step.json in --results is written after every setting and round.  Texts are random words in
windows of 512, as base.toml reads them, or --corpus FOLDER --tokenizer FILE.  A trial of the
command itself: `--size tiny --tokens 2000 --device cpu --rounds 1 --results build`.
"""

import argparse
import functools
import gc
import signal
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from torch.profiler import record_function

from benchmarks import kernel_split
from benchmarks.record import FOLDER, record
from januslm.data.prefetch import ahead
from januslm.data.sampler import portions
from januslm.data.token_samples import PretrainData, Source, Texts
from januslm.data.tokenizer import Special, Tokenizer
from januslm.model import losses
from januslm.model.config import ModelConfig, configure
from januslm.model.joint_loss import ModelWithLoss
from januslm.model.packing import Packer
from januslm.model.transformer import Layer, Seq2Seq, parameters
from januslm.objective import LossSettings, Objective, resolve_objective
from januslm.training.job import batch_of
from januslm.training.machine import memory, peak_flops
from januslm.training.settings import PackingSettings


@dataclass(frozen=True)
class Size:
    """A model and its texts; micro: target tokens at once that should fit 78 GiB."""

    model: dict
    length: int
    vocabulary: int
    micro: int


SIZES = {
    "tiny": Size({"preset": "tiny"}, 48, 4000, 1000),
    "base": Size({"preset": "base"}, 512, 51200, 16384),
    "large": Size({"preset": "large", "activation_checkpointing": True}, 512, 51200, 16384),
}
SETTINGS = {
    "zero1-bf16": ({"zero_optimization": {"stage": 1}, "bf16": {"enabled": True}}, False),
    "zero1-bf16-compiled": ({"zero_optimization": {"stage": 1}, "bf16": {"enabled": True}}, True),
    "zero0-tf32": ({"zero_optimization": {"stage": 0}}, False),
    "zero0-tf32-compiled": ({"zero_optimization": {"stage": 0}}, True),
}
WARM, LR = 2, 1e-4


class OutOfTime(Exception):
    """A setting took longer than it may."""


@contextmanager
def within(seconds: float) -> Iterator[None]:
    """Raise OutOfTime in what takes longer, be it compiling."""

    def over(*_):
        raise OutOfTime(f"over its limit of {seconds:.0f} s")

    before = signal.signal(signal.SIGALRM, over)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@dataclass(frozen=True)
class Work:
    """What every setting of a size is timed on; picklable, since processes pack it."""

    objective: Objective
    config: ModelConfig
    packer: Packer
    length: int
    texts: Texts | None = None

    def micro(self, ids: np.ndarray) -> object:
        """One micro batch of these samples."""
        pairs = self.texts.read(ids) if self.texts else [(None, self._words(i)) for i in ids]
        return batch_of(self.packer, self.objective, pairs, ids, 1, self.config)

    def update(self, parts: list[np.ndarray]) -> list:
        """The micro batches of an update."""
        return [self.micro(part) for part in parts]

    def _words(self, i: int) -> np.ndarray:
        special = self.objective.special
        inner = np.random.default_rng(int(i)).integers(5, special.vocabulary, self.length - 2)
        return np.concatenate([[special.bos], inner, [special.eos]])


@dataclass
class Timed:
    """One setting: its engine, its batches, and what was measured."""

    step: Callable[[list], dict]
    batches: Iterator
    accumulate: int
    seconds: list[float] = field(default_factory=list)
    waits: list[float] = field(default_factory=list)
    flops: list[float] = field(default_factory=list)
    tokens: list[float] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)
    state: float = 0.0  # GiB of weights, gradients and Adam, on a GPU
    peak: float = 0.0  # GiB that an update adds
    parts: dict = field(default_factory=dict)

    def update(self) -> None:
        """Take the next batches and train on them."""
        cuda = torch.cuda.is_available()
        began = time.perf_counter()
        with record_function(kernel_split.DATA):
            batch = next(self.batches)
        self.waits.append(time.perf_counter() - began)
        result = self.step(batch)
        if cuda:
            torch.cuda.synchronize()
        self.seconds.append(time.perf_counter() - began)
        self.losses.append(float(result["loss"]))
        self.flops.append(float(result["flops"]))
        self.tokens.append(float(sum(b.tokens for b in batch)))


def work(size: Size, corpus: str, tokenizer_file: str, cuda: bool) -> Work:
    """The objective of base.toml and its texts."""
    special, texts = Special(vocabulary=size.vocabulary), None
    if corpus:
        words = Tokenizer.load(tokenizer_file)
        source, special = [Source(corpus)], words.special
        texts = Texts(
            PretrainData(source, source, size.length, "windows", "size"), source, words, 1
        )
    options = {"name": "janus", "query_position": "target"}
    objective = resolve_objective(options, {}, LossSettings(), "pretrain", special, "gpu_step")
    config = configure(size.model, special.vocabulary, "gpu_step", objective.extra_vectors)
    row = PackingSettings().row if cuda else None  # dense plans on a CPU
    return Work(objective, config, Packer(objective.loss.weights, 1, row), size.length, texts)


def stepper(task: Work, ds: dict, compiled: bool, batch: int, accumulate: int, world) -> Callable:
    """step(batches) -> loss and flops, of a fresh model in this setting."""
    torch.manual_seed(1)
    module = ModelWithLoss(Seq2Seq(task.config), task.objective.loss)
    if compiled:  # layer by layer: the batches' lists and block masks stay outside
        backend = "inductor" if world.device.type == "cuda" else "eager"  # no g++ on a CPU
        for part in module.modules():
            if isinstance(part, Layer):
                part.compile(dynamic=True, backend=backend)
    weights, normalize = task.objective.loss.weights, task.objective.loss.normalize
    if world.size == 1 and not found_deepspeed():
        return plain(module, weights, batch, world.device)
    from januslm.training.engine import Engine, OptimizerSettings, Values

    engine = Engine(module, Values(batch, accumulate, 1.0, OptimizerSettings(lr=LR)), ds, world)
    engine.engine.step = kernel_split.annotated(kernel_split.OPTIMIZER, engine.engine.step)
    return lambda batches: engine.update(batches, weights, normalize, LR)


def plain(module: torch.nn.Module, weights: dict, batch: int, device: torch.device) -> Callable:
    """torch alone: fp32 weights, bf16 autocast, its AdamW."""
    module.to(device).train()
    adam = torch.optim.AdamW(module.parameters(), lr=LR, fused=True)
    optimize = kernel_split.annotated(kernel_split.OPTIMIZER, adam.step)

    def step(batches: list) -> dict:
        total, tokens = 0.0, sum(b.tokens for b in batches)
        for one in batches:
            scale = {name: weight / tokens for name, weight in weights.items()}
            with torch.autocast(device.type, torch.bfloat16):
                loss, _ = module(one.to(device), scale)
            loss.backward()
            total += loss.item()
        torch.nn.utils.clip_grad_norm_(module.parameters(), 1.0)
        optimize()
        adam.zero_grad()
        return {"loss": total, "flops": sum(b.flops for b in batches)}

    return step


@functools.cache
def found_deepspeed() -> bool:
    """Whether DeepSpeed is installed, or lies where the wheels were put."""
    return find_spec("deepspeed") is not None


def connected(device: str):
    """The world, of DeepSpeed if it is there."""
    if found_deepspeed():
        from januslm.training.engine import connect

        return connect()
    from types import SimpleNamespace

    return SimpleNamespace(rank=0, size=1, device=torch.device(device), first=True)


def prepared(task: Work, name: str, tokens: int, micro: int, world, stack: ExitStack) -> Timed:
    """A setting that has run its first updates; micro batches are halved until they fit."""
    ds, compiled = SETTINGS[name]
    batch = max(tokens // task.length, 1)
    accumulate = max(1, min(-(-tokens // (micro * world.size)), batch // world.size))
    while True:
        mine = portions(0, 10_000, batch, accumulate, world.rank, world.size)
        workers = int(world.device.type == "cuda")
        try:
            batches = stack.enter_context(ahead(task.update, mine, workers))
            step = stepper(task, ds, compiled, batch, accumulate, world)
            one = Timed(step, batches, accumulate)
            for _ in range(WARM):
                one.update()
            first = one.losses
            return Timed(step, batches, accumulate, losses=first)
        except torch.OutOfMemoryError:
            if accumulate >= batch // world.size:
                raise
            accumulate *= 2
            said(f"{name}: out of memory, now {accumulate} micro batches")
        step = one = None  # what holds the memory
        gc.collect()
        torch.cuda.empty_cache()


def said(text: str) -> None:
    print(text, flush=True)


def measured(size: str, asked: argparse.Namespace, world, results: dict) -> None:
    """All settings of one size, in turns; `results` is filled and written as it comes."""
    cuda = world.device.type == "cuda"
    task = work(SIZES[size], asked.corpus, asked.tokenizer, cuda)
    here = results.setdefault(size, {"settings": {}})
    here["parameters"] = parameters(Seq2Seq(task.config))
    began = time.perf_counter()
    task.update(next(iter(portions(0, 1, max(asked.tokens // task.length, 1), 1, 0, 1))))
    here["packing_seconds"] = time.perf_counter() - began  # in one process, beside the GPU
    running: dict[str, Timed] = {}
    with ExitStack() as stack:
        for name in asked.setting:
            held = allocated(world.device)
            try:
                with within(asked.limit):
                    made = prepared(task, name, asked.tokens, SIZES[size].micro, world, stack)
                made.state = allocated(world.device) - held
                running[name] = made
            except (OutOfTime, torch.OutOfMemoryError) as error:
                here["settings"][name] = {"failed": f"{type(error).__name__}: {error}"[:300]}
                said(f"{size}, {name}: {here['settings'][name]['failed']}")
        for turn in range(asked.rounds + 1):
            order = list(running) if turn % 2 == 0 else list(reversed(running))
            for name in order:
                last = turn == asked.rounds
                here["settings"][name] = one_turn(running, name, last, asked.limit, world)
                written(results, asked.results)
    del running
    gc.collect()
    for name, row in here["settings"].items():
        shown(size, name, row)


def one_turn(running: dict, name: str, last: bool, limit: float, world) -> dict:
    """A timed update, or the last, which is profiled; gives what is known of the setting so far."""
    one, cuda = running[name], world.device.type == "cuda"
    held = allocated(world.device)
    if cuda:
        torch.cuda.reset_peak_memory_stats()
    try:
        with within(limit):
            if last:
                one.parts = kernel_split.split(lambda: untimed(one), cuda)
            else:
                one.update()
    except OutOfTime as error:
        return summary(one, name, world) | {"failed": str(error)}
    peak = memory(world.device) - held
    one.peak = max(one.peak, 0.0 if last else peak)
    return summary(one, name, world)


def allocated(device: torch.device) -> float:
    """GiB that live on a GPU now; 0 on a CPU."""
    return torch.cuda.memory_allocated() / 2**30 if device.type == "cuda" else 0.0


def untimed(one: Timed) -> None:
    """An update whose time, that of the profiler among it, does not count."""
    one.update()
    for kept in (one.seconds, one.waits, one.flops, one.tokens):
        kept.pop()


def summary(one: Timed, name: str, world) -> dict:
    """Medians of a setting's rounds."""
    if not one.seconds:
        return {"accumulate": one.accumulate, "losses": one.losses}
    seconds = statistics.median(one.seconds)
    bf16 = "bf16" in name or not found_deepspeed()
    peak = peak_of(world.device, "bf16" if bf16 else "fp32")
    return {
        "seconds": seconds,
        "rounds": one.seconds,
        "target_tokens_per_second": statistics.median(one.tokens) * world.size / seconds,
        "mfu": statistics.median(one.flops) / seconds / (peak * world.size),
        "peak_flops": peak,
        "wait_seconds": statistics.median(one.waits),
        # On a CPU of the whole process, with the other settings' models in it.
        "peak_gib" if world.device.type == "cuda" else "process_gib": one.state + one.peak,
        "accumulate": one.accumulate,
        "losses": one.losses,
        "profile": one.parts,
    }


@functools.cache
def peak_of(device: torch.device, precision: str) -> float:
    """Measured once: a large product of this type, TF32 for fp32 on a GPU."""
    return peak_flops(device, precision)


def shown(size: str, name: str, row: dict) -> None:
    """A setting in two lines."""
    if "seconds" not in row:
        return
    spread = f"{min(row['rounds']):.3f} to {max(row['rounds']):.3f}"
    kept = row.get("peak_gib", row.get("process_gib", 0.0))
    speed = row["target_tokens_per_second"]
    said(
        f"{size:6}{name:22}{row['seconds']:8.3f} s ({spread}){speed:10,.0f} tok/s  "
        f"MFU {row['mfu']:6.1%}  {kept:6.1f} GiB  {row['accumulate']} micro batches"
    )
    if row["profile"]:
        parts, total = row["profile"]["parts"], row["profile"]["seconds"]
        shares = "  ".join(f"{part} {value / total:.1%}" for part, value in parts.items())
        said(f"{'':6}of {total:.3f} s profiled: {shares}")


def written(results: dict, folder: Path) -> None:
    """Keep what is there so far."""
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"
    engine = "DeepSpeed" if found_deepspeed() else "torch's AdamW, bf16 autocast"
    record("gpu_step", {"device": device, "engine": engine, **results}, folder)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        "python -m benchmarks.gpu_step",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--size", nargs="+", choices=SIZES, default=["base", "large"])
    parser.add_argument("--setting", nargs="+", choices=SETTINGS, default=list(SETTINGS))
    parser.add_argument("--tokens", type=int, default=65536, help="target tokens per update")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument(
        "--limit", type=float, default=90, help="seconds a setting may take at once"
    )
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--corpus", default="", help="a folder of data_tools build, its train/")
    parser.add_argument("--tokenizer", default="", help="the corpus' tokenizer.json")
    parser.add_argument("--results", type=Path, default=FOLDER, metavar="FOLDER")
    return parser.parse_args()


def main() -> int:
    """0; 2 without the device that was asked for; 1 where no setting ran."""
    asked = arguments()
    if asked.device == "cuda" and not torch.cuda.is_available():
        print("error: no CUDA device here; --device cpu --size tiny is a trial", file=sys.stderr)
        return 2
    torch.backends.cuda.matmul.allow_tf32 = True
    losses.fused = kernel_split.annotated(kernel_split.LOSS, losses.fused)
    world, results = connected(asked.device), {}
    for size in asked.size:
        measured(size, asked, world, results)
    done = [row for size in results.values() for row in size["settings"].values()]
    return 0 if any("seconds" in row for row in done) else 1


if __name__ == "__main__":
    code = main()
    if "deepspeed" in sys.modules and code != 2:
        from januslm.training.engine import leave

        leave(code)  # an ordinary exit now and then aborts in gloo
    sys.exit(code)
