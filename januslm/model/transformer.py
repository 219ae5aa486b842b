"""The one backbone of all objectives: an encoder, a decoder that runs any layout, a length head.

D = width, H = heads, V = vocabulary; M, N, K, G as in packing.py.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu, relu
from torch.utils.checkpoint import checkpoint

from januslm.model.attention import AttentionPlan
from januslm.model.config import ModelConfig
from januslm.model.dropout import dropout
from januslm.model.packing import Batch, Decoded, Encoded
from januslm.model.score_bias import Bias, PositionBias
from januslm.registry import find


class Rotate(Protocol):
    """Turns queries or keys [..., H, d] by their places int64 [...]."""

    def __call__(self, x: Tensor, position: Tensor) -> Tensor: ...


class Attention(nn.Module):
    """Multi-head attention whose reading is a plan: (q, k, v, dropout, bias) -> values."""

    def __init__(self, width: int, heads: int, drop: float):
        super().__init__()
        self.heads, self.drop = heads, drop
        self.q_proj = nn.Linear(width, width)
        self.kv_proj = nn.Linear(width, 2 * width)
        self.out_proj = nn.Linear(width, width)

    def keys(self, x: Tensor, rotate: Callable | None = None) -> tuple[Tensor, Tensor]:
        """x: [..., D] -> keys and values [..., H, d]; `rotate` turns keys by their place."""
        k, v = self.kv_proj(x).unflatten(-1, (2, self.heads, -1)).unbind(-3)
        return (rotate(k) if rotate else k), v

    def forward(
        self,
        x: Tensor,
        keys: tuple[Tensor, Tensor],
        attend: AttentionPlan,
        rotate: Callable | None = None,
        bias: Bias | None = None,
    ) -> Tensor:
        """x: [..., D] -> [..., D]."""
        q = self.q_proj(x).unflatten(-1, (self.heads, -1))
        q = rotate(q) if rotate else q
        drop = self.drop if self.training else 0.0
        return self.out_proj(attend(q, *keys, drop, bias).flatten(-2))


@dataclass(frozen=True)
class View:
    """How one pass reads: by which plans, which inputs are keys, and which go on."""

    attend: AttentionPlan
    cross: AttentionPlan | None = None
    keys: Tensor | None = None  # int64 [K]: inputs that can be read; None: all
    rows: Tensor | None = None  # int64 [G]: inputs whose output is wanted; None: all
    position: Tensor | None = None  # int64 [N], for the two below
    rotate: Rotate | None = None  # turns queries and keys by their place
    bias: PositionBias | None = None
    cross_rotate: Rotate | None = None  # the same in cross-attention
    memory_position: Tensor | None = None  # int64 [M], for its keys


class Layer(nn.Module):
    """Self-attention, cross-attention if there is a memory, feed-forward; post- or pre-norm."""

    def __init__(self, config: ModelConfig, crosses: bool, number: int):
        super().__init__()
        width = config.width
        self.number, self.pre, self.drop = number, config.norm == "pre", config.dropout
        self.act = gelu if config.activation == "gelu" else relu
        self.self_attn = Attention(width, config.heads, config.attention_dropout)
        norm = partial(nn.LayerNorm, width, eps=config.norm_eps)
        self.self_attn_layer_norm = norm()
        if crosses:
            self.encoder_attn = Attention(width, config.heads, config.attention_dropout)
            self.encoder_attn_layer_norm = norm()
        self.fc1 = nn.Linear(width, config.ffn)
        self.fc2 = nn.Linear(config.ffn, width)
        self.final_layer_norm = norm()

    def forward(self, x: Tensor, view: View, memory=None) -> Tensor:
        """x: [N, D]; memory: [M, D], or its keys and values if they are known -> [N or G, D]."""
        h = self.self_attn_layer_norm(x) if self.pre else x
        x = x if view.rows is None else x.index_select(0, view.rows)
        x = self._add(self.self_attn_layer_norm, x, self._read_own(h, view))
        if memory is not None:
            h = self.encoder_attn_layer_norm(x) if self.pre else x
            x = self._add(self.encoder_attn_layer_norm, x, self._read_source(h, view, memory))
        h = self.final_layer_norm(x) if self.pre else x
        return self._add(self.final_layer_norm, x, self.fc2(self.act(self.fc1(h))))

    def _read_own(self, h: Tensor, view: View) -> Tensor:
        """Self-attention of the rows that are wanted, over the inputs that can be read."""
        keys, k_place = _picked(h, view.position, view.keys)
        queries, q_place = _picked(h, view.position, view.rows)
        keys = self.self_attn.keys(keys, _turns(view.rotate, k_place))
        bias = None
        if (scheme := view.bias) is not None:
            values = scheme.values(self.number, queries, self.self_attn)
            bias = Bias(values, scheme.bucket, q_place, k_place)
        turns = _turns(view.rotate, q_place)
        return self.self_attn(queries, keys, view.attend, turns, bias)

    def _read_source(self, h: Tensor, view: View, memory) -> Tensor:
        """Cross-attention of the rows that are wanted, over the memory or its keys and values."""
        if not isinstance(memory, tuple):
            turns = _turns(view.cross_rotate, view.memory_position)
            memory = self.encoder_attn.keys(memory, turns)
        turns = _turns(view.cross_rotate, view.position, view.rows)
        return self.encoder_attn(h, memory, view.cross, turns)

    def _add(self, norm: nn.LayerNorm, x: Tensor, change: Tensor) -> Tensor:
        x = x + (dropout(change, self.drop) if self.training and self.drop else change)
        return x if self.pre else norm(x)


def _picked(h: Tensor, position: Tensor | None, index: Tensor | None) -> tuple:
    """Rows of h and their places; None: all of them."""
    if index is None:
        return h, position
    return h.index_select(0, index), None if position is None else position.index_select(0, index)


def _turns(
    rotate: Rotate | None, position: Tensor | None, rows: Tensor | None = None
) -> Callable | None:
    """What turns vectors at these places, or at those of `rows` of them, if anything does."""
    if rotate is None or position is None:
        return None
    return partial(rotate, position=position if rows is None else position.index_select(0, rows))


Made = Callable[[nn.Module], Any]  # what becomes of a part between its making and its first weights


def _kept(part: nn.Module) -> nn.Module:
    return part


def _emptied(part: nn.Module) -> nn.Module:
    """Without storage.  Making it has drawn what torch's own initialisation draws, as always."""
    return part.to("meta")


