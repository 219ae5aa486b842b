"""A process of a real group, started by tests: a small JANUS trained with many DeepSpeed JSONs."""

import functools
import gc
import hashlib
import json
import sys
import traceback
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parents[1]))

from januslm.config import Refused
from januslm.model.joint_loss import ModelWithLoss
from januslm.training import engine
from januslm.training.checkpoint import Shelf, gathered, newest
from januslm.training.engine import Engine, OptimizerSettings, Values
from januslm.training.manifest import Keep
from tests.samples import examples, model, packed, resolved

UPDATES, ACCUMULATE, LR = 3, 2, 0.01
SIZES = (9, 14, 6, 11, 8, 13, 7, 10)  # target lengths of an update's examples


@functools.cache
def portion(update: int, rank: int, world: int) -> list:
    """Micro batches of one rank: the same examples for any number of processes."""
    objective = resolved("janus")
    made = examples(objective, np.random.default_rng(update), list(SIZES))
    parts = np.array_split(np.arange(len(made)), world * ACCUMULATE)[rank::world]
    return [packed(objective, [made[i] for i in part]) for part in parts]


def fresh(case: dict, world, resume=None) -> Engine:
    """An engine around the same first weights."""
    torch.manual_seed(3)
    module = ModelWithLoss(model(double=False, width=32, ffn=64), resolved("janus").loss)
    optimizer = OptimizerSettings(**{"lr": LR} | case.get("optimizer", {}))
    clip = 0.0 if optimizer.name == "muon" else 1.0
    values = Values(len(SIZES), ACCUMULATE, clip, optimizer)
    return Engine(module, values, case["ds"], world, "x.json", resume)


def updated(it: Engine, updates: range, spoil: bool = False) -> list[float]:
    """Losses of these updates; `spoil`: rank 1's loss is not finite before the second."""
    objective, losses = resolved("janus"), []
    for update in updates:
        for bad in [True, False] if spoil and update == 1 else [False]:
            micro = portion(update, it.world.rank, it.world.size)
            weights = dict(objective.loss.weights)
            if bad and it.world.rank == 1:
                weights["ce/ar"] = float("inf")
            result = it.update(micro, weights, objective.loss.normalize, LR)
            assert bool(result["skipped"]) is bad, result
            losses += [] if bad else [result["loss"]]
    return losses


def mark(it: Engine) -> str:
    """A hash of all weights, on rank 0."""
    with it.gathered_copy() as module:
        if module is None:
            return ""
        state = hashlib.sha256()
        for value in module.state_dict().values():
            state.update(value.numpy().tobytes())
        return state.hexdigest()


def trained(case: dict, world, folder: Path) -> dict:
    """What a few updates make; spoilt, and saved and resumed, if the case wants that."""
    it = fresh(case, world)
    results = {"losses": updated(it, range(UPDATES))}
    if case.get("also"):
        results["mark"] = mark(it)
    it.close()
    if "spoilt" in case.get("also", ()):
        it = fresh(case, world)
        results["spoilt"] = {"losses": updated(it, range(UPDATES), spoil=True), "mark": mark(it)}
    if "resumed" in case.get("also", ()):
        it = fresh(case, world)
        updated(it, range(2))
        it.save(Shelf(folder, Keep(1)), 2, {"samples": 2 * len(SIZES)}).publish()
        found, skipped = newest(folder)
        assert found, skipped
        it = fresh(case, world, found)
        results["resumed"] = {"losses": updated(it, range(2, UPDATES)), "mark": mark(it)}
    return results


def outcome(case: dict, world, folder: Path) -> dict:
    """What `trained` gives, {"refused": its line} or {"traceback"} of any rank."""
    mine: dict = {}
    try:
        mine = trained(case, world, folder)
    except Refused as error:
        mine = {"refused": str(error)}
    except Exception:
        mine = {"traceback": traceback.format_exc()}
    gc.collect()
    every = gathered(mine)
    return next((one for one in every if "traceback" in one), every[0])


def main(cases: Path, out: Path) -> None:
    torch.set_num_threads(1)
    world = engine.connect(minutes=1)
    results = {}
    for number, (name, case) in enumerate(json.loads(cases.read_text()).items()):
        if world.first:
            print(f"== {name}", flush=True)
        results[name] = outcome(case, world, out.parent / str(number))
        if world.first:
            out.write_text(json.dumps(results))
    engine.leave(0)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
