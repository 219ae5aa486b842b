"""One attention for packed sequences: who may read whom is a plan, made once for all layers.

Two back ends of the same rule.  `dense` (CPU) gathers each group of slots that can see each other
into a padded block with a boolean mask; `flex` (GPU) keeps rows of fixed length and a block mask.
Q, K = slots on either side; H = heads; d = width of a head.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from typing import Protocol

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from januslm.layout import Codes, Rule, visible
from januslm.model.dropout import dropout
from januslm.model.score_bias import Bias

PADDING = -1  # the group of places that fill up a row
FEW = 128  # keys of a group up to which its scores may lie in memory
# cuDNN's attention is compiled anew for each shape, and here hardly two batches share one.
torch.backends.cuda.enable_cudnn_sdp(False)


class AttentionPlan(Protocol):
    """Who reads whom in one attention; how it is computed is the plan's own affair."""

    def __call__(
        self, q: Tensor, k: Tensor, v: Tensor, dropout: float = 0.0, bias: Bias | None = None
    ) -> Tensor:
        """q: [Q, H, d]; k, v: [K, H, d] -> [Q, H, d]."""


@dataclass(frozen=True)
class Side:
    """One side of an attention: int64 [N] each.  A slot only ever reads slots of its own group."""

    group: np.ndarray
    codes: Codes | None = None  # None where the whole group may be read

    def __getitem__(self, index) -> "Side":
        return Side(self.group[index], self.codes[index] if self.codes else None)


@dataclass(frozen=True)
class Bucket:
    """Groups of like size, padded to the largest: G groups of at most q queries and k keys."""

    queries: Tensor  # int64 [G * q], padding repeats a real place
    keys: Tensor  # int64 [G * k]
    shape: tuple[int, int, int]  # G, q, k
    mask: Tensor | None  # bool [G, 1, q, k]


@dataclass(frozen=True)
class Dense:
    """Scaled dot-product attention over buckets; the CPU's plan, and the GPU's oracle."""

    buckets: list[Bucket]
    back: Tensor  # int64 [Q]: where each query's answer lies in the concatenated buckets
    key_back: Tensor  # int64 [K]
    unread: Tensor | None  # int64: keys of groups that ask nothing, which get no gradient

    def __call__(
        self, q: Tensor, k: Tensor, v: Tensor, dropout: float = 0.0, bias: Bias | None = None
    ) -> Tensor:
        if not self.buckets:  # nobody asks: a batch without a single goal
            return q
        heads = q.shape[1:]
        qs = _spread(q, [b.queries for b in self.buckets], self.back, None)
        ks = _spread(k, [b.keys for b in self.buckets], self.key_back, self.unread)
        vs = _spread(v, [b.keys for b in self.buckets], self.key_back, self.unread)
        out = []
        for b, qb, kb, vb in zip(self.buckets, qs, ks, vs, strict=True):
            groups, most_q, most_k = b.shape
            mask = b.mask
            if bias is not None:
                places = bias.key_position[b.keys].view(groups, most_k)
                scores = bias.between(b.queries.view(groups, most_q), places)
                mask = scores if mask is None else scores.masked_fill(~mask, -torch.inf)
            answer = attend(
                qb.view(groups, most_q, *heads).transpose(1, 2),
                kb.view(groups, most_k, *heads).transpose(1, 2),
                vb.view(groups, most_k, *heads).transpose(1, 2),
                mask,
                dropout,
            )
            out.append(answer.transpose(1, 2).reshape(-1, *heads))
        return _Collect.apply(torch.cat(out), self.back)

    def to(self, device) -> "Dense":
        buckets = [
            Bucket(b.queries.to(device), b.keys.to(device), b.shape, _to(b.mask, device))
            for b in self.buckets
        ]
        back, key_back = self.back.to(device), self.key_back.to(device)
        return Dense(buckets, back, key_back, _to(self.unread, device))


def attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, dropout_p: float = 0.0) -> Tensor:
    """Scaled dot-product attention: q [G, H, q, d]; k, v [G, H, k, d] -> [G, H, q, d].

    mask: bool [G, 1, q, k], or float [G, 1 or H, q, k] that is added to the scores.
    """
    if q.device.type != "cpu" or k.shape[2] > FEW:
        return scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=dropout_p)
    # torch's CPU kernel is made for long rows: on captions it takes 1.2 times as long as the plain
    # products in fp32, and 5 times in bf16.
    scores = (q * q.shape[-1] ** -0.5) @ k.transpose(-1, -2)
    if mask is not None:
        bars = mask.dtype == torch.bool
        scores = scores.masked_fill(~mask, -torch.inf) if bars else scores + mask
    weights = scores.softmax(-1)
    return (dropout(weights, dropout_p) if dropout_p else weights) @ v


def _to(tensor: Tensor | None, device) -> Tensor | None:
    return None if tensor is None else tensor.to(device)


def _spread(x: Tensor, places: list[Tensor], back: Tensor, unread: Tensor | None) -> list[Tensor]:
    every = torch.cat(places) if len(places) > 1 else places[0]
    return list(_Spread.apply(x, every, back, unread).split([len(p) for p in places]))


class _Spread(torch.autograd.Function):
    """x[places], where each row of x has one real place: its gradient is a gather, no scatter."""

    @staticmethod
    def forward(ctx, x: Tensor, places: Tensor, back: Tensor, unread: Tensor | None) -> Tensor:
        ctx.back, ctx.unread = back, unread
        return x.index_select(0, places)

    @staticmethod
    def backward(ctx, grad: Tensor):
        out = grad.index_select(0, ctx.back)
        if ctx.unread is not None:
            out.index_fill_(0, ctx.unread, 0)
        return out, None, None, None


class _Collect(torch.autograd.Function):
    """x[back], a one-to-one choice: padding gets no gradient, so the scatter needs no adding."""

    @staticmethod
    def forward(ctx, x: Tensor, back: Tensor) -> Tensor:
        ctx.save_for_backward(back)
        ctx.rows = len(x)
        return x.index_select(0, back)

    @staticmethod
    def backward(ctx, grad: Tensor):
        out = grad.new_zeros(ctx.rows, *grad.shape[1:])
        return out.index_copy_(0, ctx.saved_tensors[0], grad.contiguous()), None


def dense(queries: Side, keys: Side, rule: Rule | None = None, waste: float = 1.4) -> Dense:
    """The plan for groups that lie together on both sides, in rising order.

    waste: a bucket takes groups while its padded area stays under `waste` times their real area.
    """
    groups, q_start, q_size = np.unique(queries.group, return_index=True, return_counts=True)
    k_start = np.searchsorted(keys.group, groups, side="left")
    k_size = np.searchsorted(keys.group, groups, side="right") - k_start
    assert (k_size > 0).all(), "a group of slots without anything to read"
    order = np.lexsort((k_size, q_size))
    buckets, back = [], np.empty(len(queries.group), np.int64)
    key_back, q_done, k_done = np.full(len(keys.group), -1), 0, 0
    for chosen in _chunks(q_size[order], k_size[order], waste):
        chosen = order[chosen]
        q_at, q_real = _padded(q_start[chosen], q_size[chosen])
        k_at, k_real = _padded(k_start[chosen], k_size[chosen])
        back[q_at[q_real]] = q_done + np.flatnonzero(q_real)
        key_back[k_at[k_real]] = k_done + np.flatnonzero(k_real)
        mask = _mask(queries, keys, q_at, k_at, q_real, k_real, rule)
        shape = (*q_at.shape, k_at.shape[1])
        buckets.append(Bucket(_tensor(q_at), _tensor(k_at), shape, mask))
        q_done, k_done = q_done + q_at.size, k_done + k_at.size
    unread = np.flatnonzero(key_back < 0)
    key_back[unread] = 0
    return Dense(
        buckets, _tensor(back), _tensor(key_back), _tensor(unread) if len(unread) else None
    )


def _tensor(places: np.ndarray) -> Tensor:
    return torch.from_numpy(places.ravel())


def _chunks(q_size: np.ndarray, k_size: np.ndarray, waste: float):
    """Runs of groups, from small to large, that may share a bucket."""
    start = 0
    while start < len(q_size):
        area = (q_size[start:] * k_size[start:]).cumsum()
        most = np.maximum.accumulate(q_size[start:]) * np.maximum.accumulate(k_size[start:])
        padded = most * np.arange(1, len(area) + 1)
        # A small bucket costs more in calls than its padding costs in products.
        fits = (padded <= waste * area) | (padded <= 1 << 14)
        end = start + (len(fits) if fits.all() else max(1, int(fits.argmin())))
        yield slice(start, end)
        start = end


