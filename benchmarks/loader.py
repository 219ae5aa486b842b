"""Loader: sampler, windows and collation against HF arrow batches and mosaicml-streaming.

`python -m benchmarks.loader [CORPUS] [--rounds N] [--length L]`
All give torch int64 [32, L] of the same windows of the same real tokens from files that are in the
page cache, HF's in the same order.  Interleaved rounds, samples per CPU second of the thread,
median of the paired ratios; the command fails where any token differs.  "januslm, packed" is what a
run of pretraining gets of these windows: noise drawn, streams laid out, packed.
CORPUS is a folder made by `python -m data_tools build`, by default the demo's.
mosaicml-streaming is compared where it is installed (`pip install --no-deps mosaicml-streaming
boto3 botocore python-snappy cramjam zstd catalogue`); what it imports for pictures and clouds alone
is stood in for by empty modules.
"""

import argparse
import importlib.util
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from importlib.machinery import ModuleSpec
from types import ModuleType

import numpy as np
import torch

from benchmarks.record import record
from januslm.config import Refused
from januslm.data.sampler import Sampler
from januslm.data.shards import Corpus, open_corpus
from januslm.data.tokenizer import Special
from januslm.model.config import configure
from januslm.model.packing import Packer
from januslm.objective import LossSettings, resolve_objective
from januslm.training.job import batch_of

BATCH = 32
STEPS = 50  # batches per round
PACKED = "januslm, packed"
FORMATS = ("numpy", "torch", "arrow")
WANTED = {"HF numpy": 10.0, "mosaicml shuffled": 30.0}  # times as many samples per CPU second
STOOD_IN = (
    "torchvision",
    "torchvision.datasets",
    "torchvision.transforms",
    "torchvision.transforms.functional",
    "oci",
    "paramiko",
    "matplotlib",
)


def ours(corpus: Corpus, length: int) -> Callable[[int], torch.Tensor]:
    """Step -> batch, as a training run reads it."""
    sampler = Sampler([corpus.windows(length)], [1], seed=0)

    def batch(step: int) -> torch.Tensor:
        _, index, _ = sampler.locate(sampler.ids(step, BATCH))
        return torch.from_numpy(corpus.read_windows(index, length))

    return batch


def theirs(corpus: Corpus, length: int, kind: str, folder: str) -> Callable[[int], torch.Tensor]:
    """Step -> batch from an arrow dataset of the same windows, asked in the same order."""
    import datasets

    datasets.disable_progress_bars()
    if not os.listdir(folder):
        windows = corpus.read_windows(np.arange(corpus.windows(length)), length)
        rows = {"ids": list(windows.astype(corpus.manifest["dtype"]))}
        datasets.Dataset.from_dict(rows).save_to_disk(folder)
    data = datasets.load_from_disk(folder).with_format(kind)
    sampler = Sampler([len(data)], [1], seed=0)

    def batch(step: int) -> torch.Tensor:
        _, index, _ = sampler.locate(sampler.ids(step, BATCH))
        ids = data[index]["ids"]
        if kind == "arrow":
            flat = ids.combine_chunks().values.to_numpy()
            return torch.from_numpy(flat.reshape(len(index), length).astype(np.int64))
        if kind == "numpy":
            return torch.from_numpy(np.asarray(ids).astype(np.int64))
        return ids.long()

    return batch


def packed(corpus: Corpus, length: int) -> Callable[[int], object]:
    """Step -> batch of the janus objective, as a run's process packs it."""
    vocabulary = corpus.manifest["vocabulary"]
    special = Special(vocabulary=vocabulary)
    objective = resolve_objective(
        {"name": "janus"}, {}, LossSettings(), "pretrain", special, "benchmark"
    )
    config = configure({"width": 32, "ffn": 64, "heads": 2}, vocabulary, "benchmark")
    sampler = Sampler([corpus.windows(length - 2)], [1], seed=0)
    packer = Packer(objective.loss.weights, row=8192)  # as on a GPU, where masks are made

    def batch(step: int):
        ids = sampler.ids(step, BATCH)
        windows = corpus.read_windows(sampler.locate(ids)[1], length - 2)
        pairs = [(None, np.concatenate([[special.bos], w, [special.eos]])) for w in windows]
        return batch_of(packer, objective, pairs, ids, 0, config)

    return batch


