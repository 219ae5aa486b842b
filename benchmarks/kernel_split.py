"""Where an update's time goes: a torch.profiler trace, each instant given to one part.

On a GPU kernels are distinguished by name, and by the range (loss, optimizer) in which they were
launched; on a CPU the innermost operation counts.  Instants without any are waiting.
"""

import itertools
import json
import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch.profiler import ProfilerActivity, profile, record_function

UPDATE, DATA, LOSS, OPTIMIZER = "step/update", "step/data", "step/loss", "step/optimizer"
RANGES = {DATA: "data", LOSS: "loss", OPTIMIZER: "optimizer"}
PARTS = (
    "attention",
    "products",
    "loss",
    "optimizer",
    "collectives",
    "data",
    "waiting",
    "rest",
    "unclassified",
)
# The first that fits, in this order; names as in torch 2.11 and 2.13.
NAMES = (
    ("collectives", r"nccl|gloo|c10d::|record_param_comms"),
    (
        "attention",
        r"flex_attention|flash|fmha|scaled_dot_product|softmax|aten::bmm|attention"
        r"|_Spread|_Collect",
    ),
    ("products", r"gemm|nvjet|cutlass|aten::(addmm|mm|linear|matmul)\b|cublas|splitk|s16816|xmma"),
    ("optimizer", r"[Aa]dam|multi_tensor|_foreach|lpnorm|clip"),
    (
        "rest",
        r"aten::|triton_|elementwise|reduce|layer_norm|LayerNorm|GammaBeta|dropout|gelu|index|copy"
        r"|Cat|cat_|fill|scatter|gather|embedding|Memcpy|Memset|sort|Sort|scan|arange|where|"
        r"compact|radix|unrolled|vectorized|torch::autograd|autograd::|Backward|Optimizer\.|detach"
        r"|Dynamo|Compiled|Pregraph|ApplyTemplate|mkldnn",
    ),
)


@dataclass(frozen=True)
class Interval:
    """Something that ran, in microseconds."""

    start: float
    end: float
    name: str
    part: str


def annotated(name: str, function: Callable) -> Callable:
    """The function, with a range of this name in the trace."""

    def call(*given, **named):
        with record_function(name):
            return function(*given, **named)

    return call


def part_of(name: str) -> str:
    """The part that a kernel or an operation of this name belongs to."""
    return next((part for part, like in NAMES if re.search(like, name)), "unclassified")


def split(update: Callable[[], object], cuda: bool) -> dict:
    """Run one update under the profiler: {"seconds", "parts": seconds by part, "unclassified"}."""
    kinds = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if cuda else [])]
    with profile(activities=kinds) as found, record_function(UPDATE):
        update()
        if cuda:
            torch.cuda.synchronize()
    with TemporaryDirectory() as folder:
        path = Path(folder) / "trace.json"
        found.export_chrome_trace(str(path))
        return of_trace(json.loads(path.read_text())["traceEvents"], cuda)


def of_trace(events: list[dict], cuda: bool) -> dict:
    """The same of a Chrome trace's events."""
    timed = [e for e in events if e.get("ph") == "X"]
    whole = next(e for e in timed if e["name"] == UPDATE and e["cat"] == "user_annotation")
    ranges = [e for e in timed if e["name"] in RANGES and e["cat"] == "user_annotation"]
    ran = list(_kernels(timed, ranges) if cuda else _operations(timed, ranges, whole["tid"]))
    start, end = whole["ts"], whole["ts"] + whole["dur"]
    seconds = dict.fromkeys(PARTS, 0.0)
    unknown: Counter = Counter()
    cuts = [t for r in ranges for t in (r["ts"], r["ts"] + r["dur"])]
    for instant, active in _sweep(ran, start, end, cuts):
        one = _foremost(active, cuda)
        part = one.part if one else _between(ranges, instant[0])
        seconds[part] += (instant[1] - instant[0]) / 1e6
        if one and part == "unclassified":
            unknown[one.name] += (instant[1] - instant[0]) / 1e6
    return {
        "seconds": (end - start) / 1e6,
        "parts": seconds,
        "unclassified": dict(unknown.most_common(10)),
    }


def _kernels(timed: list[dict], ranges: list[dict]) -> Iterator[Interval]:
    """What ran on the GPU; a range counts if the kernel was launched in it."""
    launched = {
        e["args"]["correlation"]: e["ts"]
        for e in timed
        if e["cat"] in ("cuda_runtime", "cuda_driver") and "correlation" in e.get("args", {})
    }
    for e in timed:
        if e["cat"] in ("kernel", "gpu_memcpy", "gpu_memset"):
            at = launched.get(e["args"].get("correlation"), e["ts"])
            yield Interval(e["ts"], e["ts"] + e["dur"], e["name"], _part(e["name"], ranges, at))


def _operations(timed: list[dict], ranges: list[dict], thread: int) -> Iterator[Interval]:
    """What ran on the CPU in the thread that trains."""
    for e in timed:
        if e["cat"] == "cpu_op" and e["tid"] == thread:
            part = _part(e["name"], ranges, e["ts"])
            yield Interval(e["ts"], e["ts"] + e["dur"], e["name"], part)


def _part(name: str, ranges: list[dict], at: float) -> str:
    by_name = part_of(name)
    inside = [RANGES[r["name"]] for r in ranges if r["ts"] <= at < r["ts"] + r["dur"]]
    return inside[-1] if inside and by_name != "collectives" else by_name


def _between(ranges: list[dict], at: float) -> str:
    """Where nothing runs: waiting for data, or for this interpreter."""
    waits = [r for r in ranges if r["name"] == DATA and r["ts"] <= at < r["ts"] + r["dur"]]
    return "data" if waits else "waiting"


def _foremost(active: list[Interval], cuda: bool) -> Interval | None:
    """The one that an instant counts for: the innermost; on a GPU what hides a collective."""
    if cuda and (other := [one for one in active if one.part != "collectives"]):
        return other[-1]
    return active[-1] if active else None


def _sweep(ran: list[Interval], start: float, end: float, cuts: list[float]) -> Iterator[tuple]:
    """Between any two neighbouring edges: ((from, to), what runs then, the latest begun last)."""
    ran = sorted((one for one in ran if one.end > start and one.start < end), key=lambda i: i.start)
    edges = {start, end, *cuts, *(t for one in ran for t in (one.start, one.end))}
    edges = sorted(t for t in edges if start <= t <= end)
    active: list[Interval] = []
    coming = iter([*ran, None])
    following = next(coming)
    for instant in itertools.pairwise(edges):
        active = [one for one in active if one.end > instant[0]]
        while following is not None and following.start <= instant[0]:
            if following.end > instant[0]:
                active.append(following)
            following = next(coming)
        yield instant, active
