"""Random sentences, layouts and batches that many tests start from."""

import inspect
import itertools
import typing
from dataclasses import replace

import numpy as np
import torch

from januslm import registry
from januslm.data.tokenizer import Special
from januslm.layout import NONE, Example, Slots
from januslm.model.config import ModelConfig
from januslm.model.packing import Batch, Packer
from januslm.model.transformer import Seq2Seq
from januslm.objective import LossSettings, resolve_objective

VOCABULARY = 60
ROOM = 16  # of a source that shares its row with the target
SHAPES = [None, ROOM]  # source_room of a model with an encoder, and of one without
SPECIAL = Special(vocabulary=VOCABULARY)
OBJECTIVES = registry.names("januslm.objectives")


def sentence(rng: np.random.Generator, size: int) -> np.ndarray:
    """int64 [size]: BOS, different words, EOS; all different while the vocabulary lasts."""
    words = 5 + rng.permutation(VOCABULARY - 5)
    return np.concatenate([[SPECIAL.bos], np.resize(words, size - 2), [SPECIAL.eos]])


def hide(rng: np.random.Generator, size: int, ratio: float = 0.5) -> np.ndarray:
    """bool [size], never BOS or EOS."""
    hidden = rng.random(size) < ratio
    hidden[[0, -1]] = False
    return hidden


def choices(function) -> list[dict]:
    """All combinations of a plug-in's options that are choices or switches."""
    hints = typing.get_type_hints(function, include_extras=True)
    known = {}
    for p in inspect.signature(function).parameters.values():
        if p.kind is p.KEYWORD_ONLY:
            if typing.get_origin(hints[p.name]) is typing.Literal:
                known[p.name] = typing.get_args(hints[p.name])
            if hints[p.name] is bool:
                known[p.name] = (False, True)
    return [dict(zip(known, values, strict=True)) for values in itertools.product(*known.values())]


def every_layout() -> list[tuple[str, dict]]:
    """(objective, options) for every objective in the folder with every choice."""
    plugins = {name: registry.find("januslm.objectives", name) for name in OBJECTIVES}
    return [(name, given) for name in OBJECTIVES for given in choices(plugins[name].layout)]


def every_shape() -> list[tuple[str, dict]]:
    """Every layout, and behind its source in one row those that differ in an option at most."""
    cases, usual = every_layout(), {}
    for name, given in cases:
        known = inspect.signature(registry.find("januslm.objectives", name).layout).parameters
        usual[name] = {key: known[key].default for key in given}
    one_row = [
        (name, given | {"source_room": ROOM})
        for name, given in cases
        if sum(given[key] != value for key, value in usual[name].items()) <= 1
    ]
    return cases + one_row


def hiding(case: tuple[str, dict]) -> dict:
    """The case's options, and every hidden word hidden for certain, where an option says how many.

    A word that an objective leaves standing (BERT's 10 %) is there to be read.
    """
    known = inspect.signature(registry.find("januslm.objectives", case[0]).layout).parameters
    return case[1] | ({"masked": 1.0} if "masked" in known else {})


def case_name(case: tuple[str, dict]) -> str:
    """A name for a case, as in file names and test ids."""
    name, given = case
    return ".".join([name, *(f"{key}={value}" for key, value in given.items())])


def named(case: str) -> tuple[str, dict]:
    """An objective and its options of "NAME option=value switch"."""
    name, *words = case.split()
    pairs = [word.partition("=") for word in words]
    return name, {key: value or True for key, _, value in pairs}


def resolved(
    name: str,
    preset: str = "nmt",
    loss: LossSettings | None = None,
    source_room: int | None = None,
    **options,
):
    """An objective ready for use; source_room: for a model without an encoder."""
    table, loss = {"name": name, **options}, loss or LossSettings()
    return resolve_objective(table, {}, loss, preset, SPECIAL, "run.toml", source_room)


def examples(objective, rng, sizes: list[int], ratio: float = 0.5) -> list[Example]:
    """Examples of targets of the given sizes, with sources of random sizes."""
    made = []
    for size in sizes:
        target = sentence(rng, size)
        layout = objective.layout(target, hide(rng, size, ratio), rng)
        source = sentence(rng, int(rng.integers(3, 12)))
        if objective.source_room is not None:
            layout = layout.behind(source)
        made.append(Example(source, target, layout))
    return made


def target_slots(example: Example) -> Slots:
    """Those that are not the source's, at their positions in the target."""
    slots, source = example.layout.slots, example.layout.rule.source
    if source == NONE:
        return slots
    slots = slots[slots.stream != source]
    return replace(slots, position=slots.position - len(example.source))


def model(objective=None, double: bool = True, **changes) -> Seq2Seq:
    """A tiny model with weights large enough for its functions not to be flat.

    objective: whose extra vectors it has, and whose shape: without an encoder, or with one.
    """
    style = dict(
        vocabulary=VOCABULARY,
        width=16,
        ffn=32,
        heads=2,
        encoder_layers=2 if objective is None or objective.source_room is None else 0,
        decoder_layers=2,
        dropout=0.0,
        max_positions=64,
        max_length=32,
        extra_vectors=objective.extra_vectors if objective else 0,
    )
    made = Seq2Seq(ModelConfig(**(style | changes)))
    with torch.no_grad():
        for p in made.parameters():
            p.add_(torch.randn_like(p) * 0.2)
    return made.double() if double else made


def coefficients(weights: dict[str, float], batch: Batch) -> dict[str, float]:
    """Every term a mean over its own words."""
    return {name: w / max(batch.counts[name], 1) for name, w in weights.items()}


def gradients(module: torch.nn.Module, loss: torch.Tensor) -> dict[str, torch.Tensor]:
    """Gradient by parameter name; zero where the loss does not reach."""
    module.zero_grad()
    loss.backward()
    return {
        n: torch.zeros_like(p) if p.grad is None else p.grad.clone()
        for n, p in module.named_parameters()
    }


def packed(objective, made: list[Example], **options) -> Batch:
    """A batch of examples."""
    return Packer(objective.loss.weights, **options)(made)
