"""The model as its papers write it: one sentence, no packing, no plans, no caches."""

import math

import numpy as np
import torch
from torch.nn.functional import gelu, layer_norm, linear


def bucket(distance: int) -> int:
    """T5's, as MPNet has it: 16 buckets either way, eight of them for one distance each."""
    near = abs(distance)
    if near >= 8:
        near = min(15, 8 + int(math.log(near / 8) / math.log(16) * 8))
    return near + 16 * (distance > 0)


def behind(distance: int) -> int:
    """ProphetNet's bucket of a key so far behind: 16 for one distance each, then by logarithm."""
    back = max(distance, 0)
    return back if back < 16 else min(31, 16 + int(math.log(back / 16) / math.log(8) * 16))


def far(distance: int, width: int) -> torch.Tensor:
    """Transformer-XL's wave of a distance: sines, then cosines."""
    angles = [distance / 10000 ** (2 * i / width) for i in range(width // 2)]
    wave = [*map(math.sin, angles), *map(math.cos, angles)]
    return torch.tensor(wave, dtype=torch.float32)


def by_distance(scheme, layer: int, x, position, weights) -> torch.Tensor:
    """XLNet's (q + r_r) . W_r R(i - j) / sqrt(d), pair by pair: [H, q, k]."""
    asks = (x @ weights.q_proj.weight.T + scheme.r_r_bias[layer]).unflatten(-1, (weights.heads, -1))
    rows = []
    for ask, i in zip(asks, position.tolist(), strict=True):
        waves = [far(i - j, x.shape[-1]).to(x.dtype) for j in position.tolist()]
        mapped = (torch.stack(waves) @ scheme.r[layer].weight.T).unflatten(-1, ask.shape)
        rows.append(torch.einsum("hd,khd->hk", ask, mapped) / math.sqrt(ask.shape[-1]))
    return torch.stack(rows, 1)


def bias_of(scheme, layer: int, x, position, weights) -> torch.Tensor:
    """What a stack's scheme adds to the scores of a layer, whose rows are x: [H, q, k]."""
    if scheme is None:
        return torch.zeros(())
    if hasattr(scheme, "table"):
        at = [[bucket(int(k - q)) for k in position] for q in position]
        return scheme.table.weight[torch.tensor(at)].permute(2, 0, 1)
    if hasattr(scheme, "r_r_bias"):
        return by_distance(scheme, layer, x, position, weights)
    by = scheme.relative_pos_embeddings[layer]
    rows = linear(x, by.weight, by.bias).view(len(x), 32, -1)  # [q, bucket, H]
    at = torch.tensor([[behind(int(q - k)) for k in position] for q in position])
    return torch.stack([row[k] for row, k in zip(rows, at, strict=True)]).permute(2, 0, 1)


def attend(weights, x, keys, seen, bias) -> torch.Tensor:
    """Softmax attention with a bias [H, q, k] on the scores; seen: bool [q, k]."""
    heads = weights.heads
    q = linear(x, weights.q_proj.weight, weights.q_proj.bias).unflatten(-1, (heads, -1))
    both = linear(keys, weights.kv_proj.weight, weights.kv_proj.bias)
    k, v = (half.unflatten(-1, (heads, -1)) for half in both.chunk(2, -1))
    scores = torch.einsum("ahd,bhd->hab", q, k) / math.sqrt(q.shape[-1]) + bias
    out = torch.einsum("hab,bhd->ahd", scores.masked_fill(~seen, -math.inf).softmax(-1), v)
    return linear(out.flatten(1), weights.out_proj.weight, weights.out_proj.bias)


def run(net, stack, token, position, seen, memory=None, before=None) -> torch.Tensor:
    """A post-norm stack with learned positions, and its bias if it has one: int64 [A] -> [A, D].

    before: a vector [D] that stands before all as it is, of which there is a row of seen, too.
    """
    x = net.embedding.weight[token] + stack.positions.table.weight[position]

    def normed(norm, x):
        return layer_norm(x, x.shape[-1:], norm.weight, norm.bias, 1e-5)

    x = normed(stack.embedding_layer_norm, x)
    x = x if before is None else torch.cat([before[None], x])
    nothing = torch.zeros(())
    for number, layer in enumerate(stack.layers):
        bias = bias_of(stack.position_bias, number, x, position, layer.self_attn)
        x = normed(layer.self_attn_layer_norm, x + attend(layer.self_attn, x, x, seen, bias))
        if memory is not None:
            every = torch.ones(len(x), len(memory), dtype=torch.bool)
            read = attend(layer.encoder_attn, x, memory, every, nothing)
            x = normed(layer.encoder_attn_layer_norm, x + read)
        inner = gelu(linear(x, layer.fc1.weight, layer.fc1.bias))
        x = normed(layer.final_layer_norm, x + linear(inner, layer.fc2.weight, layer.fc2.bias))
    return x


def decoded(net, source, token, position, seen) -> torch.Tensor:
    """Slots [A] of a target, who read each other as bool [A, A] says, beside a source: [A, D].

    An encoder reads the source; without one its words stand before the target in the same row,
    read by all, and read each other.
    """
    token, position, seen = (torch.as_tensor(np.asarray(x)) for x in (token, position, seen))
    source, own = torch.from_numpy(source), torch.arange(len(source))
    whole = torch.ones(len(source), len(source), dtype=torch.bool)
    if net.config.encoder_layers:
        memory = run(net, net.encoder, source, own, whole)
        return run(net, net.decoder, token.long(), position.long(), seen, memory)
    row = torch.zeros(len(source) + len(token), len(source) + len(token), dtype=torch.bool)
    row[:, : len(source)] = True
    row[: len(source), len(source) :] = False
    row[len(source) :, len(source) :] = seen
    token, position = torch.cat([source, token]), torch.cat([own, position + len(source)])
    return run(net, net.decoder, token.long(), position.long(), row)[len(source) :]
