"""Loader: sampler, windows and collation against HF arrow batches, per CPU second.

`python -m benchmarks.loader [CORPUS] [--rounds N] [--length L]`
Both give torch int64 [32, L] of the same windows of the same real tokens in the same order, from
memory maps of files that are in the page cache.  Interleaved rounds, CPU time of the process,
median of the paired ratios; the command fails where any token differs.
CORPUS is a folder made by `python -m data_tools build`, by default the demo's.
"""

import argparse
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable

import numpy as np
import torch

from benchmarks.record import record
from januslm.config import Refused
from januslm.data.sampler import Sampler
from januslm.data.shards import Corpus, open_corpus

BATCH = 32
STEPS = 200  # batches per round
FORMATS = ("numpy", "torch", "arrow")
WANTED = 10.0  # times as many samples per CPU second as HF's numpy batches


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


def seconds(batch: Callable[[int], torch.Tensor], first: int) -> float:
    """CPU seconds of STEPS batches."""
    start = time.process_time()
    for step in range(first, first + STEPS):
        batch(step)
    return time.process_time() - start


def compare(corpus: Corpus, length: int, rounds: int) -> dict:
    """Samples per CPU second of each decoder and our median paired ratio to each.

    Raises ValueError where a decoder's tokens differ from ours.
    """
    mine = ours(corpus, length)
    ratios: dict[str, list[float]] = {kind: [] for kind in FORMATS}
    rates: dict[str, list[float]] = {kind: [] for kind in ("januslm", *FORMATS)}
    with tempfile.TemporaryDirectory() as folder:
        others = {kind: theirs(corpus, length, kind, folder) for kind in FORMATS}
        for kind, other in others.items():
            if not all(torch.equal(mine(step), other(step)) for step in range(50)):
                raise ValueError(f"the tokens of HF's {kind} batches differ")
        for number in range(rounds):
            for kind, other in others.items():
                own, hf = seconds(mine, number * STEPS), seconds(other, number * STEPS)
                ratios[kind].append(hf / own)
                rates["januslm"].append(BATCH * STEPS / own)
                rates[kind].append(BATCH * STEPS / hf)
    return {
        "samples_per_cpu_second": {kind: statistics.median(r) for kind, r in rates.items()},
        "median_paired_ratio": {kind: statistics.median(r) for kind, r in ratios.items()},
    }


def main() -> int:
    """Compare, print, record; exit code 1 where tokens differ or the ratio is below WANTED."""
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
    for kind, rate in found["samples_per_cpu_second"].items():
        ratio = found["median_paired_ratio"].get(kind)
        name = f"HF {kind}" if ratio else kind
        tail = f", januslm reads {ratio:.1f} times as many" if ratio else ""
        print(f"{name:>10}: {rate:>10,.0f} samples per CPU second{tail}")
    about = {"windows": windows, "length": given.length, "batch": BATCH, "rounds": given.rounds}
    print(f"written to {record('loader', about | found).name}")
    return int(found["median_paired_ratio"]["numpy"] < WANTED)


if __name__ == "__main__":
    sys.exit(main())
