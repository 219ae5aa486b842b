"""A finished model as a folder: model.safetensors, config.json, tokenizer.json; nothing pickled."""

import dataclasses
import json
import shutil
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from januslm.config import Refused, build
from januslm.data.tokenizer import Tokenizer
from januslm.model.transformer import ModelConfig, Seq2Seq

FILES = ("model.safetensors", "config.json", "tokenizer.json")
FORMAT = 2  # of the folder: tensor names and the keys of config.json


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


def locate(folder: str | Path) -> Path:
    """The folder itself, or the export/ of a run; Refused, naming what is missing, otherwise."""
    folder = Path(folder)
    for place in (folder, folder / "export"):
        if all((place / name).is_file() for name in FILES):
            return place
    near = folder / "export" if (folder / "export").is_dir() else folder
    missing = [name for name in FILES if not (near / name).is_file()]
    hint = "" if folder.is_dir() else "; there is no such folder"
    raise Refused(f"{near}: no {', '.join(missing)}: not an exported model{hint}")


def read(folder: str | Path) -> Saved:
    """Read a folder that `write` made; raises Refused naming the file that does not fit."""
    place = locate(folder)
    try:
        config = json.loads((place / FILES[1]).read_text(encoding="utf-8"))
        about_model, objective = config["model"], dict(config["objective"])
    except (ValueError, KeyError, TypeError) as error:
        raise Refused(f"{place / FILES[1]}: not a model's configuration ({error!r})") from None
    if config.get("format", 1) != FORMAT:
        raise Refused(
            f"{place / FILES[1]}: format {config.get('format', 1)}, this version reads {FORMAT}: "
            "tensors and loss terms have other names; export it anew with this version"
        )
    tokenizer = Tokenizer.load(place / FILES[2])
    if config.get("tokenizer") != tokenizer.sha256:
        raise Refused(f"{place / FILES[2]}: not the tokenizer that {FILES[1]} names")
    model = Seq2Seq(build(ModelConfig, about_model, f"{place / FILES[1]}: model"))
    fill(model, load(place / FILES[0]), place / FILES[0])
    name = objective.pop("name")
    return Saved(model.eval(), tokenizer, name, objective, config.get("about", {}), place)


def load(path: Path) -> dict:
    """Tensors of a safetensors file; Refused where it is damaged."""
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise Refused(f"{path}: not readable as safetensors ({error})") from None


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
