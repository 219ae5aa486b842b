"""Small random models of transformers' own classes, saved with a tokenizer as they come."""

from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
import tokenizers
import torch

from januslm.data.tokenizer import SPECIALS
from januslm.interop.__main__ import main

transformers = pytest.importorskip("transformers", reason="transformers is a dev dependency")


def words(folder, size: int, ids) -> None:
    """A tokenizer of `size` whole words with SPECIALS at these ids."""
    special = dict(zip(ids, SPECIALS, strict=True))
    table = {special.get(i, str(i)): i for i in range(size)}
    model = tokenizers.Tokenizer(tokenizers.models.WordLevel(table, unk_token=SPECIALS[3]))
    folder.mkdir(exist_ok=True)
    model.save(str(folder / "tokenizer.json"))


def made(kind, config, folder, ids):
    """A model of transformers' with lively random weights and its tokenizer, saved."""
    model = kind(config).eval()
    for name, p in model.named_parameters():
        norm = "norm" in name.lower() and name.endswith("weight")
        torch.nn.init.normal_(p, mean=float(norm), std=0.2)
    model.save_pretrained(folder)
    words(folder, config.vocab_size, ids)
    return model


def sizes(rng) -> dict:
    heads = int(rng.choice([1, 2, 4]))
    return {"heads": heads, "width": 8 * heads, "ffn": int(rng.integers(8, 50))}


def prophetnet(folder, rng, **changes):
    """A random ProphetNet of transformers', saved."""
    size, layers = sizes(rng), rng.integers(1, 4, 2).tolist()
    config = transformers.ProphetNetConfig(
        vocab_size=int(rng.integers(40, 70)),
        hidden_size=size["width"],
        encoder_ffn_dim=size["ffn"],
        decoder_ffn_dim=size["ffn"],
        num_encoder_layers=layers[0],
        num_decoder_layers=layers[1],
        num_encoder_attention_heads=size["heads"],
        num_decoder_attention_heads=size["heads"],
        max_position_embeddings=48,
        **{"ngram": int(rng.integers(1, 5)), "pad_token_id": 0, "bos_token_id": 6} | changes,
        eos_token_id=6,
        decoder_start_token_id=6,
    )
    ids = (5, config.pad_token_id, 6, 7, 8)
    return made(transformers.ProphetNetForConditionalGeneration, config, folder, ids)


def encoder_of(kind: str, folder, rng):
    """A random BERT or MPNet of transformers', saved as it is published: inside a larger one."""
    size = sizes(rng)
    shared = {
        "vocab_size": int(rng.integers(40, 70)),
        "hidden_size": size["width"],
        "num_hidden_layers": int(rng.integers(1, 4)),
        "num_attention_heads": size["heads"],
        "intermediate_size": size["ffn"],
        "max_position_embeddings": 200,
        "hidden_act": str(rng.choice(["gelu", "relu"])),
        "layer_norm_eps": float(rng.choice([1e-12, 1e-5, 1e-2])),
    }
    if kind == "bert":
        config = transformers.BertConfig(**shared, pad_token_id=0)
        return made(transformers.BertForMaskedLM, config, folder, (5, 0, 6, 7, 8)).bert
    config = transformers.MPNetConfig(**shared)
    return made(transformers.MPNetForMaskedLM, config, folder, (0, 1, 2, 3, 30)).mpnet


def bart(folder, rng):
    """A random BART of transformers', saved."""
    config = transformers.BartConfig(
        vocab_size=50,
        d_model=16,
        encoder_layers=1,
        decoder_layers=2,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=24,
        decoder_ffn_dim=24,
        max_position_embeddings=40,
    )
    return made(transformers.BartForConditionalGeneration, config, folder, (0, 1, 2, 3, 49))


def any_model(kind: str, folder) -> None:
    """A model of that architecture, always the same one, saved."""
    folder.mkdir(exist_ok=True)
    for name, content in _files_of(kind).items():
        (folder / name).write_bytes(content)


@cache
def _files_of(kind: str) -> dict[str, bytes]:
    torch.manual_seed(1)
    rng = np.random.default_rng(1)
    with TemporaryDirectory() as place:
        if kind in ("bert", "mpnet"):
            encoder_of(kind, Path(place), rng)
        else:
            {"bart": bart, "prophetnet": prophetnet}[kind](Path(place), rng)
        return {file.name: file.read_bytes() for file in Path(place).iterdir()}


def converted(monkeypatch, *line) -> int:
    monkeypatch.setattr("sys.argv", ["x", *map(str, line)])
    return main()
