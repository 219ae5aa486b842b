"""The model as its papers write it: one sentence, no packing, no plans, no caches."""

import math

import torch
from torch.nn.functional import gelu, layer_norm, linear


def bucket(distance: int) -> int:
    """T5's, as MPNet has it: 16 buckets either way, eight of them for one distance each."""
    near = abs(distance)
    if near >= 8:
        near = min(15, 8 + int(math.log(near / 8) / math.log(16) * 8))
    return near + 16 * (distance > 0)


def attend(weights, x, keys, seen, bias) -> torch.Tensor:
    """Softmax attention with a bias [H, q, k] on the scores; seen: bool [q, k]."""
    heads = weights.heads
    q = linear(x, weights.q_proj.weight, weights.q_proj.bias).unflatten(-1, (heads, -1))
    both = linear(keys, weights.kv_proj.weight, weights.kv_proj.bias)
    k, v = (half.unflatten(-1, (heads, -1)) for half in both.chunk(2, -1))
    scores = torch.einsum("ahd,bhd->hab", q, k) / math.sqrt(q.shape[-1]) + bias
    out = torch.einsum("hab,bhd->ahd", scores.masked_fill(~seen, -math.inf).softmax(-1), v)
    return linear(out.flatten(1), weights.out_proj.weight, weights.out_proj.bias)


def run(net, stack, token, position, seen, memory=None) -> torch.Tensor:
    """A post-norm stack with learned positions, and T5's bias if it has it: int64 [A] -> [A, D]."""
    x = net.embedding.weight[token] + stack.positions.table.weight[position]
    bias = nothing = torch.zeros(())
    if stack.position_bias:
        at = [[bucket(int(k - q)) for k in position] for q in position]
        bias = stack.position_bias.table.weight[torch.tensor(at)].permute(2, 0, 1)

    def normed(norm, x):
        return layer_norm(x, x.shape[-1:], norm.weight, norm.bias, 1e-5)

    x = normed(stack.embedding_layer_norm, x)
    for layer in stack.layers:
        x = normed(layer.self_attn_layer_norm, x + attend(layer.self_attn, x, x, seen, bias))
        if memory is not None:
            every = torch.ones(len(x), len(memory), dtype=torch.bool)
            read = attend(layer.encoder_attn, x, memory, every, nothing)
            x = normed(layer.encoder_attn_layer_norm, x + read)
        inner = gelu(linear(x, layer.fc1.weight, layer.fc1.bias))
        x = normed(layer.final_layer_norm, x + linear(inner, layer.fc2.weight, layer.fc2.bias))
    return x
