"""What a batch that is being written remembers, and how its rows read it.

B = sentences, W = hypotheses of one sentence, N = source tokens, L = length of a row,
H = heads, d = width of a head.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from januslm.model.attention import AttentionPlan
from januslm.model.score_bias import Bias

KeyValues = tuple[Tensor, Tensor]


@dataclass
class State:
    """A batch of sentences being written.

    Hypotheses of a sentence share its memory and one cache: what each of them has written is a row
    of `self_mask`, so that choosing other hypotheses moves no keys.  A model without an encoder has
    no memory: its source fills the first places of the cache.
    """

    memory: list[KeyValues]  # keys and values of the source per layer: [B, H, N, d]
    memory_mask: Tensor | None  # float [B, 1, 1, N], -inf at padding; None: there is none
    length_scores: Tensor  # float [B, max_length], log p
    at: Tensor  # int64 [B]: where the next past slot of each hypothesis stands
    key_position: Tensor  # int64 [B, used]: where what is cached stands
    cache: list[KeyValues] = field(default_factory=list)  # per layer: [B, H, places, d]
    used: int = 0  # how many of the places are filled
    self_mask: Tensor | None = None  # bool [B, W, used]; None: W = 1 and all of it
    source: int = 0  # how many of the places are the source's

    def __len__(self) -> int:
        return len(self.at)

    def keep(self, chosen: Tensor) -> None:
        """Go on with these sentences only: int64 [B']."""
        self.memory = [(k[chosen], v[chosen]) for k, v in self.memory]
        self.memory_mask = None if self.memory_mask is None else self.memory_mask[chosen]
        self.length_scores, self.at = self.length_scores[chosen], self.at[chosen]
        self.key_position = self.key_position[chosen]
        self.self_mask = None if self.self_mask is None else self.self_mask[chosen]
        self.cache = [
            both(pair, lambda x: with_room(x[chosen, :, : self.used], x.shape[2]))
            for pair in self.cache
        ]

    def make_room(self, size: int, ahead: int = 32) -> None:
        """Places for `size` slots more; where there are none, for `ahead` times as many."""
        places = self.cache[0][0].shape[2] if self.cache else 0
        if self.used + size <= places:
            return
        places = max(2 * places, self.used + ahead * size)
        self.cache = [
            both(pair, lambda x: with_room(x[:, :, : self.used], places))
            for pair in self.cache or [(k[:, :, :0], k[:, :, :0]) for k, _ in self.memory]
        ]

    @torch.inference_mode()
    def choose(self, hypothesis: Tensor, width: int, run: int) -> None:
        """Of the latest block's `width` hypotheses of `run` words keep one each, int64 [B]."""
        assert self.self_mask is not None, "there are no hypotheses to choose from"
        words = hypothesis[:, None] * run + torch.arange(run, device=hypothesis.device)
        self.follow(words, width * run)

    @torch.inference_mode()
    def follow(self, words: Tensor, run: int) -> None:
        """Of the latest `run` words keep those at int64 [B, R], which follow each other."""
        first = self.used - run
        place = first + words
        for x in (x for pair in self.cache for x in pair):
            at = place[:, None, :, None].expand(-1, x.shape[1], -1, x.shape[3])
            x[:, :, first : first + words.shape[1]] = x.gather(2, at)
        self.key_position = torch.cat(
            [self.key_position[:, :first], self.key_position.gather(1, place)], 1
        )
        self.used = first + words.shape[1]
        if self.self_mask is not None:
            self_mask = self.self_mask[:, :1, : self.used].clone()
            self_mask[..., first:] = True
            self.self_mask = None if self_mask.all() else self_mask

    def take_back(self, words: Tensor) -> None:
        """Forget the last `words` int64 [B] of the latest block (one hypothesis a sentence)."""
        least = int(words.min())
        self.used, self.at = self.used - least, self.at - words
        self.key_position = self.key_position[:, : self.used]
        if int(words.max()) == least:
            self.self_mask = None if self.self_mask is None else self.self_mask[..., : self.used]
            return
        if self.self_mask is None:
            every = (len(self), 1, self.used)
            self.self_mask = torch.ones(every, dtype=torch.bool, device=words.device)
        # Where others kept more, the place stays and this sentence never looks at it again.
        place = torch.arange(self.used, device=words.device)
        kept = place < (self.used + least - words)[:, None]
        self.self_mask = self.self_mask[..., : self.used] & kept[:, None]


# One pass: state, tokens, places, who reads whom, how many join the cache -> logits of the others.
Extend = Callable[[State, Tensor, Tensor, Tensor, int], Tensor]


def both(pair: KeyValues, change: Callable[[Tensor], Tensor]) -> KeyValues:
    """Keys and values, changed alike."""
    keys, values = pair
    return change(keys), change(values)


def with_room(x: Tensor, places: int) -> Tensor:
    """The filled places of a cache [B, H, used, d] at the head of a larger one."""
    out = x.new_empty(*x.shape[:2], places, x.shape[3])
    out[:, :, : x.shape[2]] = x
    return out


@dataclass
class Kept:
    """Another plan, of which the keys and values that it reads are kept."""

    plan: AttentionPlan
    read: KeyValues = field(init=False)

    def __call__(
        self, q: Tensor, k: Tensor, v: Tensor, dropout: float = 0.0, bias: Bias | None = None
    ) -> Tensor:
        self.read = k, v
        return self.plan(q, k, v, dropout, bias)


@dataclass(frozen=True)
class Batched:
    """Rows of equal length that read only themselves: [rows * L, H, d] on both sides."""

    rows: int
    mask: Tensor | None = None  # float [rows, 1, 1, L]

    def __call__(
        self, q: Tensor, k: Tensor, v: Tensor, dropout: float = 0.0, bias: Bias | None = None
    ) -> Tensor:
        shape = (self.rows, -1, *q.shape[1:])
        q, k, v = (x.view(shape).transpose(1, 2) for x in (q, k, v))
        mask = self.mask
        if bias is not None:
            mask = _with_bias(mask, bias, bias.key_position.view(self.rows, -1))
        out = scaled_dot_product_attention(q, k, v, attn_mask=mask)
        return out.transpose(1, 2).flatten(0, 1)


@dataclass(frozen=True)
class Shared:
    """All rows of a sentence, whatever hypothesis they belong to, read its one memory."""

    batch: int
    memory_mask: Tensor | None

    def __call__(
        self, q: Tensor, k: Tensor, v: Tensor, dropout: float = 0.0, bias: Bias | None = None
    ) -> Tensor:
        q = q.view(self.batch, -1, *q.shape[1:]).transpose(1, 2)
        out = scaled_dot_product_attention(q, k, v, attn_mask=self.memory_mask)
        return out.transpose(1, 2).flatten(0, 1)


@dataclass(frozen=True)
class Cached:
    """New keys join the cache, from place `used` on; queries read all that is filled."""

    cache: KeyValues
    used: int
    batch: int
    mask: Tensor | None
    key_position: Tensor  # int64 [B, used and new]

    def __call__(
        self, q: Tensor, k: Tensor, v: Tensor, dropout: float = 0.0, bias: Bias | None = None
    ) -> Tensor:
        q, k, v = (x.view(self.batch, -1, *x.shape[1:]).transpose(1, 2) for x in (q, k, v))
        end = self.used + k.shape[2]
        keys, values = self.cache
        keys[:, :, self.used : end] = k
        values[:, :, self.used : end] = v
        mask = self.mask if bias is None else _with_bias(self.mask, bias, self.key_position)
        out = scaled_dot_product_attention(q, keys[:, :, :end], values[:, :, :end], attn_mask=mask)
        return out.transpose(1, 2).flatten(0, 1)


def _with_bias(mask: Tensor | None, bias: Bias, key_position: Tensor) -> Tensor:
    """A float mask with the bias of positions added.  key_position: int64 [rows, k]."""
    queries = torch.arange(len(bias.query_position), device=key_position.device)
    scores = bias.between(queries.view(len(key_position), -1), key_position)
    return scores if mask is None else mask + scores


def additive_mask(seen: Tensor, dtype: torch.dtype) -> Tensor:
    """bool -> 0 or -inf.  Made once a pass: SDPA would turn a bool mask anew in each layer."""
    return torch.zeros(seen.shape, dtype=dtype, device=seen.device).masked_fill_(~seen, -torch.inf)
