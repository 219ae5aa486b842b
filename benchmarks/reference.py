"""The reference pattern of one JANUS training step, on the weights of our own Seq2Seq.

Costs as in the public JANUS code: the encoder runs twice, batches are padded, AR and NAR are two
two-stream decoder passes with dense masks, keys and values are projected for content and query
alike, all content slots are projected to the vocabulary, every KL takes its own four softmaxes.
B = sentences, N = source, A = slots of a stream, D = width, V = vocabulary.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence

from januslm.layout import NONE, Example
from januslm.model.transformer import Attention, Layer, Seq2Seq
from januslm.objectives.janus import GIVEN, MASK, NEXT, PAST, QUERY, REVEALED


@dataclass(frozen=True)
class Stream:
    """Slots of some streams of all sentences, padded on the right."""

    token: Tensor  # int64 [B, A]
    position: Tensor  # int64 [B, A]
    target: Tensor  # int64 [B, A], NONE where nothing is predicted
    hole: Tensor  # bool [B, A]: predicts a word that the NAR streams predict too
    real: Tensor  # bool [B, A]


@dataclass(frozen=True)
class Padded:
    """One batch as the reference's collater makes it."""

    source: Tensor  # int64 [B, N]
    real: Tensor  # bool [B, N]
    lengths: Tensor  # int64 [B]
    past: Stream
    next: Stream
    content: Stream
    query: Stream
    holes: list[int]  # how many words are hidden, by sentence


def padded(examples: Sequence[Example]) -> Padded:
    """The sentences of `examples`, with the noise they have."""
    sources = [torch.from_numpy(e.source) for e in examples]
    source = pad_sequence(sources, batch_first=True)
    sizes = torch.tensor([len(s) for s in sources])
    return Padded(
        source,
        torch.arange(source.shape[1]) < sizes[:, None],
        torch.tensor([len(e.target) for e in examples]),
        _stream(examples, [PAST]),
        _stream(examples, [NEXT]),
        _stream(examples, [GIVEN, MASK, REVEALED]),
        _stream(examples, [QUERY]),
        [int((e.layout.slots.stream == QUERY).sum()) for e in examples],
    )


def _stream(examples: Sequence[Example], streams: list[int]) -> Stream:
    columns = []
    for e in examples:
        slots = e.layout.slots
        holes = set(slots.position[slots.stream == QUERY].tolist())
        mine = slots[torch.isin(torch.from_numpy(slots.stream), torch.tensor(streams)).numpy()]
        columns.append(
            torch.tensor(
                [
                    (t, p, e.target[g] if g != NONE else NONE, g in holes, 1)
                    for t, p, g in zip(mine.token, mine.position, mine.goal, strict=True)
                ]
            )
        )
    token, position, target, hole, real = pad_sequence(columns, batch_first=True).unbind(-1)
    return Stream(token, position, target, hole.bool(), real.bool())


def loss(model: Seq2Seq, batch: Padded, smoothing: float = 0.1) -> Tensor:
    """JANUS' loss for translation with its published weights; every term a mean over its words."""
    drop = model.config.dropout if model.training else 0.0
    memory = _encode(model, batch, drop)
    _, asked = _decode(model, batch, memory, batch.past, batch.next, drop, left_to_right=True)
    ar = F.linear(asked, model.vocabulary_weight())
    memory = _encode(model, batch, drop)
    length = F.linear(_mean(memory, batch.real), model.length_head.weight)
    content, query = _decode(
        model, batch, memory, batch.content, batch.query, drop, left_to_right=False
    )
    nar = F.linear(content, model.vocabulary_weight())
    aux = F.linear(query, model.vocabulary_weight())
    real, asked = batch.next.real, batch.query.real
    masked = batch.content.real & (batch.content.target != NONE)
    target, hole = batch.query.target[asked], batch.next.hole & real
    total = _cross_entropy(ar[real], batch.next.target[real], smoothing)
    total = total + 1.0 * _symmetric_kl(ar[hole], nar[masked])
    filling = _cross_entropy(nar[masked], target, smoothing)
    asking = _cross_entropy(aux[asked], target, smoothing)
    total = total + 0.5 * (filling + asking) + 0.1 * _length_loss(length, batch.lengths)
    total = total + 1.0 * _symmetric_kl(nar[masked], aux[asked])
    return total + 3.0 * _symmetric_kl(ar[hole], aux[asked])


def _cross_entropy(logits: Tensor, target: Tensor, smoothing: float) -> Tensor:
    log_p = F.log_softmax(logits, -1)
    nll = F.nll_loss(log_p, target, reduction="none").mean()
    return nll * (1 - smoothing) - log_p.mean() * smoothing


def _symmetric_kl(a: Tensor, b: Tensor) -> Tensor:
    log_p, log_q = F.log_softmax(a, -1), F.log_softmax(b, -1)
    p, q = F.softmax(a, -1), F.softmax(b, -1)
    one = F.kl_div(log_p, q, reduction="none").sum(-1)
    return ((one + F.kl_div(log_q, p, reduction="none").sum(-1)) / 2).mean()


def _length_loss(logits: Tensor, lengths: Tensor) -> Tensor:
    return F.nll_loss(F.log_softmax(logits, -1), lengths.clamp(max=logits.shape[-1] - 1))


def _mean(memory: Tensor, real: Tensor) -> Tensor:
    return (memory * real[..., None]).sum(1) / real.sum(1, keepdim=True)


def _embed(model: Seq2Seq, stack, token: Tensor, position: Tensor, drop: float) -> Tensor:
    x = F.embedding(token, model.embedding.weight)
    x = x * math.sqrt(model.config.width) + F.embedding(position, stack.positions.table.weight)
    return F.dropout(x, drop)