class Stack(nn.Module):
    """Positions, embedding norm and layers: the encoder, or the decoder."""

    def __init__(self, config: ModelConfig, layers: int, crosses: bool, made: Made):
        super().__init__()
        self.config = config
        scheme = find("januslm.model.positions", config.positions)
        self.rotate: Rotate | None = getattr(scheme, "rotate", None)
        self.cross_rotate = self.rotate if crosses and getattr(scheme, "CROSS", False) else None
        self.positions = scheme.Positions(config)
        self.position_bias: PositionBias | None = None
        if config.position_bias:
            kind = find("januslm.model.position_bias", config.position_bias)
            if crosses or getattr(kind, "ENCODER", True):
                self.position_bias = kind.PositionBias(config, layers)
        norm = partial(nn.LayerNorm, config.width, eps=config.norm_eps)
        self.embedding_layer_norm = norm() if config.embedding_norm else nn.Identity()
        stacked = nn.ModuleList(made(Layer(config, crosses, i)) for i in range(layers))
        self.layers: Sequence[Layer] = stacked  # type: ignore[assignment]  # not generic
        self.final_layer_norm = norm() if config.norm == "pre" else nn.Identity()

    def view(self, attend: AttentionPlan, position: Tensor, **reading) -> View:
        """How a pass of this stack reads; reading: cross, keys, rows, memory_position of View."""
        placed = self.rotate is not None or self.position_bias is not None
        place = position if placed else None
        own: dict = {"rotate": self.rotate, "cross_rotate": self.cross_rotate}
        return View(attend, position=place, bias=self.position_bias, **own, **reading)

    def memory_turns(self, position: Tensor) -> Callable | None:
        """What turns the keys of a memory whose tokens stand at int64 [M], if anything does."""
        return _turns(self.cross_rotate, position)

    def embed_positions(self, embedded: Tensor, position: Tensor) -> Tensor:
        """Embedded tokens [..., D] with their positions, as the first layer reads them."""
        x = self.embedding_layer_norm(self.positions(embedded, position))
        return dropout(x, self.config.dropout) if self.training and self.config.dropout else x

    def forward(self, x: Tensor, position: Tensor, view: View, last: View, memory=None) -> Tensor:
        """Embedded [N, D] -> [N, D], or [G, D] if `last` has rows."""
        x = self.embed_positions(x, position)
        for i, layer in enumerate(self.layers):
            run: Callable[..., Tensor] = layer
            if self.config.activation_checkpointing and self.training:
                run = partial(checkpoint, layer, use_reentrant=False)
            x = run(x, last if i == len(self.layers) - 1 else view, memory)
        return self.final_layer_norm(x)


