"""A BART folder of Hugging Face's, looked at without torch: its files and its configuration."""

from pathlib import Path

from januslm.config import Refused, build, json_table
from januslm.model.config import ModelConfig

WEIGHTS = ("model.safetensors", "pytorch_model.bin")


def read_config(folder: Path) -> ModelConfig:
    """The model's sizes; Refused for what is missing, and for what is not BART's."""
    path = folder / "config.json"
    config = json_table(path)
    if config.get("model_type") != "bart":
        raise Refused(f"{path}: model_type is {config.get('model_type')!r}, not 'bart'")
    if config.get("scale_embedding"):
        raise Refused(f"{path}: scale_embedding is true, which BART never is")
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
            "max_length": config["max_position_embeddings"],
        }
    except KeyError as error:
        raise Refused(f"{path}: no {error}, which a BART's has") from None
    if not (folder / "tokenizer.json").is_file():
        raise Refused(f"{folder}: no tokenizer.json there")
    if not any((folder / name).is_file() for name in WEIGHTS):
        raise Refused(f"{folder}: neither {' nor '.join(WEIGHTS)} is there")
    return build(ModelConfig, table, str(path))
