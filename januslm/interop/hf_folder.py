"""A folder of Hugging Face's, looked at without torch: its files and its configuration."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from safetensors import SafetensorError, safe_open

from januslm import registry
from januslm.config import Refused, build, json_table
from januslm.data.tokenizer import SPECIALS, Special, Tokenizer
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
NAMED = 5  # so many names a refusal lists of each kind


@dataclass(frozen=True)
class Foreign:
    """Weights of another project: of which architecture, and what its configuration says."""

    architecture: str  # a file of januslm/interop/architectures/
    table: dict  # config.json
    where: str  # the file that says it

    @property
    def plugin(self) -> ModuleType:
        return registry.find(ARCHITECTURES, self.architecture)

    def name(self, theirs: str) -> str:
        """A tensor's name without what may stand before it, and as new files have it."""
        for old, new in getattr(self.plugin, "RENAMED", ()):
            theirs = theirs.replace(old, new)
        return theirs.removeprefix(self.plugin.PREFIX)

    def parts(self, config: ModelConfig) -> dict[str, tuple[str, ...]]:
        """{our tensor: theirs} for a model of these sizes, whose output matrix may be its own."""
        out: dict[str, tuple[str, ...]] = self.plugin.names(config)
        if not config.tied and not self.plugin.ENCODER:
            out["lm_head.weight"] = (self.plugin.HEAD,)
        return out

    def embeddings(self, config: ModelConfig) -> tuple[str, ...]:
        """All names of the embedding, the first being the one in `parts`."""
        head = (self.plugin.HEAD,) if config.tied else ()
        return (*self.plugin.WORDS, *head)

    def check_names(self, theirs: Iterable[str], config: ModelConfig, where: str) -> None:
        """Refuse, with all their names, tensors that are missing or have no place."""
        every, same = Counter(map(self.name, theirs)), self.embeddings(config)
        if twice := sorted(name for name, count in every.items() if count > 1):
            raise Refused(f"{where}: more than once: {listed(twice)}")
        found = set(every)
        if found & set(same):
            found = found - set(same) | {same[0]}
        wanted = {name for parts in self.parts(config).values() for name in parts}
        wanted |= set(getattr(self.plugin, "ADDED", ()))
        known = {name for name in found if not name.startswith(self.plugin.LEFT)}
        kinds = (("missing", wanted - found), ("without a place in it", known - wanted))
        if lists := [f"{kind}: {listed(sorted(names))}" for kind, names in kinds if names]:
            what = f"not the weights of this {self.architecture}"
            raise Refused(f"{where}: {what}: {'; '.join(lists)}")

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

    def check_ids(self, tokenizer: Tokenizer) -> None:
        """Refuse a tokenizer of another size than the embedding, or with other ids.

        Where the configuration says nothing of a token, the tokenizer is believed.
        """
        special = tokenizer.special
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


def listed(names: list[str]) -> str:
    """The first of them, and how many more there are."""
    more = f" and {len(names) - NAMED:,} more" if len(names) > NAMED else ""
    return ", ".join(names[:NAMED]) + more


def weights_file(folder: Path) -> Path:
    """The weights, or the index of the files that they are spread over."""
    return next(folder / name for name in WEIGHTS if (folder / name).is_file())


def shards(index: Path) -> dict[str, list[str]]:
    """{file: its tensors} of an index; Refused for what is none."""
    table = json_table(index).get("weight_map")
    if not isinstance(table, dict) or not all(isinstance(x, str) for x in table.values()):
        raise Refused(f"{index}: weight_map must give a file for each tensor")
    found: dict[str, list[str]] = {}
    for tensor, name in table.items():
        found.setdefault(name, []).append(tensor)
    for name in found:
        if Path(name).name != name:
            raise Refused(f"{index}: {name!r} is not a file beside it")
        if not (index.parent / name).is_file():
            raise Refused(f"{index}: {name} is not there")
    return found


def check_weights(folder: Path, foreign: Foreign, config: ModelConfig) -> None:
    """Refuse weights by the names of their tensors, as far as torch is not needed to read them."""
    path = weights_file(folder)
    if path.suffix == ".json":
        names = [name for part in shards(path).values() for name in part]
    elif path.suffix == ".safetensors":
        try:
            with safe_open(path, framework="numpy") as file:
                names = list(file.keys())
        except (SafetensorError, OSError) as error:
            raise Refused(f"{path}: not readable as safetensors ({error})") from None
    else:
        return  # a pickle, which is torch's
    foreign.check_names(names, config, str(folder))


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
