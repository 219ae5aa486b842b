"""Where a run's numbers, texts and settings are drawn: TensorBoard and others, by one interface."""

import importlib.util
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol

from januslm.config import Refused, suggest

PACKAGES = {"tensorboard": "tensorboard", "wandb": "wandb", "trackio": "trackio"}
VALID = "valid/"  # before the name of what was found by a validation
DISTRIBUTIONS = ("ar", "nar", "aux")
# Tables of config.json whose keys say what runs are compared by, and single keys.
COMPARED = ("objective", "noise", "loss", "optimizer", "schedule", "model")
COMPARED_KEYS = ("task", "start", "ds", "train.steps", "train.batch", "train.clip", "train.seed")


class Board(Protocol):
    """Writes on rank 0 alone; what it cannot write costs no run."""

    def numbers(self, step: int, **values: float) -> None:
        """One point on each named curve."""

    def text(self, step: int, name: str, markdown: str) -> None:
        """A text, drawn as markdown."""

    def begin(self, config: Mapping, charts: Mapping, scores: Sequence[str]) -> None:
        """What the run is, which curves belong together (`charts`), and what it is compared by."""

    def end(self, done: bool) -> None:
        """Bring everything to where it stays.  done: the run has come to its end."""


class Boards:
    """Several as one."""

    def __init__(self, several: Sequence[Board]):
        self.several = several

    def numbers(self, step: int, **values: float) -> None:
        for board in self.several:
            board.numbers(step, **values)

    def text(self, step: int, name: str, markdown: str) -> None:
        for board in self.several:
            board.text(step, name, markdown)

    def begin(self, config: Mapping, charts: Mapping, scores: Sequence[str]) -> None:
        for board in self.several:
            board.begin(config, charts, scores)

    def end(self, done: bool) -> None:
        for board in self.several:
            board.end(done)


def check(names: Sequence[str], where: str) -> None:
    """Refuse a board that there is not, or whose package is not installed; nothing is imported."""
    for name in names:
        if name not in PACKAGES:
            raise Refused(f"{where}: train.boards: no board {name!r}{suggest(name, PACKAGES)}")
        if importlib.util.find_spec(PACKAGES[name]) is None:
            raise Refused(
                f"{where}: train.boards: {name} is not installed: pip install 'januslm[{name}]'"
            )


Charts = dict[str, dict[str, list[str]]]  # a heading -> a chart's title -> names of curves


def charts(terms: Sequence[str], measured: Sequence[str], scores: Sequence[str]) -> Charts:
    """Curves that are looked at together, those of training and of validation under one name."""
    ce = [f"ce/{name}" for name in DISTRIBUTIONS if f"ce/{name}" in terms]
    kl = [name for name in terms if name.startswith("kl/")]
    rest = [name for name in terms if name not in (*ce, *kl)]
    losses = {"loss": ["loss"], "AR, NAR, AUX": ce, "KL": kl, **{name: [name] for name in rest}}
    found: Charts = {"losses": {title: names for title, names in losses.items() if names}}
    if measured:
        found["drafts"] = {"share that AR accepts": list(measured)}
    if scores:
        found["scores"] = {name: [name] for name in scores}
    found["speed"] = {
        "tokens a second": ["tokens_per_second"],
        "waiting for data, use of the device": ["data_wait", "mfu"],
        "memory (GiB)": ["memory_gb"],
    }
    found["optimizer"] = {"learning rate": ["lr"], "norm of the gradient": ["grad_norm"]}
    return found


def settings(config: Mapping) -> dict[str, Any]:
    """The plain values that runs are compared by, by their dotted keys."""
    flat = dict(_flat(config))
    return {
        key: value
        for key, value in flat.items()
        if key.split(".")[0] in COMPARED or key in COMPARED_KEYS
    }


def _flat(value: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping):
        for name, inside in value.items():
            yield from _flat(inside, f"{key}.{name}" if key else str(name))
    elif isinstance(value, bool | int | float | str):
        yield key, value
