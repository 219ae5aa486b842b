"""A trained model with its task, ready to write, and the loop that has many texts written."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from januslm.config import Refused
from januslm.data.tasks import Task
from januslm.data.token_pairs import Limits
from januslm.decoding import Output
from januslm.inference.cuda_graphs import GraphedDecoder
from januslm.inference.incremental import IncrementalDecoder
from januslm.inference.request import PRECISIONS, TrainedRun
from januslm.interop import native
from januslm.objective import LossSettings, resolve_objective


@dataclass(frozen=True)
class LoadedModel:
    """What an exported run can be asked for: its model, its task and where the task's data lies."""

    saved: native.Saved
    task: Task
    root: Path
    decoder: IncrementalDecoder
    limits: Limits


@dataclass(frozen=True)
class Generated:
    """What one way wrote, in the order of the texts, and what it took."""

    outputs: list[Output]
    seconds: float  # by the clock
    cpu_seconds: float  # of this process: what a busy machine does not stretch

    @property
    def tokens(self) -> int:
        return sum(len(o.tokens) for o in self.outputs)

    @property
    def passes(self) -> float:
        """Decoder passes a sentence."""
        return sum(o.passes for o in self.outputs) / len(self.outputs)


def load(
    found: TrainedRun,
    threads: int | None = None,
    graphs: bool = False,
    precision: str | None = None,
) -> LoadedModel:
    """A run's model on the GPU where there is one, in bf16, else on some CPU threads, in fp32.

    precision: one of PRECISIONS in place of that.  graphs: capture passes (cuda_graphs.py).
    Refused for damaged weights, and for graphs without a GPU.
    """
    gpu = torch.cuda.is_available()
    if graphs and not gpu:
        raise Refused("--graphs: there is no CUDA device to capture graphs on")
    torch.set_num_threads(threads or torch.get_num_threads())
    saved = native.read(found.facts.folder)
    table, special = {"name": saved.objective, **saved.options}, saved.tokenizer.special
    objective = resolve_objective(table, {}, LossSettings(), "nmt", special, str(saved.folder))
    # bf16 is slower on the CPU
    kind = getattr(torch, PRECISIONS[precision or ("bf16" if gpu else "fp32")])
    model = saved.model.to("cuda" if gpu else "cpu", kind)
    packed = not gpu and kind == torch.float32
    decoder = (
        GraphedDecoder(model, objective)
        if graphs
        else IncrementalDecoder(model, objective, packed=packed)
    )
    return LoadedModel(saved, found.task, found.root, decoder, found.limits)


def write(
    decoder,
    ways: Mapping[str, Callable],
    arrays: Sequence[np.ndarray],
    special,
    batch: int,
    tick: Callable[[int], None] = lambda done: None,
) -> dict[str, Generated]:
    """Have each way write the texts of int64 [N] sources, in batches of like length, longest first.

    ways: name -> way(decoder, sources, special); all of them write a batch before the next one, so
    that a busy machine slows all alike.  tick: gets how many texts are done.
    """
    order = np.argsort([-len(a) for a in arrays], kind="stable")
    outputs: dict[str, list] = {name: [None] * len(arrays) for name in ways}
    seconds, cpu_seconds = dict.fromkeys(ways, 0.0), dict.fromkeys(ways, 0.0)
    for start in range(0, len(order), batch):
        mine = order[start : start + batch]
        for name, way in ways.items():
            before, cpu_before = time.perf_counter(), time.process_time()
            answers = way(decoder, [arrays[i] for i in mine], special)
            seconds[name] += time.perf_counter() - before
            cpu_seconds[name] += time.process_time() - cpu_before
            for i, output in zip(mine, answers, strict=True):
                outputs[name][i] = output
        tick(start + len(mine))
    return {name: Generated(outputs[name], seconds[name], cpu_seconds[name]) for name in ways}


def text(tokenizer, output: Output) -> str:
    """The words of an output on one line."""
    return " ".join(tokenizer.decode(output.tokens).split())