def _padded(start: np.ndarray, size: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Places [G, most] and which are real; padding repeats the group's last place."""
    step = np.arange(size.max())
    return start[:, None] + np.minimum(step, size[:, None] - 1), step < size[:, None]


def _mask(queries, keys, q_at, k_at, q_real, k_real, rule: Rule | None) -> Tensor | None:
    real = q_real[:, :, None] & k_real[:, None, :]
    if rule is None:
        if k_real.all():
            return None
        seen = np.broadcast_to(k_real[:, None, :], real.shape)
    else:
        q, k = queries.codes[q_at], keys.codes[k_at]
        seen = rule.sees(
            Codes(q.stream[:, :, None], q.rank[:, :, None]),
            Codes(k.stream[:, None, :], k.rank[:, None, :]),
        )
        # Padded queries read what their twin reads: no row is empty, no NaN is born.
        seen = seen & k_real[:, None, :]
    return torch.from_numpy(np.ascontiguousarray(seen))[:, None]


@dataclass
class Flex:
    """FlexAttention over `rows` rows of equal length on either side; the GPU's plan.

    The block mask is made where it is first needed, on that device and in the thread that attends:
    torch can neither compile in two threads at once nor run a compiled function meanwhile.
    """

    queries: Side
    keys: Side
    rule: Rule | None
    rows: int
    block_mask: object | None = field(default=None, init=False)

    def __call__(
        self, q: Tensor, k: Tensor, v: Tensor, dropout: float = 0.0, bias: Bias | None = None
    ) -> Tensor:
        """q: [Q, H, d]; k, v: [K, H, d] -> [Q, H, d]; Q and K are `rows` times a row's length."""
        assert not dropout, "FlexAttention has no dropout: set model.attention_dropout = 0"
        if self.block_mask is None:
            self.block_mask = self.masked(q.device)
        q, k, v = (x.unflatten(0, (self.rows, -1)).transpose(1, 2) for x in (q, k, v))
        add = None if bias is None else bias.score_mod(self.rows, q.shape[2])
        attention = _flex("flex_attention", q.is_cuda)  # it has no backward on a CPU
        out = attention(q, k, v, score_mod=add, block_mask=self.block_mask)
        return out.transpose(1, 2).flatten(0, 1)

    def masked(self, device: torch.device):
        """FlexAttention's block mask: which blocks may read which, and which places in them."""
        rule = self.rule

        def on_device(side: Side):
            codes = side.codes if rule else None
            arrays = [side.group, *((codes.stream, codes.rank) if codes else ())]
            return [torch.from_numpy(a).to(device).view(self.rows, -1) for a in arrays]

        q_side, k_side = on_device(self.queries), on_device(self.keys)

        def mask_mod(b, h, i, j):  # a plain function: FlexAttention counts its arguments
            same = (q_side[0][b, i] == k_side[0][b, j]) & (q_side[0][b, i] != PADDING)
            if rule is None:
                return same
            q = Codes(q_side[1][b, i], q_side[2][b, i])
            k = Codes(k_side[1][b, j], k_side[2][b, j])
            return same & rule.sees(q, k)

        lengths = q_side[0].shape[1], k_side[0].shape[1]
        made = _flex("create_block_mask", device.type == "cuda")
        return made(mask_mod, self.rows, None, *lengths, device=device)


@cache
def _flex(name: str, compiled: bool) -> Callable:
    """A function of FlexAttention, which is slow to import.

    Compiled for all sizes at once: of each rule two variants, where sizes that are taken as
    constants would use up torch's limit of eight within some batches.
    """
    from torch.nn.attention import flex_attention

    function = getattr(flex_attention, name)
    return torch.compile(function, dynamic=True) if compiled else function


def allowed(queries: Side, keys: Side, rule: Rule | None) -> np.ndarray:
    """bool [Q, K]: what either plan lets through, by the definition; for tests and drawings."""
    same = queries.group[:, None] == keys.group[None, :]
    same &= (queries.group != PADDING)[:, None]
    return same if rule is None else same & visible(rule, queries.codes, keys.codes)
