"""A finished model as a folder: model.safetensors, config.json, tokenizer.json; nothing pickled."""

import dataclasses
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from januslm.config import Refused
from januslm.data.tokenizer import Tokenizer
from januslm.interop.export_folder import FILES, FORMAT, ExportFacts, read_facts
from januslm.model.config import ModelConfig
from januslm.model.transformer import Seq2Seq


@dataclass(frozen=True)
class Saved:
    """A model with what it needs to be used: its words and what it was trained to do."""

    model: Seq2Seq
    tokenizer: Tokenizer
    objective: str
    options: dict  # of the objective: read, query_position
    about: dict  # the run it came from
    folder: Path


def write(
    folder: Path, model: Seq2Seq, tokenizer_file: Path, objective: str, options: dict, about: dict
) -> None:
    """Write the folder; tied weights are stored once, in fp32 as they are trained."""
    folder.mkdir(parents=True, exist_ok=True)
    state = {
        name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()
    }
    save_file(state, folder / FILES[0], metadata={"format": "pt"})
    shutil.copyfile(tokenizer_file, folder / FILES[2])
    config = {
        "format": FORMAT,
        "model": dataclasses.asdict(model.config),
        "objective": {"name": objective, **options},
        "tokenizer": Tokenizer.load(tokenizer_file).sha256,
        "about": about,
    }
    (folder / FILES[1]).write_text(json.dumps(config, indent=1) + "\n", encoding="utf-8")


def read(folder: str | Path) -> Saved:
    """Read a folder that `write` made; raises Refused naming the file that does not fit."""
    facts = read_facts(folder)
    model = created(facts.config, facts).eval()
    return Saved(model, facts.tokenizer, facts.objective, facts.options, facts.about, facts.folder)


def created(
    config: ModelConfig,
    start: ExportFacts | None,
    shard: Callable[[nn.Module], object] | None = None,
) -> Seq2Seq:
    """A model of `config` with the weights of an export, or with random ones where there is none.

    shard: see Seq2Seq; an export's weights are whole in each process first.
    Raises Refused for weights that are damaged or do not fit.
    """
    if not start:
        return Seq2Seq(config, shard=shard)
    path = start.folder / FILES[0]
    state = load(path)
    check(config, state, path)
    model = Seq2Seq(config)
    model.load_state_dict(state)
    return model


def load(path: Path) -> dict:
    """Tensors of a safetensors file; Refused where it is damaged."""
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise Refused(f"{path}: not readable as safetensors ({error})") from None


def fill(model: Seq2Seq, state: dict, where: Path) -> None:
    """Put tensors into a model; Refused names the first that is missing, unknown or misshaped."""
    _compare(model.state_dict(), state, where)
    model.load_state_dict(state)


def check(config: ModelConfig, state: dict, where: Path) -> None:
    """The same look before a model of that configuration has taken any memory.

    A damaged or foreign configuration may ask for more than the machine has.
    """
    _compare(shapes(config), state, where)


def shapes(config: ModelConfig) -> dict:
    """The tensors of a model by name, without their memory."""
    with torch.device("meta"):
        return Seq2Seq(config).state_dict()


def _compare(mine: dict, state: dict, where: Path) -> None:
    for name in sorted(mine.keys() | state.keys()):
        if name not in state or name not in mine:
            what = "is missing" if name not in state else "has no place in this model"
            raise Refused(f"{where}: {name} {what}")
        if mine[name].shape != state[name].shape:
            want, got = list(mine[name].shape), list(state[name].shape)
            raise Refused(f"{where}: {name} has shape {got}, the model wants {want}")