class Seq2Seq(nn.Module):
    """Encoder, decoder and length head over one embedding table.

    shard: takes each part as soon as it has its first weights, and keeps as much of it as belongs
    to this process (ZeRO-3), so that the whole is nowhere.  The weights are the same ones.
    """

    def __init__(self, config: ModelConfig, shard: Callable[[nn.Module], object] | None = None):
        super().__init__()
        self.config = config
        made: Made = _emptied if shard else _kept
        words = nn.Embedding(config.vocabulary + config.extra_vectors, config.width)
        self.embedding = made(words)
        self.encoder = Stack(config, config.encoder_layers, False, made)
        self.decoder = Stack(config, config.decoder_layers, True, made)
        self.length_head = nn.Linear(config.width, config.max_length, bias=False)
        if not config.tied:
            self.lm_head = nn.Linear(config.width, config.vocabulary, bias=False)
        self.apply(partial(_initialise, glorot=config.init == "xavier", shard=shard))
        if shard:
            shard(self)  # what is neither a layer nor an embedding

    def embed(self, token: Tensor) -> Tensor:
        """int64 [...] -> [..., D]."""
        x = self.embedding(token)
        return x * math.sqrt(self.config.width) if self.config.embedding_scale else x

    def vocabulary_weight(self) -> Tensor:
        """[V, D]: what hidden states are multiplied with to give logits."""
        if not self.config.tied:
            return self.lm_head.weight
        weight = self.embedding.weight
        return weight[: self.config.vocabulary] if self.config.extra_vectors else weight

    def encode(self, source: Encoded) -> Tensor:
        """-> memory [M, D]."""
        view = self.encoder.view(source.plan, source.position)
        return self.encoder(self.embed(source.token), source.position, view, view)

    def decode(self, slots: Decoded, memory: Tensor, source: Encoded) -> Tensor:
        """-> [G, D], one row per slot with a goal, in the order of `slots.goals`."""
        place = slots.position
        see = partial(self.decoder.view, memory_position=source.position)
        view = see(slots.plan, place, cross=slots.cross, keys=slots.keys)
        last = see(
            slots.last_plan, place, cross=slots.last_cross, keys=slots.keys, rows=slots.goals
        )
        return self.decoder(self.embed(slots.token), slots.position, view, last, memory)

    def length_logits(self, memory: Tensor, source: Encoded) -> Tensor:
        """Mean over each source, times one vector per length (JANUS): [E, max_length].

        With `length_offset` a vector stands for a difference to the source's length (Shu 2020);
        lengths beyond their range share the outermost.
        """
        sums = memory.new_zeros(len(source.sizes) + 1, memory.shape[-1])
        # Row E takes what belongs to no example (filling, second passes) and is left out.
        at = torch.where(source.example < 0, len(source.sizes), source.example)
        sums = sums.index_add(0, at, memory)[:-1]
        logits = self.length_head(sums / source.sizes[:, None].to(sums.dtype))
        if not self.config.length_offset:
            return logits
        most = self.config.max_length
        offset = torch.arange(most, device=logits.device) - source.sizes[:, None]
        return logits.gather(1, (offset + most // 2).clamp(0, most - 1))

    def forward(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """-> hidden states [G, D] at the goals, length logits [E, max_length]."""
        memory = self.encode(batch.source)
        return self.decode(batch.slots, memory, batch.source), self.length_logits(
            memory, batch.source
        )


def _initialise(module: nn.Module, glorot: bool, shard: Callable | None) -> None:
    """N(0, 0.02), zero biases (BERT, the reference's --apply-bert-init); or Glorot's for matrices.

    0.02 is BERT's for a width of 768: narrow models start with flat attention, and stay there long.
    """
    if shard and any(p.is_meta for p in module.parameters(recurse=False)):
        module.to_empty(device="cpu", recurse=False)
        if isinstance(module, nn.LayerNorm):
            module.reset_parameters()
    if isinstance(module, nn.Linear | nn.Embedding):
        if glorot and isinstance(module, nn.Linear):
            nn.init.xavier_normal_(module.weight)
        else:
            nn.init.normal_(module.weight, std=0.02)
        if isinstance(module, nn.Linear) and module.bias is not None:
            nn.init.zeros_(module.bias)
    if shard and isinstance(module, nn.Embedding | Layer):
        shard(module)


def flops(config: ModelConfig, sizes: dict[str, int]) -> float:
    """Multiply-adds times 2 of forward and backward on a batch: what the exact semantics need.

    Encoder once; keys and values once per readable slot; last layer and vocabulary for goals only;
    attention counted over whole groups.  The vocabulary is counted with its gradient once, as run.
    """
    d, ffn = config.width, config.ffn
    row = 2 * d * d + 2 * d * ffn  # query, output and feed-forward of one slot
    encoder = config.encoder_layers * (
        sizes["source"] * (row + 2 * d * d) + 2 * d * sizes["encoder_pairs"]
    )
    inner = sizes["slots"] * (row + 2 * d * d) + 2 * d * (
        sizes["self_pairs"] + sizes["cross_pairs"]
    )
    last = sizes["goals"] * (row + 2 * d * d) + 2 * d * (
        sizes["last_self_pairs"] + sizes["last_cross_pairs"]
    )
    keys = config.decoder_layers * 2 * d * d * (sizes["keys"] + sizes["source"])
    decoder = (config.decoder_layers - 1) * inner + last + keys
    vocabulary = sizes["goals"] * d * config.vocabulary
    return 6.0 * (encoder + decoder + vocabulary)


def parameters(module: nn.Module) -> int:
    """How many numbers are learnt."""
    return sum(p.numel() for p in module.parameters())


def size(config: ModelConfig) -> int:
    """How many numbers such a model learns."""
    with torch.device("meta"):  # no memory, and nothing is drawn
        return parameters(Seq2Seq(config))