def _encode(model: Seq2Seq, batch: Padded, drop: float) -> Tensor:
    position = torch.arange(batch.source.shape[1]).expand_as(batch.source)
    x = _embed(model, model.encoder, batch.source, position, drop)
    blind = _blind(batch.real[:, None, :].expand(-1, x.shape[1], -1))
    for layer in model.encoder.layers:
        x = _after(layer.self_attn_layer_norm, x, _quick(layer.self_attn, x, x, blind), drop)
        x = _feed_forward(layer, x, drop)
    return x


def _blind(seen: Tensor) -> Tensor:
    """float [B, 1, A, A]: minus infinity where nothing may be read; no row of padding is empty."""
    empty = ~seen.any(-1, keepdim=True)
    return torch.zeros(seen.shape).masked_fill(~(seen | empty), -math.inf)[:, None]


def _decode(
    model: Seq2Seq,
    batch: Padded,
    memory: Tensor,
    content: Stream,
    query: Stream,
    drop: float,
    left_to_right: bool,
) -> tuple[Tensor, Tensor]:
    """One two-stream pass: [B, A, D] for content and for queries."""
    x = _embed(model, model.decoder, content.token, content.position, drop)
    y = _embed(model, model.decoder, query.token, query.position, drop)
    seen_x, seen_y = _left_to_right(x) if left_to_right else _holes(batch, x.shape[1], y.shape[1])
    source = batch.real[:, None, :]
    for layer in model.decoder.layers:
        if left_to_right:
            read_x = _quick(layer.self_attn, x, x, seen_x)
            read_y = _quick(layer.self_attn, y, x, seen_y)
        else:
            read_x = _plain(layer.self_attn, x, x, seen_x.bool())
            read_y = _plain(layer.self_attn, y, x, seen_y.bool())
        x, y = (
            _after(layer.self_attn_layer_norm, x, read_x, drop),
            _after(layer.self_attn_layer_norm, y, read_y, drop),
        )
        x = _after(
            layer.encoder_attn_layer_norm, x, _plain(layer.encoder_attn, x, memory, source), drop
        )
        y = _after(
            layer.encoder_attn_layer_norm, y, _plain(layer.encoder_attn, y, memory, source), drop
        )
        x, y = _feed_forward(layer, x, drop), _feed_forward(layer, y, drop)
    return x, y


def _left_to_right(x: Tensor) -> tuple[Tensor, Tensor]:
    blind = torch.full((x.shape[1], x.shape[1]), -math.inf).triu(1)
    return blind, blind


def _holes(batch: Padded, content: int, query: int) -> tuple[Tensor, Tensor]:
    """float [B, A, A] for content and [B, b, A] for queries, filled sentence by sentence."""
    seen = torch.zeros(len(batch.holes), content, content)
    asked = torch.zeros(len(batch.holes), query, content)
    for row, (b, total) in enumerate(zip(batch.holes, batch.content.real.sum(1), strict=True)):
        size = int(total.item())
        masks, revealed = size - 2 * b, size - b  # where mask and revealed slots begin
        lower, upper = torch.ones(b, b).tril(), torch.ones(b, b).triu()
        seen[row, :revealed, :revealed] = 1
        seen[row, revealed:size, :masks] = 1
        seen[row, revealed:size, masks:revealed] = upper - torch.eye(b)
        seen[row, revealed:size, revealed:size] = lower
        asked[row, :b, :masks] = 1
        asked[row, :b, masks:revealed] = upper
        asked[row, :b, revealed:size] = lower - torch.eye(b)
        seen[row, size:, 0] = 1
        asked[row, b:, 0] = 1
    return seen, asked


def _after(norm, x: Tensor, change: Tensor, drop: float) -> Tensor:
    return F.layer_norm(
        x + F.dropout(change, drop), norm.normalized_shape, norm.weight, norm.bias, norm.eps
    )


def _feed_forward(layer: Layer, x: Tensor, drop: float) -> Tensor:
    h = F.relu(F.linear(x, layer.fc1.weight, layer.fc1.bias))
    return _after(layer.final_layer_norm, x, F.linear(h, layer.fc2.weight, layer.fc2.bias), drop)


def _heads(attention: Attention, x: Tensor, keys: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """[B, H, A, d]: queries of x, keys and values of `keys`, projected at every call."""
    q = F.linear(x, attention.q_proj.weight, attention.q_proj.bias)
    k, v = F.linear(keys, attention.kv_proj.weight, attention.kv_proj.bias).chunk(2, -1)
    return tuple(h.unflatten(-1, (attention.heads, -1)).transpose(1, 2) for h in (q, k, v))


def _out(attention: Attention, x: Tensor) -> Tensor:
    return F.linear(
        x.transpose(1, 2).flatten(-2), attention.out_proj.weight, attention.out_proj.bias
    )


def _quick(attention: Attention, x: Tensor, keys: Tensor, blind: Tensor) -> Tensor:
    """Encoder and AR: torch's own multi-head attention, which the reference falls through to."""
    q, k, v = _heads(attention, x, keys)
    return _out(attention, F.scaled_dot_product_attention(q, k, v, attn_mask=blind.to(q.dtype)))


def _plain(attention: Attention, x: Tensor, keys: Tensor, seen: Tensor) -> Tensor:
    """NAR and cross-attention: fairseq's own products and softmax."""
    q, k, v = _heads(attention, x, keys)
    scores = (q * q.shape[-1] ** -0.5) @ k.transpose(-1, -2)
    scores = scores.masked_fill(~seen[:, None], -math.inf)
    return _out(attention, F.softmax(scores, -1) @ v)
