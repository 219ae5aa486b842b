"""What lies in the folder of a model, read without torch: an export's, or Hugging Face's BART."""

from dataclasses import dataclass
from pathlib import Path

from januslm.config import Refused, build, json_table
from januslm.data.tokenizer import Tokenizer
from januslm.interop import bart_config
from januslm.model.config import ModelConfig
from januslm.registry import extend_again

FILES = ("model.safetensors", "config.json", "tokenizer.json")
FORMAT = 2  # of the folder: tensor names and the keys of config.json
HF = "hf:"  # before a folder of Hugging Face's, where a run file says what it starts from


@dataclass(frozen=True)
class ExportFacts:
    """All that an exported model says of itself, but for its weights."""

    folder: Path
    config: ModelConfig
    tokenizer: Tokenizer
    objective: str
    options: dict  # of the objective: read, query_position
    about: dict  # the run it came from
    bart: bool = False  # the weights are Hugging Face's BART's

    @property
    def tokenizer_file(self) -> Path:
        return self.folder / FILES[2]


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


def read_start(start: str) -> ExportFacts:
    """What `start` of a run file names: an export or a run's folder, or hf:FOLDER.

    Of Hugging Face's folder ids are kept: the tokenizer says where the special tokens stand.
    """
    if not start.startswith(HF):
        return read_facts(start)
    folder = Path(start.removeprefix(HF)).expanduser()
    config = bart_config.read_config(folder)
    tokenizer = Tokenizer.load(folder / FILES[2])
    bart_config.check_ids(folder, tokenizer.special)
    options = bart_config.ar_options(folder, tokenizer.special)
    return ExportFacts(folder, config, tokenizer, "ar", options, {"from": start}, bart=True)


def read_facts(folder: str | Path) -> ExportFacts:
    """Read what `native.write` wrote; raises Refused naming the file that does not fit."""
    place = locate(folder)
    path = place / FILES[1]
    table = json_table(path)
    if table.get("format", 1) != FORMAT:
        raise Refused(
            f"{path}: format {table.get('format', 1)}, this version reads {FORMAT}: tensors and "
            "loss terms have other names; export it anew with this version"
        )
    for key in ("model", "objective", "about"):
        if not isinstance(table.get(key, {}), dict):
            raise Refused(f"{path}: {key} must be a table, got {table[key]!r:.40}")
    about_model, objective = table.get("model", {}), dict(table.get("objective", {}))
    if not isinstance(name := objective.pop("name", None), str):
        raise Refused(f"{path}: objective.name must be a text, got {name!r}")
    tokenizer = Tokenizer.load(place / FILES[2])
    if table.get("tokenizer") != tokenizer.sha256:
        raise Refused(f"{place / FILES[2]}: not the tokenizer that {FILES[1]} names")
    about = table.get("about", {})
    plugins = str(about.get("plugins", ""))
    if plugins and Path(plugins).resolve().is_relative_to(place.resolve()):
        raise Refused(f"{path}: plugins {plugins!r} is in the model's folder: it brings no code")
    extend_again(plugins)
    config = build(ModelConfig, about_model, f"{path}: model")
    return ExportFacts(place, config, tokenizer, name, objective, about)
