"""What a checkpoint costs training: written while it waits, or beside it from host memory.

  python -m benchmarks.save_cost                     # a model of 47 million parameters, ZeRO-1, CPU
  python -m benchmarks.save_cost --rounds 9 --updates 20 --record

One process, one thread.  In each round the same number of updates is made three times: without a
save, with one that training waits for, with one beside it.  `stall` is how long training stands
still: the seconds inside of saving and publishing.  `wall` and `cpu` are the time of a round above
that of the round without a save, on the wall and of the thread that trains: they also hold what
writing beside takes from training where both share a core's caches and memory.  Both ways write
whole checkpoints: the run checks that their files are the same to the byte.
"""

import argparse
import shutil
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from benchmarks.record import record
from benchmarks.timing import ratio
from januslm.cli.table import drawn
from januslm.data.tokenizer import Special
from januslm.layout import Example
from januslm.model.config import ModelConfig
from januslm.model.joint_loss import ModelWithLoss
from januslm.model.packing import Batch, Packer
from januslm.model.transformer import Seq2Seq, parameters
from januslm.objective import LossSettings, Objective, resolve_objective
from januslm.training import engine
from januslm.training.checkpoint import Saving, Shelf
from januslm.training.engine import Engine, OptimizerSettings, Values
from januslm.training.manifest import Keep, check

MODES = ("none", "sync", "async")
KINDS = ("stall", "wall", "cpu")


def main() -> None:
    known = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    known.add_argument("--rounds", type=int, default=7)
    known.add_argument("--updates", type=int, default=12, help="per round and way to save")
    known.add_argument("--width", type=int, default=512)
    known.add_argument("--layers", type=int, default=6)
    known.add_argument("--folder", help="on which disk, default: the temporary folder's")
    known.add_argument("--record", action="store_true", help="write benchmarks/results/")
    options = known.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    world = engine.connect()
    objective = resolve_objective(
        {"name": "janus"}, {}, LossSettings(), "nmt", Special(vocabulary=8000), "benchmark"
    )
    module = ModelWithLoss(_model(options.width, options.layers), objective.loss)
    ds = {"zero_optimization": {"stage": 1}}
    it = Engine(module, Values(4, 1, 1.0, OptimizerSettings()), ds, world)
    batch, root = _batch(objective), Path(tempfile.mkdtemp(dir=options.folder, prefix="save-cost-"))
    try:
        results = _measured(it, objective, batch, root, options.rounds, options.updates)
    finally:
        shutil.rmtree(root)
    results = {"parameters": parameters(module.model), "updates": options.updates} | results
    _show(results)
    if options.record:
        print(f"wrote {record('save_cost', results)}")
    engine.leave(0)


def _model(width: int, layers: int) -> Seq2Seq:
    return Seq2Seq(
        ModelConfig(
            vocabulary=8000,
            width=width,
            ffn=4 * width,
            heads=8,
            encoder_layers=layers,
            decoder_layers=layers,
        )
    )


def _batch(objective: Objective) -> Batch:
    rng, made = np.random.default_rng(0), []
    for _ in range(4):
        target = np.concatenate([[0], rng.integers(10, 8000, 14), [2]])
        hidden = np.arange(16) % 2 == 1
        hidden[[0, -1]] = False
        made.append(Example(target, target, objective.layout(target, hidden, rng)))
    return Packer(objective.loss.weights, 1, None)(made)


class _Round:
    """Updates with one save after the first of them, or without."""

    def __init__(self, it: Engine, objective: Objective, batch: Batch, root: Path):
        self.it, self.objective, self.batch = it, objective, batch
        self.shelves = {mode: Shelf(root / mode, Keep(1)) for mode in MODES}
        self.step = 0

    def __call__(self, mode: str, updates: int) -> dict[str, float]:
        """Seconds of all, on the wall and of the training thread's CPU, and of standing still."""
        began, cpu = time.perf_counter(), time.thread_time()
        stall = 0.0
        saving: Saving | None = None
        for number in range(updates):
            self.update()
            now = time.perf_counter()
            if number == 0 and mode != "none":
                self.step += 1
                facts = {"samples": self.step}
                saving = self.it.save(self.shelves[mode], self.step, facts, mode == "async")
            if saving and (mode == "sync" or saving.written or number == updates - 1):
                saving.publish(wait=mode == "sync")
                saving = None
            stall += time.perf_counter() - now
        wall = time.perf_counter() - began
        return {"wall": wall, "cpu": time.thread_time() - cpu, "stall": stall}

    def update(self) -> None:
        weights = self.objective.loss.weights
        counts = self.it.agree([self.batch], weights, {"written": False}).counts
        self.it.step([self.batch], counts, weights, self.objective.loss.normalize, 1e-4)


def _measured(it, objective, batch, root: Path, rounds: int, updates: int) -> dict:
    run = _Round(it, objective, batch, root)
    run.update()
    _same(run)
    seconds: dict[str, list[dict[str, float]]] = {mode: [] for mode in MODES}
    for turn in range(rounds):
        for mode in MODES if turn % 2 == 0 else reversed(MODES):
            seconds[mode].append(run(mode, updates))
    results: dict = {"checkpoint_bytes": check(next((root / "sync").glob("step-*"))).bytes}
    for kind in KINDS:
        plain = [each[kind] for each in seconds["none"]]
        cost = {
            mode: [each[kind] - base for each, base in zip(seconds[mode], plain, strict=True)]
            for mode in ("sync", "async")
        }
        results[kind] = {
            "per_update": [total / updates for total in plain],
            "cost": cost,
            "async_share_of_sync": vars(ratio(cost["async"], cost["sync"])),
        }
    return results


def _same(run: _Round) -> None:
    """Warm up both ways on one state, and compare their files."""
    run.step += 1
    made = {}
    for mode in ("sync", "async"):
        saving = run.it.save(run.shelves[mode], run.step, {"samples": 0}, mode == "async")
        made[mode] = check(saving.publish()[0]).manifest["files"]
    assert made["sync"] == made["async"], "the two ways to save wrote different files"


def _show(results: dict) -> None:
    middle = statistics.median
    print(f"{results['parameters']:,} parameters, {results['checkpoint_bytes']:,} bytes")
    rows = [("seconds", "an update", "a save: sync", "async", "async / sync")]
    for kind in KINDS:
        one = results[kind]
        share = one["async_share_of_sync"]
        values = [one["per_update"], one["cost"]["sync"], one["cost"]["async"]]
        shown = f"{share['median']:.1%} ({share['low']:.1%} to {share['high']:.1%})"
        rows.append((kind, *(f"{middle(v):.3f}" for v in values), shown))
    print(drawn(rows))


if __name__ == "__main__":
    main()
