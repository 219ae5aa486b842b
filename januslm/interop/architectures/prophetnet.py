"""ProphetNet (Qi 2020; transformers' ProphetNetForConditionalGeneration).

Our post-norm backbone with `position_bias = "prophetnet"`.  Its streams' vectors stand after the
words in our embedding: that of the next word first, which is the last row of theirs.
"""

from typing import TYPE_CHECKING

from januslm.config import Refused
from januslm.data.tokenizer import SPECIALS, Special
from januslm.model.config import ModelConfig
from januslm.objectives.prophetnet import EXTRA_VECTORS

if TYPE_CHECKING:
    from torch import Tensor

PREFIX, HEAD, ENCODER = "prophetnet.", "lm_head.weight", False
WORDS = (
    "word_embeddings.weight",
    "encoder.word_embeddings.weight",
    "decoder.word_embeddings.weight",
)
LEFT: tuple[str, ...] = ()
IDS = {"pad_token_id": 1, "eos_token_id": 2}  # its bos_token_id is its EOS, or nothing
STREAMS = "decoder.ngram_embeddings.weight"
BUCKETS, FAR = 32, 128  # januslm/model/position_bias/prophetnet.py
_POSITIONS = "encoder.position_embeddings.weight", "decoder.position_embeddings.weight"
_ATTENTION = {
    "q_proj": ("query_proj",),
    "kv_proj": ("key_proj", "value_proj"),
    "out_proj": ("out_proj",),
}


def sizes(config: dict) -> dict:
    """See the folder's docstring; Refused for what our model has no option for."""
    for one, other in (
        ("encoder_ffn_dim", "decoder_ffn_dim"),
        ("num_encoder_attention_heads", "num_decoder_attention_heads"),
    ):
        if config[one] != config[other]:
            raise Refused(f"{one} and {other} differ")
    for key, want in (("num_buckets", BUCKETS), ("relative_max_distance", FAR)):
        if (found := config.get(key, want)) != want:
            raise Refused(f"{key} is {found}; possible is {want}")
    if (streams := config["ngram"]) > EXTRA_VECTORS:
        raise Refused(f"ngram is {streams}; possible are 1 to {EXTRA_VECTORS}")
    return {
        "vocabulary": config["vocab_size"],
        "width": config["hidden_size"],
        "ffn": config["encoder_ffn_dim"],
        "heads": config["num_encoder_attention_heads"],
        "encoder_layers": config["num_encoder_layers"],
        "decoder_layers": config["num_decoder_layers"],
        "activation": config["activation_function"],
        "dropout": config["dropout"],
        "max_positions": config["max_position_embeddings"] - _first_row(config),
        "position_bias": "prophetnet",
        "extra_vectors": EXTRA_VECTORS,
    }


def _first_row(config: dict) -> int:
    """Of the first place in the tables of positions: what comes before is padding's."""
    return 1 + (config.get("pad_token_id") or 0)


def taught(config: dict, special: Special) -> tuple[str, dict]:
    """As many words ahead as it has streams; before the first word stands what it starts with."""
    return "prophetnet", {"ahead": config["ngram"], "prefix": prefix(config, special)}


def prefix(config: dict, special: Special) -> str:
    """What stands before the first word: the name of an option of the objective."""
    first = config.get("decoder_start_token_id", special.eos)
    known = {special.eos: "eos", special.bos: "bos"}
    if first not in known:
        raise Refused(
            f"decoder_start_token_id is {first}; possible are {special.eos} ({SPECIALS[2]}) and "
            f"{special.bos} ({SPECIALS[0]})"
        )
    return known[first]


def names(config: ModelConfig) -> dict[str, tuple[str, ...]]:
    """Ours and theirs; two of theirs where our keys and values are one matrix."""
    out: dict[str, tuple[str, ...]] = {"embedding.weight": (WORDS[0], STREAMS)}
    modules: dict[str, tuple[str, ...]] = {}
    for side, layers in (("encoder", config.encoder_layers), ("decoder", config.decoder_layers)):
        out[f"{side}.positions.table.weight"] = (f"{side}.position_embeddings.weight",)
        modules[f"{side}.embedding_layer_norm"] = (f"{side}.embeddings_layer_norm",)
        looks = {"self_attn": "self_attn"}
        if side == "decoder":
            looks["encoder_attn"] = "cross_attn"
        for i in range(layers):
            layer, parts = f"{side}.layers.{i}", _feed_forward()
            for mine, theirs in looks.items():
                parts[f"{mine}_layer_norm"] = (f"{theirs}_layer_norm",)
                for one, others in _ATTENTION.items():
                    parts[f"{mine}.{one}"] = tuple(f"{theirs}.{other}" for other in others)
            for mine, found in parts.items():
                modules[f"{layer}.{mine}"] = tuple(f"{layer}.{name}" for name in found)
            if side == "decoder":
                mine = f"decoder.position_bias.relative_pos_embeddings.{i}"
                modules[mine] = (f"{layer}.self_attn.relative_pos_embeddings",)
    for mine, theirs_ in modules.items():
        for kind in ("weight", "bias"):
            out[f"{mine}.{kind}"] = tuple(f"{name}.{kind}" for name in theirs_)
    return out


def _feed_forward() -> dict[str, tuple[str, ...]]:
    return {
        "fc1": ("feed_forward.intermediate",),
        "fc2": ("feed_forward.output",),
        "final_layer_norm": ("feed_forward_layer_norm",),
    }


def prepare(tensors: "dict[str, Tensor]", config: dict, where: str) -> None:
    """Position tables from the row of the first place on; the next word's vector first."""
    for name in _POSITIONS:
        tensors[name] = tensors[name][_first_row(config) :]
    tensors[STREAMS] = tensors[STREAMS].roll(1, 0)
