"""A folder of Hugging Face's, looked at without torch: its files and its configuration."""

from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from januslm import registry
from januslm.config import Refused, build, json_table
from januslm.data.tokenizer import SPECIALS, Special
from januslm.model.config import ModelConfig

ARCHITECTURES = "januslm.interop.architectures"
# What weights may lie in; an index names the files that they are spread over.
WEIGHTS = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)
TOKENIZER = "tokenizer.json"


@dataclass(frozen=True)
class Foreign:
    """Weights of another project: of which architecture, and what its configuration says."""

    architecture: str  # a file of januslm/interop/architectures/
    table: dict  # config.json
    where: str  # the file that says it

    @property
    def plugin(self) -> ModuleType:
        return registry.find(ARCHITECTURES, self.architecture)

    @property
    def sizes(self) -> ModelConfig:
        """Of a model of ours; Refused for what is missing, and for what ours has no option for."""
        try:
            found = self.plugin.sizes(self.table)
            if found["encoder_layers"] < 1:
                raise Refused("it has no layer that reads the source")
        except KeyError as error:
            raise Refused(f"{self.where}: no {error}, which a {self.architecture}'s has") from None
        except TypeError:  # a number is a text, or null
            raise Refused(f"{self.where}: a size is no number") from None
        except Refused as refused:
            raise Refused(f"{self.where}: {refused}") from None
        usual = {"norm": "post", "tied": self.table.get("tie_word_embeddings", True)}
        # Of each length that there are places for, the length head has a row.
        lengths = {"max_length": found["max_positions"]}
        return build(ModelConfig, usual | lengths | found, self.where)

    def taught(self, special: Special) -> tuple[str, dict]:
        """An objective of ours and its options; Refused where they do not exist."""
        try:
            found: tuple[str, dict] = self.plugin.taught(self.table, special)
        except Refused as refused:
            raise Refused(f"{self.where}: {refused}") from None
        return found

    def check_ids(self, special: Special) -> None:
        """Refuse a tokenizer of another size than the embedding, or with other ids.

        Where the configuration says nothing of a token, the tokenizer is believed.
        """
        if (rows := self.table["vocab_size"]) != special.vocabulary:
            raise Refused(
                f"{self.where}: {TOKENIZER} has {special.vocabulary:,} tokens and the weights "
                f"{rows:,} (vocab_size): each token needs a row of its own"
            )
        for key, place in self.plugin.IDS.items():
            mine, found = special.ids[place], self.table.get(key)
            if found is not None and found != mine:
                raise Refused(
                    f"{self.where}: {key} is {found}, {TOKENIZER} has {SPECIALS[place]} as {mine}"
                )


def read(folder: Path) -> Foreign:
    """Refused for what is missing, and for an architecture that is not known."""
    path = folder / "config.json"
    table, known = json_table(path), registry.names(ARCHITECTURES)
    if (kind := table.get("model_type")) not in known:
        own = ": start from the run that was exported" if kind == "januslm" else ""
        raise Refused(f"{path}: model_type is {kind!r}; possible are {', '.join(known)}{own}")
    if not (folder / TOKENIZER).is_file():
        raise Refused(f"{folder}: no {TOKENIZER} there")
    if not any((folder / name).is_file() for name in WEIGHTS):
        raise Refused(f"{folder}: none of {', '.join(WEIGHTS)} is there")
    return Foreign(kind, table, str(path))
