"""BART (Lewis 2020; transformers' BartModel): our BART-style backbone, AR read from past slots."""

from typing import TYPE_CHECKING

from januslm.config import Refused
from januslm.data.tokenizer import SPECIALS, Special
from januslm.model.config import ModelConfig

if TYPE_CHECKING:
    from torch import Tensor

PREFIX, HEAD, ENCODER = "model.", "lm_head.weight", False
WORDS = ("shared.weight", "encoder.embed_tokens.weight", "decoder.embed_tokens.weight")
LEFT = ("classification_head.", "final_logits_bias")  # a head, and what must be zero
IDS = {"bos_token_id": 0, "pad_token_id": 1, "eos_token_id": 2}  # the token's place in SPECIALS
OFFSET = 2  # its position tables begin with two rows that nothing reads
_POSITIONS = "encoder.embed_positions.weight", "decoder.embed_positions.weight"
_ATTENTION = {"q_proj": ("q_proj",), "kv_proj": ("k_proj", "v_proj"), "out_proj": ("out_proj",)}


def sizes(config: dict) -> dict:
    """See the folder's docstring; Refused where encoder and decoder differ."""
    for key in ("ffn_dim", "attention_heads"):
        if config[f"encoder_{key}"] != config[f"decoder_{key}"]:
            raise Refused(f"encoder and decoder differ in {key}")
    return {
        "vocabulary": config["vocab_size"],
        "width": config["d_model"],
        "ffn": config["encoder_ffn_dim"],
        "heads": config["encoder_attention_heads"],
        "encoder_layers": config["encoder_layers"],
        "decoder_layers": config["decoder_layers"],
        "activation": config["activation_function"],
        "dropout": config["dropout"],
        "max_positions": config["max_position_embeddings"],
        "embedding_scale": bool(config.get("scale_embedding")),
    }


def taught(config: dict, special: Special) -> tuple[str, dict]:
    """AR; how it is read follows from what stands before the first word."""
    first = config.get("decoder_start_token_id", special.eos)
    places = {special.eos: "target", special.bos: "input"}
    if first not in places:
        raise Refused(
            f"decoder_start_token_id is {first}; possible are {special.eos} ({SPECIALS[2]}) and "
            f"{special.bos} ({SPECIALS[0]})"
        )
    return "ar", {"read": "past", "query_position": places[first]}


def names(config: ModelConfig) -> dict[str, tuple[str, ...]]:
    """Ours and theirs; two of theirs where our keys and values are one matrix."""
    out: dict[str, tuple[str, ...]] = {"embedding.weight": WORDS[:1]}
    for side, layers in (("encoder", config.encoder_layers), ("decoder", config.decoder_layers)):
        out[f"{side}.positions.table.weight"] = (f"{side}.embed_positions.weight",)
        modules: dict[str, tuple[str, ...]] = {
            f"{side}.embedding_layer_norm": (f"{side}.layernorm_embedding",)
        }
        looks = ("self_attn", "encoder_attn") if side == "decoder" else ("self_attn",)
        for layer in (f"{side}.layers.{i}" for i in range(layers)):
            for name in ("fc1", "fc2", "final_layer_norm", *(f"{a}_layer_norm" for a in looks)):
                modules[f"{layer}.{name}"] = (f"{layer}.{name}",)
            for attention in (f"{layer}.{look}" for look in looks):
                for mine, theirs in _ATTENTION.items():
                    modules[f"{attention}.{mine}"] = tuple(f"{attention}.{t}" for t in theirs)
        for mine, theirs in modules.items():
            for kind in ("weight", "bias"):
                out[f"{mine}.{kind}"] = tuple(f"{name}.{kind}" for name in theirs)
    return out


def prepare(tensors: "dict[str, Tensor]", config: dict, where: str) -> None:
    """Position tables from the row of the first place on."""
    bias = tensors.pop("final_logits_bias", None)
    if bias is not None and bias.any():
        raise Refused(f"{where}: final_logits_bias is not zero, and there is no place for it")
    for name in _POSITIONS:
        tensors[name] = tensors[name][OFFSET:]


def finish(tensors: "dict[str, Tensor]") -> None:
    """The way back of `prepare`."""
    for name in _POSITIONS:
        rows = tensors[name]
        tensors[name] = rows.new_zeros(OFFSET + len(rows), rows.shape[1])
        tensors[name][OFFSET:] = rows
