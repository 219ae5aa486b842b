"""A BART folder of Hugging Face's, looked at without torch: its files and its configuration."""

from pathlib import Path

from januslm.config import Refused, build, json_table
from januslm.data.tokenizer import SPECIALS, Special
from januslm.model.config import ModelConfig

WEIGHTS = ("model.safetensors", "pytorch_model.bin")
TOKENIZER = "tokenizer.json"
KEYS = ("bos_token_id", "pad_token_id", "eos_token_id")  # as Special has them


def read_config(folder: Path) -> ModelConfig:
    """The model's sizes; Refused for what is missing, and for what is not BART's."""
    path = folder / "config.json"
    config = json_table(path)
    if (kind := config.get("model_type")) != "bart":
        own = ": start from the run that was exported" if kind == "januslm" else ""
        raise Refused(f"{path}: model_type is {kind!r}, not 'bart'{own}")
    try:
        if config["encoder_ffn_dim"] != config["decoder_ffn_dim"]:
            raise Refused(f"{path}: encoder and decoder differ in ffn_dim")
        table = {
            "vocabulary": config["vocab_size"],
            "width": config["d_model"],
            "ffn": config["encoder_ffn_dim"],
            "heads": config["encoder_attention_heads"],
            "encoder_layers": config["encoder_layers"],
            "decoder_layers": config["decoder_layers"],
            "activation": config["activation_function"],
            "dropout": config["dropout"],
            "max_positions": config["max_position_embeddings"],
            "norm": "post",
            "embedding_scale": bool(config.get("scale_embedding")),
            "max_length": config["max_position_embeddings"],
        }
    except KeyError as error:
        raise Refused(f"{path}: no {error}, which a BART's has") from None
    if not (folder / TOKENIZER).is_file():
        raise Refused(f"{folder}: no {TOKENIZER} there")
    if not any((folder / name).is_file() for name in WEIGHTS):
        raise Refused(f"{folder}: neither {' nor '.join(WEIGHTS)} is there")
    return build(ModelConfig, table, str(path))


def check_ids(folder: Path, special: Special) -> None:
    """Refuse a tokenizer of another size than the embedding, or with other ids than config.json.

    Where config.json says nothing of a token, the tokenizer is believed.
    """
    path = folder / "config.json"
    config = json_table(path)
    if config["vocab_size"] != special.vocabulary:
        raise Refused(
            f"{folder}: {TOKENIZER} has {special.vocabulary:,} tokens and the weights "
            f"{config['vocab_size']:,} (vocab_size): each token needs a row of its own"
        )
    for key, token, mine in zip(KEYS, SPECIALS, special.ids, strict=False):
        if config.get(key, mine) != mine:
            raise Refused(f"{path}: {key} is {config[key]}, {TOKENIZER} has {token} as {mine}")


def ar_options(folder: Path, special: Special) -> dict:
    """How AR is read, by what stands before the first word: the objective's own options."""
    path = folder / "config.json"
    first = json_table(path).get("decoder_start_token_id", special.eos)
    places = {special.eos: "target", special.bos: "input"}
    if first not in places:
        raise Refused(
            f"{path}: decoder_start_token_id is {first}; possible are {special.eos} "
            f"({SPECIALS[2]}) and {special.bos} ({SPECIALS[0]})"
        )
    return {"read": "past", "query_position": places[first]}
