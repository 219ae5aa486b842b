"""A process of a real group, started by tests: ZeRO-3 of models that are sharded while made."""

import json
import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[1]))

from januslm.model.joint_loss import ModelWithLoss
from januslm.model.transformer import Seq2Seq
from januslm.training import engine
from januslm.training.engine import Engine, OptimizerSettings, Values, sharder
from tests.ds_keys_worker import ACCUMULATE, LR, SIZES, UPDATES, mark, updated
from tests.samples import model, resolved

CASES: dict[str, tuple[dict, dict]] = {
    "fp32": ({}, {}),
    "bf16": ({"bf16": {"enabled": True}}, {"positions": "sinusoidal", "tied": False}),
    "away": ({"zero_optimization": {"offload_param": {"device": "cpu"}}}, {"norm": "pre"}),
}


def made(ds: dict, style: dict, world, sharded: bool) -> dict:
    """What training makes of first weights that were whole in each process, or never."""
    shard = sharder(ds, world) if sharded else None
    config = model(width=32, ffn=64, **style).config
    torch.manual_seed(3)
    network = Seq2Seq(config, shard)
    here = sum(p.numel() for p in network.parameters())
    after = torch.rand(1).item()  # what is drawn next
    values = Values(len(SIZES), ACCUMULATE, 1.0, OptimizerSettings(lr=LR))
    it = Engine(ModelWithLoss(network, resolved("janus").loss), values, ds, world, "x.json")
    losses = updated(it, range(UPDATES))
    return {"here": here, "after": after, "losses": losses, "mark": mark(it)}


def main(out: Path) -> None:
    torch.set_num_threads(1)
    world = engine.connect(minutes=1)
    results = {}
    for name, (more, style) in CASES.items():
        ds = more | {"zero_optimization": {"stage": 3, **more.get("zero_optimization", {})}}
        results[name] = [made(ds, style, world, sharded) for sharded in (False, True)]
    if world.first:
        out.write_text(json.dumps(results))
    engine.leave(0)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
