"""A process of a real run, started by tests: a tiny model with dropout and tied weights."""

import hashlib
import json
import os
import signal
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

sys.path.insert(0, str(Path(__file__).parents[1]))

from januslm.config import Refused, build
from januslm.training import engine
from januslm.training.engine import OptimizerSettings
from januslm.training.lr_schedule import ScheduleSettings
from januslm.training.machine import StopRequest
from januslm.training.settings import TrainSettings
from januslm.training.status import Status
from januslm.training.trainer import Guards, RunPlan, train
from januslm.training.watchdog import Watchdog

V, D, T = 48, 24, 7
WEIGHTS = {"ce/ar": 1.0, "ce/nar": 0.5}
MEASURED: dict[str, float] = {}  # nothing beside them


@dataclass
class TinyBatch:
    tokens_in: torch.Tensor  # int64 [B, T]
    goals: torch.Tensor  # int64 [B, T]
    next: torch.Tensor  # bool [B, T]: counted by ce/ar
    mask: torch.Tensor  # bool [B, T]: counted by ce/nar
    scale: float = 1.0
    flops: float = 1e6
    pause: float = 0.0  # seconds until it is on its device

    @property
    def counts(self) -> dict[str, int]:
        counts = {"ce/ar": int(self.next.sum()), "ce/nar": int(self.mask.sum())}
        return counts | {"tokens": sum(counts.values())}

    @property
    def tokens(self) -> int:
        return self.counts["tokens"]

    def to(self, device) -> "TinyBatch":
        time.sleep(self.pause)
        return self


class Tiny(nn.Module):
    """Guesses (3 x + 1) mod V, twice, with a head that shares the embedding."""

    def __init__(self, dropout: float = 0.1):
        super().__init__()
        torch.manual_seed(5)
        self.words = nn.Embedding(V, D)
        self.inner = nn.Linear(D, D)
        self.norm = nn.LayerNorm(D)
        self.head = nn.Linear(D, V, bias=False)
        self.head.weight = self.words.weight
        self.dropout = nn.Dropout(dropout)
        self.register_buffer("steps", torch.arange(T), persistent=False)

    def forward(self, batch: TinyBatch, coefficients: dict[str, float]):
        hidden = self.dropout(F.gelu(self.inner(self.words(batch.tokens_in))))
        logits = self.head(self.norm(hidden)).float() * batch.scale
        each = F.cross_entropy(logits.flatten(0, 1), batch.goals.flatten(), reduction="none")
        each = each.view_as(batch.goals)
        sums = {
            "ce/ar": (each * batch.next).sum(),
            "ce/nar": (each * batch.mask).sum(),
        }
        loss = sum(coefficients[name] * value for name, value in sums.items())
        return loss, {name: value.detach() for name, value in sums.items()}


def make(ids: np.ndarray, scale: float = 1.0) -> TinyBatch:
    """Examples of different lengths, each a pure function of its id."""
    words, lengths = [], []
    for i in ids:
        rng = np.random.default_rng(int(i))
        words.append(rng.integers(0, V, T))
        lengths.append(rng.integers(1, T + 1))
    words, lengths = torch.tensor(np.array(words)), torch.tensor(lengths)
    inside = torch.arange(T) < lengths[:, None]
    return TinyBatch(words, (3 * words + 1) % V, inside, inside & (words % 3 == 0), scale)


@dataclass
class TinyWork:
    module: Tiny
    pause: float = 0.0  # seconds per micro batch
    spoilt: float = np.inf  # from this sample on, no loss is finite
    broken: float = np.inf  # at this sample, rank 1 fails
    hangs: float = np.inf  # at this sample, rank 1 waits for ever
    slow_validation: float = 0.0  # seconds per batch of it
    validations: int = 1  # how often the same batches come in it
    scorable: int = 0  # texts that it decodes at each validation but the first
    scoring: float = 0.0  # seconds that a text takes
    weights = WEIGHTS
    normalize = "term"
    measured = MEASURED
    shows_samples = True
    score_names = ("right",)

    @property
    def validation(self) -> list:
        def slow(batch: TinyBatch) -> TinyBatch:
            return replace(batch, pause=self.slow_validation)

        two = [make(np.arange(10**6, 10**6 + 9)), make(np.arange(77, 80))]
        return [lambda: slow(two[0]), slow(two[1])] * self.validations

    def weights_at(self, step: int) -> dict[str, float]:
        return self.weights

    def batches(self, ids: np.ndarray) -> TinyBatch:
        time.sleep(self.pause)
        if ids[-1] >= self.broken and os.environ["RANK"] == "1":
            raise OSError("the shard is gone")
        if ids[-1] >= self.hangs and os.environ["RANK"] == "1":
            time.sleep(1e6)
        return make(ids, float("inf") if ids[-1] >= self.spoilt else 1.0)

    def scored(self, step: int) -> int:
        return self.scorable if step else 0

    def scores(self, module: nn.Module, tick) -> dict[str, float]:
        """How many words of the texts, all of them guessed, are right, in percent."""
        right = []
        for text in range(self.scorable):
            time.sleep(self.scoring)
            batch = make(np.array([10**7 + text]))
            with torch.no_grad():
                hidden = module.norm(F.gelu(module.inner(module.words(batch.tokens_in))))
                right.append((module.head(hidden).argmax(-1) == batch.goals).float().mean())
            tick()
        return {"right": 100 * float(torch.stack(right).mean())}

    def samples(self, module: nn.Module) -> str | None:
        with torch.no_grad():
            return str(module(make(np.arange(3)), WEIGHTS)[0].item())

    def export(self, module: nn.Module, folder: Path) -> None:
        from safetensors.torch import save_model

        save_model(module, str(folder / "model.safetensors"))


SAVING = {"open", "os.rename"}


def die_in(place: str) -> None:
    """End this process as if killed, at its first look at a path with `place` in it, in a save."""

    def look(event: str, arguments: tuple) -> None:
        if event in SAVING and any(place in str(argument) for argument in arguments):
            os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(look)


def fingerprint(module: nn.Module) -> str:
    state = hashlib.sha256()
    for _, value in sorted(module.state_dict().items()):
        state.update(value.float().numpy().tobytes())
    return state.hexdigest()


def main(asked: dict) -> int:
    """`asked`: folder, ds, train (a table), and optionally model and options of TinyWork.

    die: [rank, part of a path], see die_in.  dropout: the module's.
    """
    torch.set_num_threads(1)
    if asked.get("die", [None])[0] == int(os.environ.get("RANK", 0)):
        die_in(asked["die"][1])
    world = engine.connect(minutes=1)
    settings = build(TrainSettings, asked["train"], "test")
    folder = Path(asked["folder"])
    watchdog = Watchdog(folder, world.rank, world.size, settings.timeout).start()
    plan = RunPlan(
        folder,
        settings,
        OptimizerSettings(lr=0.01),
        ScheduleSettings("inverse_sqrt", warmup=4),
        Path(asked["ds"]),
        {"model": asked.get("model", {"width": D}), "objective": "tiny"},
    )
    guards = Guards(StopRequest(), watchdog, Status(world.first))
    work = TinyWork(Tiny(asked.get("dropout", 0.1)), **asked.get("work", {}))
    try:
        code = train(plan, work, world, guards).code
    except RuntimeError:
        watchdog.hold()
        raise
    watchdog.stop()
    return code


if __name__ == "__main__":
    try:
        code = main(json.loads(sys.argv[1]))
    except Refused as error:
        code = 2
        if os.environ.get("RANK", "0") == "0":
            print(f"refused: {error}", file=sys.stderr)
    engine.leave(code)
