"""A finished model as a folder: model.safetensors, config.json, tokenizer.json; nothing pickled."""

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from januslm.config import Refused
from januslm.data.tokenizer import Tokenizer
from januslm.interop.export_folder import FILES, FORMAT, read_facts
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
    tokenizer = Tokenizer.load(tokenizer_file)
    with open(folder / FILES[2], "w", encoding="utf-8", newline="") as file:
        file.write(tokenizer.text)
    config = {
        "format": FORMAT,
        "model": dataclasses.asdict(model.config),
        "objective": {"name": objective, **options},
        "tokenizer": tokenizer.sha256,
        "about": about,
    }
    (folder / FILES[1]).write_text(json.dumps(config, indent=1) + "\n", encoding="utf-8")


def read(folder: str | Path) -> Saved:
    """Read a folder that `write` made; raises Refused naming the file that does not fit."""
    facts = read_facts(folder)
    path = facts.folder / FILES[0]
    model = filled(facts.config, load(path), path).eval()
    return Saved(model, facts.tokenizer, facts.objective, facts.options, facts.about, facts.folder)


def load(path: Path) -> dict:
    """Tensors of a safetensors file; Refused where it is damaged."""
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise Refused(f"{path}: not readable as safetensors ({error})") from None


def filled(config: ModelConfig, state: dict, where: Path) -> Seq2Seq:
    """A model of `config` with these tensors; Refused where they do not fit."""
    check(config, state, where)
    model = Seq2Seq(config)
    fill(model, state, where)
    return model


def fill(model: Seq2Seq, state: dict, where: Path) -> None:
    """Put tensors into a model; Refused names the first that is missing, unknown or misshaped."""
    mine = model.state_dict()
    for name in sorted(mine.keys() | state.keys()):
        if name not in state or name not in mine:
            what = "is missing" if name not in state else "has no place in this model"
            raise Refused(f"{where}: {name} {what}")
        if mine[name].shape != state[name].shape:
            want, got = list(mine[name].shape), list(state[name].shape)
            raise Refused(f"{where}: {name} has shape {got}, the model wants {want}")
    model.load_state_dict(state)


def check(config: ModelConfig, state: dict, where: Path) -> None:
    """Refuse weights that are too few for a configuration, before a model of it takes memory.

    A damaged or foreign configuration may ask for more than the machine has.
    """
    there = sum(tensor.numel() for tensor in state.values())
    if there < config.least_parameters:
        raise Refused(
            f"{where}: has {there:,} numbers, the configuration beside it asks for at least "
            f"{config.least_parameters:,}"
        )
