"""A process of a real group, started by tests: what every ZeRO stage makes of the same batches."""

import copy
import json
import sys
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parent))

from tiny_worker import WEIGHTS, Tiny, fingerprint, make

from januslm.training import engine
from januslm.training.engine import Engine, OptimizerSettings, Values

CONFIGS = Path(__file__).parents[1] / "ds_configs"
STEPS, BATCH = 6, 16


CALLS: list[tuple[str, str]] = []  # (who, what): collectives and waits, as they happen
COLLECTIVES = ("all_reduce", "broadcast", "barrier", "reduce", "all_gather", "reduce_scatter")
COLLECTIVES += ("all_gather_into_tensor", "reduce_scatter_tensor", "all_to_all_single", "gather")
COLLECTIVES += ("all_gather_object", "broadcast_object_list", "_all_gather_base")
WAITS = ("item", "tolist", "cpu", "numpy", "__bool__", "__float__", "__int__")


def listen() -> None:
    """Note every collective, and every reading of a tensor by our own code, from here on."""
    for place, names in ((torch.distributed, COLLECTIVES), (torch.Tensor, WAITS)):
        for name in names:
            setattr(place, name, _noted(getattr(place, name), name, place is torch.Tensor))


def _noted(function, name: str, ours_alone: bool):
    def noted(*arguments, **keywords):
        file = sys._getframe(1).f_code.co_filename
        who = "ours" if "/januslm/" in file else "deepspeed" if "/deepspeed/" in file else "torch"
        if who == "ours" or not ours_alone:
            CALLS.append((who, name))
        return function(*arguments, **keywords)

    return noted


def portion(step: int, rank: int, world: int, accumulate: int, spoilt: bool = False) -> list:
    """Micro batches of one rank; a spoilt one gives rank 1 a loss that is not finite."""
    ids = np.arange(step * BATCH, (step + 1) * BATCH)
    parts = np.array_split(ids, world * accumulate)[rank::world]
    return [make(part, float("inf") if spoilt and rank == 1 else 1.0) for part in parts]


def run(world, stage=0, bf16=False, accumulate=1, spoil=(), offload=False, norm="term", ds=None):
    """Losses, norms, skips and the final weights of a few updates."""
    zero = {"stage": stage} | ({"offload_optimizer": {"device": "cpu"}} if offload else {})
    ds = ds or {"zero_optimization": zero} | ({"bf16": {"enabled": True}} if bf16 else {})
    values = Values(BATCH, accumulate, 1.0, OptimizerSettings(lr=0.01))
    it = Engine(Tiny(dropout=0.0), values, ds, world)
    results = []
    for step in range(STEPS):
        for spoilt in [True, False] if step in spoil else [False]:
            micro = portion(step, world.rank, world.size, accumulate, spoilt)
            CALLS.clear()
            agreed = it.agree(micro, WEIGHTS, {"stop": spoilt and world.first})
            results += [agreed.finished] if agreed.finished else []
            assert agreed.asked == {"stop": int(spoilt)}
            it.step(micro, agreed.counts, WEIGHTS, norm, 0.01)
            calls = list(CALLS)
    results.append(it.finish())
    assert it.finish() is None
    valid = it.evaluate([make(np.arange(9))], WEIGHTS, norm, 1)
    with it.gathered_copy() as module:
        mark = fingerprint(module) if module else ""
        tied = module is None or module.head.weight is module.words.weight
        kinds = {str(p.dtype) for p in module.parameters()} if module else set()
        nine = make(np.arange(9))
        again = 0.0
        if module:
            sums = module(nine, dict.fromkeys(WEIGHTS, 1.0))[1]
            again = sums["ce/ar"].item() / nine.counts["ce/ar"]
    return {
        "loss": [r["loss"] for r in results],
        "norm": [r["grad_norm"] for r in results],
        "skipped": [bool(r["skipped"]) for r in results],
        "terms": results[-1]["terms"],
        "valid": valid,
        "counts": make(np.arange(9)).counts,
        "mark": mark,
        "tied": tied,
        "kinds": sorted(kinds),
        "again": again,
        "calls": calls,
    }


def plain(by_goals: bool = False) -> dict:
    """The same updates by torch alone, in one process, on whole batches."""
    module = Tiny(dropout=0.0)
    adam = torch.optim.AdamW(module.parameters(), lr=0.01, betas=(0.9, 0.98), weight_decay=0.01)
    losses, norms = [], []
    for step in range(STEPS):
        [batch] = portion(step, 0, 1, 1)
        both = sum(batch.counts[n] for n in WEIGHTS)
        by = dict.fromkeys(WEIGHTS, both) if by_goals else batch.counts
        loss, _ = module(batch, {n: w / by[n] for n, w in WEIGHTS.items()})
        adam.zero_grad()
        loss.backward()
        norms.append(torch.nn.utils.clip_grad_norm_(module.parameters(), 1.0).item())
        losses.append(loss.item())
        adam.step()
    return {"loss": losses, "norm": norms, "mark": fingerprint(copy.deepcopy(module))}


def main(out: Path) -> None:
    torch.set_num_threads(1)
    listen()
    world = engine.connect(minutes=1)
    cases = {f"z{stage} fp32": {"stage": stage} for stage in range(4)}
    cases |= {f"z{stage} bf16": {"stage": stage, "bf16": True} for stage in range(1, 4)}
    cases |= {f"z{s} twice": {"stage": s, "accumulate": 2} for s in range(4)}
    cases |= {f"z{s} spoilt": {"stage": s, "accumulate": 2, "spoil": (2, 4)} for s in range(4)}
    cases |= {f"z{s} bf16 spoilt": {"stage": s, "bf16": True, "spoil": (3,)} for s in range(1, 4)}
    away = {"offload": True, "bf16": True}
    cases |= {f"z{s} offload": {"stage": s, **away} for s in range(1, 4)}
    cases |= {f"z{s} offload spoilt": {"stage": s, **away, "spoil": (1,)} for s in range(1, 4)}
    cases |= {f"by {norm}": {"stage": 2, "norm": norm} for norm in ("tokens", "microbatch")}
    cases |= {f"by goals, z{s}": {"stage": s, "norm": "goals"} for s in (0, 3)}
    cases |= {"by goals, twice": {"stage": 1, "accumulate": 2, "norm": "goals"}}
    for path in CONFIGS.glob("*.json"):
        cases[path.name] = {"ds": engine.read(path), "accumulate": 2, "spoil": (1,)}
    results = {name: run(world, **case) for name, case in cases.items()}
    if world.first:
        out.write_text(json.dumps(results | {"torch": plain(), "torch by goals": plain(True)}))
    engine.leave(0)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