def mosaicml(corpus: Corpus, length: int, shuffle: bool, folder: str) -> Callable:
    """Step -> next batch of a StreamingDataset of the same windows; it has an order of its own."""
    streaming = _streaming()
    windows = corpus.read_windows(np.arange(corpus.windows(length)), length)
    kind = corpus.manifest["dtype"]
    with streaming.MDSWriter(out=folder, columns={"ids": f"ndarray:{kind}:{length}"}) as out:
        for window in windows.astype(kind):
            out.write({"ids": window})
    data = streaming.StreamingDataset(local=folder, shuffle=shuffle, batch_size=BATCH)
    for i in range(0, len(data), 97):
        if not (data[i]["ids"] == windows[i]).all():
            raise ValueError("the tokens of mosaicml-streaming differ")

    samples = iter(data)

    def batch(step: int) -> torch.Tensor:
        rows = [next(samples)["ids"] for _ in range(BATCH)]
        return torch.from_numpy(np.stack(rows).astype(np.int64))

    return batch


def _streaming() -> ModuleType:
    """The package, with empty modules for what it needs where pictures or clouds are read."""

    def anything(name: str) -> type:
        if name.startswith("__"):
            raise AttributeError(name)
        return type(name, (), {})

    missing = {name.partition(".")[0] for name in STOOD_IN}
    missing = {name for name in missing if not importlib.util.find_spec(name)}
    for name in STOOD_IN:
        if name.partition(".")[0] in missing:
            stub = ModuleType(name)
            stub.__spec__, stub.__path__ = ModuleSpec(name, None), []
            stub.__dict__["__getattr__"] = anything
            sys.modules[name] = stub
    import streaming

    return streaming


def seconds(batch: Callable[[int], object], first: int, steps: int) -> float:
    """CPU seconds of so many batches, of this thread: mosaicml's others wait all the time."""
    start = time.thread_time()
    for step in range(first, first + steps):
        batch(step)
    return time.thread_time() - start


def compare(corpus: Corpus, length: int, rounds: int) -> dict:
    """Samples per CPU second of each loader and our median paired ratio to each.

    Raises ValueError where a decoder's tokens differ from ours.
    """
    mine = ours(corpus, length)
    rounds = min(rounds, corpus.windows(length) // (BATCH * STEPS))  # mosaicml: in one epoch
    with tempfile.TemporaryDirectory() as arrow, tempfile.TemporaryDirectory() as mds:
        others = {f"HF {kind}": theirs(corpus, length, kind, arrow) for kind in FORMATS}
        for name, other in others.items():
            if not all(torch.equal(mine(step), other(step)) for step in range(50)):
                raise ValueError(f"the tokens of {name} batches differ")
        if importlib.util.find_spec("streaming"):
            for name, shuffle in (("mosaicml in order", False), ("mosaicml shuffled", True)):
                others[name] = mosaicml(corpus, length, shuffle, f"{mds}/{shuffle}")
        others[PACKED] = packed(corpus, length)
        ratios: dict[str, list[float]] = {name: [] for name in others}
        rates: dict[str, list[float]] = {name: [] for name in ("januslm", *others)}
        for number in range(rounds):
            for name, other in others.items():
                own = seconds(mine, number * STEPS, STEPS)
                steps = 2 if name == PACKED else STEPS  # 300 times as slow
                spent = seconds(other, number * STEPS, steps) * STEPS / steps
                ratios[name].append(spent / own)
                rates["januslm"].append(BATCH * STEPS / own)
                rates[name].append(BATCH * STEPS / spent)
    return {
        "samples_per_cpu_second": {name: statistics.median(r) for name, r in rates.items()},
        "median_paired_ratio": {name: statistics.median(r) for name, r in ratios.items()},
    }


def main() -> int:
    """Compare, print, record; exit code 1 where tokens differ or a ratio is below WANTED."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("corpus", nargs="?", default="corpora/docstrings/train")
    parser.add_argument("--length", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=15)
    given = parser.parse_args()
    torch.set_num_threads(1)
    try:
        corpus = open_corpus(given.corpus)
        found = compare(corpus, given.length, given.rounds)
    except Refused as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    windows = corpus.windows(given.length)
    print(
        f"{given.corpus}: {windows:,} windows of {given.length}, batches of {BATCH}, tokens equal"
    )
    ratios = found["median_paired_ratio"]
    for name, rate in found["samples_per_cpu_second"].items():
        ratio = ratios.get(name)
        tail = f", januslm reads {ratio:.1f} times as many" if ratio and name != PACKED else ""
        print(f"{name:>17}: {rate:>10,.0f} samples per CPU second{tail}")
    about = {"windows": windows, "length": given.length, "batch": BATCH, "rounds": given.rounds}
    print(f"written to {record('loader', about | found).name}")
    return int(any(ratios.get(name, wanted) < wanted for name, wanted in WANTED.items()))


if __name__ == "__main__":
    sys.exit(main())
