"""BERT (Devlin 2019; transformers' BertModel): the encoder of our post-norm backbone.

The kind of a text (token type 0, a single text) is one vector at all places: it is added to the
table of positions, so that the embedding stays that of the words.
"""

from typing import TYPE_CHECKING

from januslm.config import Refused
from januslm.data.tokenizer import Special
from januslm.model.config import ModelConfig

if TYPE_CHECKING:
    from torch import Tensor

PREFIX, HEAD, ENCODER = "bert.", "cls.predictions.decoder.weight", True
WORDS = ("embeddings.word_embeddings.weight",)
# Heads, and a buffer of old files: 0, 1, 2, ..
LEFT = ("cls.", "pooler.", "classifier.", "qa_outputs.", "embeddings.position_ids")
# What old files say.
RENAMED = (("LayerNorm.gamma", "LayerNorm.weight"), ("LayerNorm.beta", "LayerNorm.bias"))
IDS = {"pad_token_id": 1}  # the token's place in SPECIALS
_POSITIONS, _KINDS = (f"embeddings.{kind}_embeddings.weight" for kind in ("position", "token_type"))
ADDED = (_KINDS,)
ATTENTION = {
    "q_proj": ("attention.self.query",),
    "kv_proj": ("attention.self.key", "attention.self.value"),
    "out_proj": ("attention.output.dense",),
}
ATTENTION_NORM = "attention.output.LayerNorm"


def sizes(config: dict) -> dict:
    """See the folder's docstring; the decoder is given as many layers as the encoder has."""
    kind = config.get("position_embedding_type", "absolute")
    if kind != "absolute":
        raise Refused(f"position_embedding_type is {kind!r}; possible is 'absolute'")
    return common_sizes(config) | {"max_positions": config["max_position_embeddings"]}


def common_sizes(config: dict) -> dict:
    """Keys that MPNet's configuration has by the same names."""
    return {
        "vocabulary": config["vocab_size"],
        "width": config["hidden_size"],
        "ffn": config["intermediate_size"],
        "heads": config["num_attention_heads"],
        "encoder_layers": config["num_hidden_layers"],
        "decoder_layers": config["num_hidden_layers"],
        "activation": config["hidden_act"],
        "dropout": config["hidden_dropout_prob"],
        "norm_eps": config["layer_norm_eps"],
    }


def taught(config: dict, special: Special) -> tuple[str, dict]:
    """Words that are masked or replaced."""
    return "mlm", {}


def names(config: ModelConfig) -> dict[str, tuple[str, ...]]:
    """Ours and theirs."""
    return {
        "embedding.weight": WORDS,
        "encoder.positions.table.weight": (_POSITIONS,),
    } | layers(config, ATTENTION, ATTENTION_NORM)


def layers(
    config: ModelConfig, attention: dict[str, tuple[str, ...]], attention_norm: str
) -> dict[str, tuple[str, ...]]:
    """The encoder's layers, and the norm before them; MPNet's differ in attention alone."""
    parts = {f"self_attn.{mine}": theirs for mine, theirs in attention.items()} | {
        "self_attn_layer_norm": (attention_norm,),
        "fc1": ("intermediate.dense",),
        "fc2": ("output.dense",),
        "final_layer_norm": ("output.LayerNorm",),
    }
    modules: dict[str, tuple[str, ...]] = {
        "encoder.embedding_layer_norm": ("embeddings.LayerNorm",)
    }
    for i in range(config.encoder_layers):
        modules |= {
            f"encoder.layers.{i}.{mine}": tuple(f"encoder.layer.{i}.{name}" for name in theirs)
            for mine, theirs in parts.items()
        }
    return {
        f"{mine}.{kind}": tuple(f"{name}.{kind}" for name in theirs)
        for mine, theirs in modules.items()
        for kind in ("weight", "bias")
    }


def prepare(tensors: "dict[str, Tensor]", config: dict, where: str) -> None:
    """The vector of a single text goes to the places."""
    tensors[_POSITIONS] = tensors[_POSITIONS] + tensors[_KINDS][0]
