"""A checkpoint of ProphetNet's or BANG's own code (fairseq 0.9), by transformers' names.

Both have the same tensors.  There is no configuration beside them: sizes are read off the tensors,
all else is as their published architectures have it.
"""

from pathlib import Path
from types import SimpleNamespace

from torch import Tensor

from januslm.config import Refused
from januslm.data.tokenizer import Special
from januslm.interop.architectures.prophetnet import BUCKETS
from januslm.interop.hf_folder import Foreign
from januslm.interop.weights import unpickled

KINDS = ("bang", "prophetnet")
PROMISED = {"activation_function": "gelu", "dropout": 0.1}
_QKV = ("query_proj", "key_proj", "value_proj")  # as they lie in in_proj
# A part of a name of theirs, and transformers'; in this order.
_RENAMED = (
    ("embed_tokens", "word_embeddings"),
    ("embed_positions", "position_embeddings"),
    ("emb_layer_norm", "embeddings_layer_norm"),
    ("ngram_input_embed", "ngram_embeddings"),
    ("ngram_self_attn.relative_linear", "self_attn.relative_pos_embeddings"),
    ("ngram_self_attn.", "self_attn."),
    ("encoder_attn", "cross_attn"),
    ("final_layer_norm", "feed_forward_layer_norm"),
    ("fc1", "feed_forward.intermediate"),
    ("fc2", "feed_forward.output"),
    (".q_proj.", ".query_proj."),
    (".k_proj.", ".key_proj."),
    (".v_proj.", ".value_proj."),
)
_HEAD = "decoder.embed_out"  # where the output matrix is not the embedding


def read(path: Path, kind: str, special: Special) -> tuple[dict[str, Tensor], Foreign]:
    """Tensors by transformers' names and what a config.json would say; Refused for other files."""
    theirs = unpickled(path, "model", (SimpleNamespace, "argparse.Namespace"))
    tensors: dict[str, Tensor] = {}
    for name, tensor in theirs.items():
        tensors |= _renamed(name, tensor)
    return tensors, Foreign(kind, _table(tensors, special, path), str(path))


def _renamed(name: str, tensor: Tensor) -> dict[str, Tensor]:
    """Queries, keys and values may lie in one matrix, as they did before fairseq 0.9."""
    if name in ("encoder.version", "decoder.version"):
        return {}
    if name == _HEAD:
        return {"lm_head.weight": tensor}
    for old, new in _RENAMED:
        name = name.replace(old, new)
    for kind in ("weight", "bias"):
        if name.endswith(whole := f"in_proj_{kind}"):
            place = name.removesuffix(whole)
            each = zip(_QKV, tensor.chunk(3), strict=False)
            return {f"{place}{part}.{kind}": piece for part, piece in each}
    return {name: tensor}


def _table(tensors: dict[str, Tensor], special: Special, path: Path) -> dict:
    """Sizes; the tables of positions are cut to the same length, which the decoder's exceeds."""
    try:
        rows = min(len(tensors[f"{s}.position_embeddings.weight"]) for s in ("encoder", "decoder"))
        for side in ("encoder", "decoder"):
            table = tensors[f"{side}.position_embeddings.weight"]
            tensors[f"{side}.position_embeddings.weight"] = table[:rows]
        vocabulary, width = tensors["decoder.word_embeddings.weight"].shape
        layer = "decoder.layers.0"
        buckets = tensors[f"{layer}.self_attn.relative_pos_embeddings.weight"]
        ffn = len(tensors[f"{layer}.feed_forward.intermediate.weight"])
        streams = len(tensors["decoder.ngram_embeddings.weight"])
    except (KeyError, ValueError) as error:
        raise Refused(f"{path}: no weights of ProphetNet's or BANG's own code: {error}") from None
    heads = len(buckets) // BUCKETS
    return PROMISED | {
        "vocab_size": vocabulary,
        "hidden_size": width,
        "encoder_ffn_dim": ffn,
        "decoder_ffn_dim": ffn,
        "num_encoder_attention_heads": heads,
        "num_decoder_attention_heads": heads,
        "num_encoder_layers": _layers(tensors, "encoder"),
        "num_decoder_layers": _layers(tensors, "decoder"),
        "ngram": streams,
        "max_position_embeddings": rows,
        "pad_token_id": special.pad,
        "decoder_start_token_id": special.eos,
        "tie_word_embeddings": "lm_head.weight" not in tensors,
    }


def _layers(tensors: dict[str, Tensor], side: str) -> int:
    start = f"{side}.layers."
    found = {name.removeprefix(start).split(".")[0] for name in tensors if name.startswith(start)}
    return len(found)
