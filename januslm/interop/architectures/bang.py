"""BANG (Qi 2021): ProphetNet's backbone with one vector for all masks.

Its checkpoint is fairseq's, see januslm/interop/fairseq.py, where tensors get ProphetNet's names.
"""

from typing import TYPE_CHECKING

from januslm.data.tokenizer import Special
from januslm.interop.architectures import prophetnet
from januslm.interop.architectures.prophetnet import (
    ENCODER,
    HEAD,
    IDS,
    LEFT,
    PREFIX,
    STREAMS,
    WORDS,
    names,
)
from januslm.objectives.bang import EXTRA_VECTORS

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["ENCODER", "HEAD", "IDS", "LEFT", "PREFIX", "WORDS", "names"]


def sizes(config: dict) -> dict:
    """As ProphetNet's."""
    return prophetnet.sizes(config) | {"extra_vectors": EXTRA_VECTORS}


def taught(config: dict, special: Special) -> tuple[str, dict]:
    """All its chains; before the first word stands what it starts with."""
    return "bang", {"way": "streams", "prefix": prophetnet.prefix(config, special)}


def prepare(tensors: "dict[str, Tensor]", config: dict, where: str) -> None:
    """As ProphetNet's; of several vectors, which a ProphetNet has, that of the next word."""
    prophetnet.prepare(tensors, config, where)
    tensors[STREAMS] = tensors[STREAMS][:EXTRA_VECTORS]
