"""ProphetNet and BANG by their description, over tensors named as in their own code (fairseq).

One text, no padding, no caches; who reads whom is given.  D = width, H = heads.
"""

import math

import torch
from torch.nn.functional import gelu, layer_norm, linear

from tests.plain_model import behind

State = dict[str, torch.Tensor]


def normed(state: State, name: str, x: torch.Tensor) -> torch.Tensor:
    return layer_norm(x, x.shape[-1:], state[f"{name}.weight"], state[f"{name}.bias"], 1e-5)


def mapped(state: State, name: str, x: torch.Tensor) -> torch.Tensor:
    return linear(x, state[f"{name}.weight"], state[f"{name}.bias"])


def attend(state: State, name: str, heads: int, x, keys, seen, bias) -> torch.Tensor:
    """x [A, D] reads keys [B, D] where seen bool [A, B]; bias [H, A, B] or a number."""
    if f"{name}.in_proj_weight" in state:
        both = zip(
            state[f"{name}.in_proj_weight"].chunk(3),
            state[f"{name}.in_proj_bias"].chunk(3),
            strict=True,
        )
        q, k, v = (linear(y, w, b) for y, (w, b) in zip((x, keys, keys), both, strict=True))
    else:
        q, k, v = (
            mapped(state, f"{name}.{part}_proj", y)
            for part, y in (("q", x), ("k", keys), ("v", keys))
        )
    q, k, v = (y.unflatten(-1, (heads, -1)) for y in (q, k, v))
    scores = torch.einsum("ahd,bhd->hab", q, k) / math.sqrt(q.shape[-1]) + bias
    out = torch.einsum("hab,bhd->ahd", scores.masked_fill(~seen, -math.inf).softmax(-1), v)
    return mapped(state, f"{name}.out_proj", out.flatten(1))


def layers(state: State, side: str, heads: int, x, place, seen, memory=None) -> torch.Tensor:
    """Embedded inputs [A, D] at rows `place` int64 [A] of the position table -> [A, D]."""
    x = normed(state, f"{side}.emb_layer_norm", x + state[f"{side}.embed_positions.weight"][place])
    number = 0
    while f"{side}.layers.{number}.fc1.weight" in state:
        layer = f"{side}.layers.{number}"
        own, bias = f"{layer}.self_attn", torch.zeros(())
        if side == "decoder":
            own = f"{layer}.ngram_self_attn"
            rows = mapped(state, f"{own}.relative_linear", x).view(len(x), 32, heads)
            at = torch.tensor([[behind(int(q - k)) for k in place] for q in place])
            each = [row[buckets] for row, buckets in zip(rows, at, strict=True)]
            bias = torch.stack(each).permute(2, 0, 1)
        read = attend(state, own, heads, x, x, seen, bias)
        x = normed(state, f"{layer}.self_attn_layer_norm", x + read)
        if memory is not None:
            every = torch.ones(len(x), len(memory), dtype=torch.bool)
            read = attend(state, f"{layer}.encoder_attn", heads, x, memory, every, torch.zeros(()))
            x = normed(state, f"{layer}.encoder_attn_layer_norm", x + read)
        inner = mapped(state, f"{layer}.fc2", gelu(mapped(state, f"{layer}.fc1", x)))
        x = normed(state, f"{layer}.final_layer_norm", x + inner)
        number += 1
    return x


def encoded(state: State, heads: int, source: torch.Tensor, pad: int = 0) -> torch.Tensor:
    """int64 [N] -> [N, D]; the first place is the row after PAD's."""
    place = torch.arange(len(source)) + pad + 1
    every = torch.ones(len(source), len(source), dtype=torch.bool)
    return layers(
        state, "encoder", heads, state["encoder.embed_tokens.weight"][source], place, every
    )


def streams(state: State, heads: int, source, read, ahead: int, pad: int = 0) -> torch.Tensor:
    """Logits [ahead, T, V] of all streams for what the decoder reads, int64 [T].

    Stream n (0: the next word) has a slot behind each of them, one place on; it reads what came up
    to n words before, at least the first, and itself.  Its vector is row n - 1, the last for 0.
    """
    size, words = len(read), state["decoder.embed_tokens.weight"]
    vectors = state["decoder.ngram_input_embed.weight"]
    at = torch.arange(size)
    x = torch.cat([words[read], *(vectors[n - 1].expand(size, -1) for n in range(ahead))])
    place = torch.cat([at, *[at + 1] * ahead]) + pad + 1
    seen = torch.zeros(len(x), len(x), dtype=torch.bool)
    seen[:size, :size] = torch.ones(size, size, dtype=torch.bool).tril()
    for n in range(ahead):
        for i in range(size):
            row = size * (n + 1) + i
            seen[row, : max(i - n, 0) + 1] = True
            seen[row, row] = True
    memory = encoded(state, heads, source, pad)
    out = layers(state, "decoder", heads, x, place, seen, memory)
    return (out[size:] @ words.t()).view(ahead, size, -1)


def all_at_once(state: State, heads: int, source, size: int, pad: int = 0) -> torch.Tensor:
    """BANG's NAR: logits [size, V] of a row of masks, each of which reads those before it."""
    x = state["decoder.ngram_input_embed.weight"][0].expand(size, -1)
    place = torch.arange(size) + pad + 2
    seen = torch.ones(size, size, dtype=torch.bool).tril()
    memory = encoded(state, heads, source, pad)
    out = layers(state, "decoder", heads, x, place, seen, memory)
    return out @ state["decoder.embed_tokens.weight"].t()
