"""What lies in an exported model's folder, read without torch: its files, its configuration."""

from dataclasses import dataclass
from pathlib import Path

from januslm.config import Refused, build, json_table
from januslm.data.tokenizer import Tokenizer
from januslm.model.config import ModelConfig

FILES = ("model.safetensors", "config.json", "tokenizer.json")
FORMAT = 2  # of the folder: tensor names and the keys of config.json


@dataclass(frozen=True)
class ExportFacts:
    """All that an exported model says of itself, but for its weights."""

    folder: Path
    config: ModelConfig
    tokenizer: Tokenizer
    objective: str
    options: dict  # of the objective: read, query_position
    about: dict  # the run it came from

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
    config = build(ModelConfig, about_model, f"{path}: model")
    return ExportFacts(place, config, tokenizer, name, objective, table.get("about", {}))
