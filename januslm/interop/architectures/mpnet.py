"""MPNet (Song 2020; transformers' MPNetModel): BERT with T5's buckets, one table for all layers."""

from typing import TYPE_CHECKING

from januslm.config import Refused
from januslm.data.tokenizer import Special
from januslm.interop.architectures import bert
from januslm.model.config import ModelConfig

if TYPE_CHECKING:
    from torch import Tensor

PREFIX, HEAD, ENCODER = "mpnet.", "lm_head.decoder.weight", True
WORDS = bert.WORDS
# Heads, and a buffer of old files: 0, 1, 2, ..
LEFT = ("lm_head.", "pooler.", "classifier.", "qa_outputs.", "embeddings.position_ids")
IDS = {"bos_token_id": 0, "pad_token_id": 1, "eos_token_id": 2}
OFFSET = 2  # its position table begins with two rows that nothing reads
BUCKETS = 32  # januslm/model/position_bias/t5.py
_POSITIONS = "embeddings.position_embeddings.weight"
_ATTENTION = {
    "q_proj": ("attention.attn.q",),
    "kv_proj": ("attention.attn.k", "attention.attn.v"),
    "out_proj": ("attention.attn.o",),
}


def sizes(config: dict) -> dict:
    """See the folder's docstring; the decoder is given as many layers as the encoder has."""
    if (found := config.get("relative_attention_num_buckets", BUCKETS)) != BUCKETS:
        raise Refused(f"relative_attention_num_buckets is {found}; possible is {BUCKETS}")
    positions = config["max_position_embeddings"] - OFFSET
    return bert.common_sizes(config) | {"max_positions": positions, "position_bias": "t5"}


def taught(config: dict, special: Special) -> tuple[str, dict]:
    """Words in a random order."""
    return "mpnet", {}


def names(config: ModelConfig) -> dict[str, tuple[str, ...]]:
    """Ours and theirs."""
    return {
        "embedding.weight": WORDS,
        "encoder.positions.table.weight": (_POSITIONS,),
        "encoder.position_bias.table.weight": ("encoder.relative_attention_bias.weight",),
    } | bert.layers(config, _ATTENTION, "attention.LayerNorm")


def prepare(tensors: "dict[str, Tensor]", config: dict, where: str) -> None:
    """The position table from the row of the first place on."""
    tensors[_POSITIONS] = tensors[_POSITIONS][OFFSET:]
