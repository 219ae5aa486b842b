"""What lies in the folder of a model, read without torch: an export's, or Hugging Face's."""

from dataclasses import dataclass, replace
from pathlib import Path

from januslm.config import Refused, build, json_table
from januslm.data.tokenizer import Tokenizer
from januslm.interop import hf_folder
from januslm.interop.hf_folder import Foreign
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
    foreign: Foreign | None = None  # the weights are another project's
    decoder: str = "random"  # where the decoder comes from beside an encoder alone; or encoder

    @property
    def tokenizer_file(self) -> Path:
        return self.folder / FILES[2]

    def sizes(self, extra_vectors: int) -> ModelConfig:
        """Of a model that starts from it, for an objective that needs so many vectors.

        Beside another project's weights those are new, as far as it has none.
        """
        if not self.foreign:
            return self.config
        return replace(self.config, extra_vectors=max(extra_vectors, self.config.extra_vectors))


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


def read_start(start: str, decoder: str = "random") -> ExportFacts:
    """What `start` of a run file names: an export or a run's folder, or hf:FOLDER.

    Of Hugging Face's folder ids are kept: the tokenizer says where the special tokens stand.
    decoder: see ExportFacts; Refused where there is a decoder.
    """
    foreign = None
    if start.startswith(HF):
        folder = Path(start.removeprefix(HF)).expanduser()
        foreign = hf_folder.read(folder)
    if decoder != "random" and not (foreign and foreign.plugin.ENCODER):
        raise Refused(
            f"start_decoder = {decoder!r}: {start} is no encoder alone, it has a decoder of its own"
        )
    if not foreign:
        return read_facts(start)
    config, tokenizer = foreign.sizes, Tokenizer.load(folder / FILES[2])
    foreign.check_ids(tokenizer)
    hf_folder.check_weights(folder, foreign, config)
    name, options = foreign.taught(tokenizer.special)
    about = {"from": start}
    return ExportFacts(folder, config, tokenizer, name, options, about, foreign, decoder)


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
