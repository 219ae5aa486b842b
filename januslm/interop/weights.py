"""Tensors of another project become a model of ours, and back: all of them, or none.

What an architecture calls its tensors stands in januslm/interop/architectures/.
"""

import warnings
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from januslm import registry
from januslm.config import Refused
from januslm.interop import native
from januslm.interop.hf_folder import ARCHITECTURES, Foreign, listed, shards, weights_file
from januslm.model.config import ModelConfig
from januslm.model.transformer import Seq2Seq


def load(folder: Path, foreign: Foreign, config: ModelConfig, decoder: str = "random") -> Seq2Seq:
    """A model with the weights of a folder; see `filled`."""
    return filled(read(folder), foreign, config, str(folder), decoder)


def filled(
    tensors: dict[str, Tensor],
    foreign: Foreign,
    config: ModelConfig,
    where: str,
    decoder: str = "random",
) -> Seq2Seq:
    """A model with these weights; what they do not have is new: the length head, vectors.

    decoder: of an encoder's weights alone, "encoder" gives the decoder the same ones (Rothe 2020,
    BERT2BERT), but for its attention to the source.  Refused, naming tensors, for what is missing,
    left over or of another shape; nothing is filled then.
    """
    state = _fitted(tensors, foreign, config, where)
    if foreign.plugin.ENCODER and decoder == "encoder":
        own = {name.replace("encoder.", "decoder.", 1): x for name, x in state.items()}
        state = own | state
    names = foreign.parts(config)
    with torch.device("meta"):
        shapes = {name: x.shape for name, x in Seq2Seq(config).state_dict().items()}
    rows = len(state["embedding.weight"])
    for name, tensor in state.items():
        want, got = list(shapes[name]), list(tensor.shape)
        if name == "embedding.weight" and config.vocabulary <= rows < want[0]:
            want[0] = rows  # vectors after the words that theirs does not have
        if want != got:
            theirs = " and ".join(names.get(name, (name,)))
            raise Refused(f"{where}: {theirs} has shape {got}, the model wants {want}")
    model = Seq2Seq(config)
    new = model.state_dict()
    state["embedding.weight"] = torch.cat(
        [state["embedding.weight"], new["embedding.weight"][rows:]]
    )
    native.fill(model, new | state, Path(where))
    return model


def save(model: Seq2Seq, architecture: str) -> dict[str, Tensor]:
    """What the architecture's own class loads; the length head stays behind."""
    plugin, state = registry.find(ARCHITECTURES, architecture), model.state_dict()
    state["embedding.weight"] = state["embedding.weight"][: model.config.vocabulary]
    found: dict[str, Tensor] = {}
    for mine, parts in plugin.names(model.config).items():
        pieces = state[mine].chunk(len(parts))
        found |= {part: piece.clone() for part, piece in zip(parts, pieces, strict=True)}
    plugin.finish(found)
    return {f"{plugin.PREFIX}{name}": tensor for name, tensor in found.items()}


def _fitted(
    theirs: Mapping[str, Tensor], foreign: Foreign, config: ModelConfig, where: str
) -> dict[str, Tensor]:
    """Our tensors by name, in fp32.  Refused, naming theirs, unless each has its place."""
    foreign.check_names(theirs, config, where)
    found = {foreign.name(name): tensor.float() for name, tensor in theirs.items()}
    try:
        foreign.plugin.prepare(found, foreign.table, where)
    except (RuntimeError, IndexError) as error:  # tensors of shapes that do not go together
        raise Refused(f"{where}: {' '.join(str(error).split())}") from None
    _one(found, foreign.embeddings(config), where)
    names = foreign.parts(config)
    state: dict[str, Tensor] = {}
    for mine, parts in names.items():
        try:
            state[mine] = torch.cat([found[part] for part in parts])
        except RuntimeError:
            shapes = ", ".join(f"{part} {list(found[part].shape)}" for part in parts)
            raise Refused(f"{where}: do not lie one below the other: {shapes}") from None
    return state


def _one(found: dict[str, Tensor], same: tuple[str, ...], where: str) -> None:
    """Several names of one tensor become the first; Refused where they are not one."""
    there = {name: found.pop(name) for name in same if name in found}
    for name, tensor in there.items():
        first, one = next(iter(there.items()))
        if not torch.equal(tensor, one):
            raise Refused(f"{where}: {name} is not {first}, and they are one tensor here")
        found[same[0]] = one


def read(folder: Path) -> dict[str, Tensor]:
    """All tensors of a folder by name; safetensors, else a pickle without code."""
    path = weights_file(folder)
    if path.suffix != ".json":
        return _file(path)
    found: dict[str, Tensor] = {}
    for name, names in shards(path).items():
        part = _file(folder / name)
        if twice := sorted(found.keys() & part.keys()):
            raise Refused(f"{folder / name}: {listed(twice)}: in another file as well")
        if lost := sorted(set(names) - part.keys()):
            raise Refused(f"{folder / name}: lacks, of what {path.name} says: {listed(lost)}")
        found |= part
    return found


def _file(path: Path) -> dict[str, Tensor]:
    return native.load(path) if path.suffix == ".safetensors" else unpickled(path)


def unpickled(path: Path, key: str = "", *plain: tuple[type, str]) -> dict[str, Tensor]:
    """Tensors of a pickle, of its `key` if it has one: no code of it runs.

    plain: a class that holds values alone, and the name of what becomes one of it.
    """
    try:
        with warnings.catch_warnings(), torch.serialization.safe_globals(list(plain)):
            warnings.simplefilter("ignore")  # of torch, about how others pickle
            state = torch.load(path, weights_only=True, map_location="cpu")
    except Exception as error:  # a damaged file raises a dozen types
        reason = " ".join(str(error).split())
        raise Refused(f"{path}: not tensors alone, or damaged ({reason[:200]})") from None
    if key and isinstance(state, dict):
        state = state.get(key, state)
    if not isinstance(state, dict) or not all(isinstance(x, Tensor) for x in state.values()):
        raise Refused(f"{path}: must be tensors by name")
    return state
