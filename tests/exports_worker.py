"""A process of a real group, started by tests: a checkpoint of each ZeRO stage, and its export."""

import hashlib
import json
import sys
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parents[1]))

from januslm.data import sealed
from januslm.interop import native
from januslm.model.joint_loss import ModelWithLoss
from januslm.training import engine, history
from januslm.training.checkpoint import Shelf
from januslm.training.engine import Engine, OptimizerSettings, Values
from januslm.training.log import Log
from januslm.training.manifest import Keep
from tests.samples import examples, model, packed, resolved

CASES = {
    "z0": {},
    "z1": {"zero_optimization": {"stage": 1}},
    "z2": {"zero_optimization": {"stage": 2}, "bf16": {"enabled": True}},
    "z3": {"zero_optimization": {"stage": 3}, "bf16": {"enabled": True}},
}


def run(folder: Path, ds: dict, words: Path, world) -> None:
    """Two updates, a checkpoint after each, and the export that training would write."""
    objective = resolved("janus")
    torch.manual_seed(3)
    module = ModelWithLoss(model(objective, double=False), objective.loss)
    it = Engine(module, Values(4, 1, 1.0, OptimizerSettings(lr=0.01)), ds, world)
    about = {
        "model": asdict(module.model.config),
        "objective": {"name": objective.name, **objective.options},
        "tokenizer": str(words),
        "tokenizer_sha256": hashlib.sha256(words.read_bytes()).hexdigest(),
        "train": {"steps": 3},
    }
    shelf, log = Shelf(folder / "checkpoints", Keep(9)), Log(folder, world.first)
    if world.first:
        folder.mkdir()
        (folder / "config.json").write_text(sealed.document(about))
        history.add(folder, "start", step=0, world=world.size, versions={"torch": "x"})
    for step in (1, 2):
        batch = packed(objective, examples(objective, np.random.default_rng(world.rank), [5, 7]))
        counts = it.agree([batch], objective.loss.weights, {}).counts
        it.step([batch], counts, objective.loss.weights, "term", 0.01)
        log.record("train", step=step, loss=it.finish()["loss"])
        it.save(shelf, step, {"samples": 4 * step, "config": about}, beside=step == 1).publish()
    with it.gathered_copy() as whole:
        if whole:
            options = objective.options
            native.write(folder / "export", whole.model, words, objective.name, options, about)
            history.add(folder, "stop", step=2, code=85, reason="SIGTERM")


def main(root: Path, words: Path) -> None:
    torch.set_num_threads(1)
    world = engine.connect(minutes=1)
    for name, ds in CASES.items():
        run(root / name, ds, words, world)
    engine.leave(0)


if __name__ == "__main__":
    main(*map(Path, json.loads(sys.argv[1])))
