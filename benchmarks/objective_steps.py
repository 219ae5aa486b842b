"""What a training step of each objective costs: one model, the same captions, CPU time in turns.

  python -m benchmarks.objective_steps [--rounds N] [OBJECTIVE ...]

The model of finetune/runs/multi30k_*.toml (7.7 M parameters) in fp32 on one thread, its dropout,
captions at Multi30k's lengths in one packed batch.  Ratios count only if those that learn AR from
the words alone (janus, block) have the ce/ar of `ar` for these weights, without dropout, to 1e-5.
"""

import argparse
import math
import statistics
import sys
from collections.abc import Callable

import torch

from benchmarks.record import record
from benchmarks.step_time import SENTENCES, batch_lengths, examples, lengths, ours, with_dropout
from benchmarks.timing import ratio, turns
from januslm import registry
from januslm.cli.table import drawn
from januslm.config import Refused, suggest
from januslm.data import tokenizer
from januslm.model.config import configure
from januslm.model.joint_loss import ModelWithLoss
from januslm.model.packing import Batch, Packer
from januslm.model.transformer import Seq2Seq, parameters
from januslm.objective import LossSettings, resolve_objective

VOCABULARY = 6144
SIZES: dict[str, object] = {
    "preset": "iwslt",
    "width": 256,
    "ffn": 1024,
    "heads": 4,
    "encoder_layers": 3,
    "decoder_layers": 3,
    "dropout": 0.0,
    "norm": "pre",
    "positions": "rotary",
    "init": "xavier",
}
OPTIONS = {  # as the run files have them; all else is the preset
    "ar": {"read": "past"},
    "janus": {"read": "past"},
    "janus, published": {"name": "janus", "read": "next"},
    "block": {"size": 8},
}
BASES, SAME = ("janus", "janus, published"), ("janus", "block")
ENOUGH = 1e-5  # relative


def built(name: str, made_of: list[tuple[int, int]]) -> tuple[ModelWithLoss, Batch]:
    """The model with the loss of an objective, and the batch as it lays it out."""
    table = {"name": name} | OPTIONS.get(name, {})
    vectors = getattr(registry.find("januslm.objectives", table["name"]), "EXTRA_VECTORS", 0)
    config = configure(SIZES, VOCABULARY, "objective_steps", vectors)
    special = tokenizer.Special(vocabulary=VOCABULARY)
    objective = resolve_objective(table, {}, LossSettings(), "nmt", special, "objective_steps")
    torch.manual_seed(0)
    trained = ModelWithLoss(Seq2Seq(config), objective.loss)
    made = examples(made_of, objective, VOCABULARY)
    return trained, Packer(objective.loss.weights)(made)


def ar_loss(trained: ModelWithLoss, batch: Batch) -> float:
    """Nats a word of ce/ar; NaN where the objective has none."""
    if "ce/ar" not in trained.loss.weights:
        return math.nan
    with torch.no_grad():
        sums = trained(batch, {"ce/ar": 1.0})[1]
    return float(sums["ce/ar"]) / batch.counts["ce/ar"]


def measured(names: list[str], rounds: int) -> dict:
    """Seconds and ratios; Refused where AR's loss is not the same."""
    made_of = batch_lengths(lengths(), "length", SENTENCES)
    settings = {name: built(name, made_of) for name in names}
    losses = {name: ar_loss(*one) for name, one in settings.items()}
    for name in set(SAME) & set(names):
        if abs(losses[name] - losses["ar"]) > ENOUGH * losses["ar"]:
            raise Refused(f"{name}: ce/ar is {losses[name]}, ar's {losses['ar']}: nothing counts")
    for trained, _ in settings.values():
        with_dropout(trained.model, 0.2)

    def step(trained: ModelWithLoss, batch: Batch) -> Callable[[], None]:
        def run() -> None:
            trained.model.zero_grad()
            ours(trained, batch).backward()

        return run

    runs = {name: step(*one) for name, one in settings.items()}
    spent = turns(runs, rounds, 1, torch.device("cpu"))
    times = {name: [one.cpu for one in each] for name, each in spent.items()}
    return {
        "parameters": parameters(settings["ar"][0].model),
        "sentences": len(made_of),
        "target_tokens": settings["ar"][1].tokens,
        "objectives": {
            name: {
                "slots": batch.sizes["slots"],
                "vocabulary_rows": batch.sizes["goals"],
                "ce/ar": None if math.isnan(losses[name]) else losses[name],
                "seconds": statistics.median(times[name]),
                "of": {base: vars(ratio(times[name], times[base])) for base in BASES},
            }
            for name, (_, batch) in settings.items()
        },
    }


def table(found: dict) -> str:
    """A line for each objective."""
    rows = [("objective", "slots", "rows of the vocabulary", "s", *(f"of {b}" for b in BASES))]
    for name, one in found["objectives"].items():
        spans = [
            f"{x['median']:.2f} ({x['low']:.2f} to {x['high']:.2f})" for x in one["of"].values()
        ]
        sizes = (f"{one['slots']:,}", f"{one['vocabulary_rows']:,}")
        rows.append((name, *sizes, f"{one['seconds']:.2f}", *spans))
    return drawn(rows)


def main() -> int:
    """Exit code 0; 2 and one line for a mistake, or where the check fails."""
    known = sorted({*registry.names("januslm.objectives"), *OPTIONS})
    style = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(
        "python -m benchmarks.objective_steps", description=__doc__, formatter_class=style
    )
    parser.add_argument("objectives", nargs="*", metavar="OBJECTIVE", help=", ".join(known))
    parser.add_argument("--rounds", type=int, default=7, help="that count (7)")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    try:
        if wrong := [name for name in asked.objectives if name not in known]:
            raise Refused(f"no objective {wrong[0]!r}{suggest(wrong[0], known)}")
        names = [*dict.fromkeys([*BASES, "ar", *(asked.objectives or known)])]
        found = measured(names, asked.rounds)
    except Refused as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(table(found))
    print(f"written to {record('objective_steps', found)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
