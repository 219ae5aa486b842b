"""BART's weights in Hugging Face's form, in and out (Lewis 2020; transformers' BartModel).

BART is our BART-style backbone with AR read from past slots.  A token has the same id on both
sides: row i of their embedding is row i of ours.
"""

import warnings
from pathlib import Path

import torch
from torch import Tensor

from januslm.config import Refused
from januslm.interop import native
from januslm.interop.bart_config import WEIGHTS
from januslm.model.config import ModelConfig
from januslm.model.transformer import Seq2Seq

OFFSET = 2  # BART's position tables begin with two rows that nothing reads
_ATTENTION = {"q_proj": ("q_proj",), "kv_proj": ("k_proj", "v_proj"), "out_proj": ("out_proj",)}


def load(folder: Path, config: ModelConfig) -> Seq2Seq:
    """A model with the weights of a folder of Hugging Face's; its length head is new.

    Refused, naming the tensor, for what is missing, left over or of another shape.
    """
    theirs = _weights(folder)
    used: set[str] = {"final_logits_bias", "lm_head.weight"}
    state = {"embedding.weight": _take(theirs, "shared.weight", used, folder)}
    for mine, parts in names(config).items():
        tensors = [_take(theirs, part, used, folder) for part in parts]
        try:
            whole = torch.cat(tensors)
        except RuntimeError as error:
            raise Refused(f"{folder}: {parts[0]}: {error}") from None
        state[mine] = whole[OFFSET:] if "positions" in mine else whole
    used |= {"encoder.embed_tokens.weight", "decoder.embed_tokens.weight"}
    left = sorted(set(theirs) - used)
    if left:
        raise Refused(
            f"{folder}: {left[0]} and {len(left) - 1} more tensors have no place in a BART"
        )
    if (bias := theirs.get("final_logits_bias")) is not None and bias.any():
        raise Refused(f"{folder}: final_logits_bias is not zero, and there is no place for it")
    native.check(config, state, folder)
    model = Seq2Seq(config)
    native.fill(model, model.state_dict() | state, folder)
    return model


def save(model: Seq2Seq) -> dict[str, Tensor]:
    """What transformers' BartForConditionalGeneration loads; the length head stays behind."""
    state, out = model.state_dict(), {}
    for mine, parts in names(model.config).items():
        tensor = state[mine]
        if "positions" in mine:
            tensor = torch.cat([tensor.new_zeros(OFFSET, tensor.shape[1]), tensor])
        for part, piece in zip(parts, tensor.chunk(len(parts)), strict=True):
            out[f"model.{part}"] = piece.clone()
    out["model.shared.weight"] = state["embedding.weight"][: model.config.vocabulary].clone()
    return out


def names(config: ModelConfig) -> dict[str, tuple[str, ...]]:
    """Our tensors and BART's; two of BART's where our keys and values are one matrix."""
    out: dict[str, tuple[str, ...]] = {}
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


def _weights(folder: Path) -> dict[str, Tensor]:
    """Tensors by name, without the "model." in front; safetensors, else a pickle without code."""
    safe, pickled = (folder / name for name in WEIGHTS)
    state = native.load(safe) if safe.is_file() else _unpickled(pickled)
    return {name.removeprefix("model."): tensor.float() for name, tensor in state.items()}


def _unpickled(path: Path) -> dict[str, Tensor]:
    """Tensors of a pickle that may hold nothing else: no code of it runs."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of torch, about how others pickle
            state = torch.load(path, weights_only=True, map_location="cpu")
    except Exception as error:  # a damaged file raises a dozen types
        reason = " ".join(str(error).split())
        raise Refused(f"{path}: not tensors alone, or damaged ({reason[:200]})") from None
    if not isinstance(state, dict) or not all(isinstance(x, Tensor) for x in state.values()):
        raise Refused(f"{path}: must be tensors by name")
    return state


def _take(state: dict, name: str, used: set[str], folder: Path) -> Tensor:
    if name not in state:
        raise Refused(f"{folder}: the tensor {name} is missing")
    used.add(name)
    return state[name]
