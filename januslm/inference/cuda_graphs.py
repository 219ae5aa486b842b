"""A decoder for GPUs: its passes have fixed shapes and places, are captured once and replayed.

In small batches a GPU waits for Python: a pass launches some twenty short kernels a layer.  A
captured graph is one launch.  Its tensors never move, so caches lie in arenas of their own.

B = sentences, S = slots of a sentence, P = places of a cache; N, H, d as in cache.py.
"""

import weakref
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad, scaled_dot_product_attention

from januslm.config import Refused
from januslm.inference.incremental import IncrementalDecoder, everywhere
from januslm.inference.kv_cache import Batched, KeyValues, Shared, State, both, with_room
from januslm.model.score_bias import Bias
from januslm.model.transformer import Seq2Seq
from januslm.objective import Objective

ROUND = 16  # sources are filled up to a multiple of so many tokens, that fewer shapes occur
PLACES = 64  # of a cache that a source begins, a multiple of it for the same reason
MOST = 256  # graphs; shapes that come later run as they are
WARM = 3  # runs before capture, in which libraries choose kernels and allocate


@dataclass(frozen=True)
class Fixed:
    """As kv_cache.Cached, with a shape that does not change: queries read all places."""

    cache: KeyValues  # [B, H, P, d] each
    at: Tensor  # int64 [K]: the places that the new keys go to
    batch: int
    mask: Tensor  # float [B or 1, 1, queries, P], -inf at places that are not filled

    def __call__(
        self, q: Tensor, k: Tensor, v: Tensor, dropout: float = 0.0, bias: Bias | None = None
    ) -> Tensor:
        q, k, v = (x.view(self.batch, -1, *x.shape[1:]).transpose(1, 2) for x in (q, k, v))
        keys, values = self.cache
        keys.index_copy_(2, self.at, k)
        values.index_copy_(2, self.at, v)
        out = scaled_dot_product_attention(q, keys, values, attn_mask=self.mask)
        return out.transpose(1, 2).flatten(0, 1)


class Recorded:
    """A function of tensors at fixed addresses: a call copies its inputs there and replays."""

    def __init__(self, function: Callable[..., Tensor], inputs: Sequence[Tensor], pool):
        """pool: memory of all graphs, none of which is read after another ran; None: no capture."""
        self.function, self.inputs = function, [x.clone() for x in inputs]
        self.graph = None
        if pool is None:
            return
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(WARM):
                function(*self.inputs)
        torch.cuda.current_stream().wait_stream(side)
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.graph, pool=pool):
            self.out = function(*self.inputs)

    def __call__(self, inputs: Sequence[Tensor]) -> Tensor:
        torch._foreach_copy_(self.inputs, list(inputs))
        if self.graph is None:
            return self.function(*self.inputs)
        self.graph.replay()
        return self.out.clone()


class _Arena:
    """The caches of all graphs with one number of sentences and places; one state is in them."""

    def __init__(self, like: list[KeyValues]):
        # Zeros: what is masked still counts as 0 * value, and 0 * nan is nan.
        self.cache = [both(pair, torch.zeros_like) for pair in like]
        self.guest: Callable[[], State | None] = lambda: None

    def holds(self, state: State) -> bool:
        return state.cache[0][0] is self.cache[0][0]

    def admit(self, state: State) -> None:
        """Move the state's cache in; a state that is there takes its own with it."""
        if self.holds(state):
            return
        former = self.guest()
        if former is not None and self.holds(former):
            former.cache = [both(pair, torch.clone) for pair in former.cache]
        for mine, theirs in zip(self.cache, state.cache, strict=True):
            for here, there in zip(mine, theirs, strict=True):
                here[:, :, : state.used] = there[:, :, : state.used]
        state.cache, self.guest = list(self.cache), weakref.ref(state)


class GraphedDecoder(IncrementalDecoder):
    """An IncrementalDecoder that captures its passes, shape by shape, and replays them.

    patience: how often a shape runs as it is before it is worth a capture.  Answers are those of
    IncrementalDecoder to rounding.  Without CUDA the same passes run uncaptured, for tests, and
    slower.
    """

    def __init__(self, model: Seq2Seq, objective: Objective, patience: int = 1):
        super().__init__(model, objective)
        if kind := model.config.position_bias:
            raise Refused(f"captured passes know no position bias, the model has {kind!r}")
        self.patience = patience
        self.came: Counter[tuple] = Counter()
        cuda = model.embedding.weight.is_cuda
        self.pool = torch.cuda.graph_pool_handle() if cuda else None
        self.recorded: dict[tuple, Recorded] = {}
        self.arenas: dict[tuple, _Arena] = {}

    @torch.inference_mode()
    def start(self, sources: Sequence[np.ndarray]) -> State:
        """As IncrementalDecoder's, with the memory filled up to a multiple of ROUND tokens."""
        state = super().start(sources)
        if not state.memory:  # its places are the cache's first: rounded, fewer shapes occur
            places = (state.used // PLACES + 1) * PLACES
            state.cache = [both(pair, lambda x: with_room(x, places)) for pair in state.cache]
            return state
        size = state.memory[0][0].shape[2]
        more = -size % ROUND
        if state.memory_mask is None:
            state.memory_mask = state.memory[0][0].new_zeros(len(state), 1, 1, size)
        state.memory_mask = pad(state.memory_mask, (0, more), value=-torch.inf)
        state.memory = [both(pair, lambda x: pad(x, (0, 0, 0, more))) for pair in state.memory]
        return state

    def _layers(self, state: State, tokens, place, keys, rows, masks) -> Tensor:
        batch, each = tokens.shape
        places, size = state.cache[0][0].shape[2], len(keys)
        inner, last = (
            self._looked(mask, asked, state.used + size, places)
            for mask, asked in zip(masks, (each, len(rows)), strict=True)
        )
        at = state.used + torch.arange(size, device=tokens.device)
        shape = ("write", batch, places, each, len(rows), inner.shape, last.shape)
        key = (*shape, *(keys.shape[:3] for keys, _ in state.memory[:1]))
        if not self._ready(key):
            return super()._layers(state, tokens, place, keys, rows, masks)
        if (batch, places) not in self.arenas:
            self.arenas[batch, places] = _Arena(state.cache)
        arena = self.arenas[batch, places]
        arena.admit(state)
        keys = everywhere(keys, batch, each) if self.asks else None
        rows = everywhere(rows, batch, each) if len(rows) < each else None

        def run(tokens, place, at, inner, last, *source):
            memory_mask, pairs = _sides(source)
            final = len(self.layers) - 1
            plans = [
                Fixed(pair, at, batch, last if i == final else inner)
                for i, pair in enumerate(arena.cache)
            ]
            return self._through(
                tokens, place, plans, Shared(batch, memory_mask), pairs, keys, rows
            )

        return self._run(key, run, [tokens, place, at, inner, last], state)

    def _looked(self, mask: Tensor | None, rows: int, used: int, places: int) -> Tensor:
        """The mask of all places, those not yet filled barred."""
        if mask is None:
            mask = self.model.embedding.weight.new_zeros(1, 1, rows, used)
        return pad(mask.expand(-1, -1, rows, -1), (0, places - used), value=-torch.inf)

    def _alone(self, state: State, tokens, place, mask, rows) -> Tensor:
        given = [x for x in (mask, rows) if x is not None]
        batch, masked, wanted = len(state), mask is not None, rows is not None
        key = ("fill", batch, masked, wanted, tokens.shape, state.memory[0][0].shape[:3])
        key = (*key, *(x.shape for x in given))
        if not self._ready(key):
            return super()._alone(state, tokens, place, mask, rows)

        def run(tokens, place, *rest):
            mask = rest[0] if masked else None
            rows = rest[masked] if wanted else None
            memory_mask, pairs = _sides(rest[masked + wanted :])
            plans = [Batched(len(tokens), mask)] * len(self.layers)
            return self._through(
                tokens, place, plans, Shared(batch, memory_mask), pairs, None, rows
            )

        return self._run(key, run, [tokens, place, *given], state)

    def _ready(self, key: tuple) -> bool:
        """Whether this shape came often enough."""
        self.came[key] += 1
        full = len(self.recorded) == MOST
        return key in self.recorded or (self.came[key] > self.patience and not full)

    def _run(self, key: tuple, function: Callable, inputs: list[Tensor], state: State) -> Tensor:
        if state.memory:
            assert state.memory_mask is not None, "start makes one"
            inputs = [*inputs, state.memory_mask, *(x for pair in state.memory for x in pair)]
        if key not in self.recorded:
            self.recorded[key] = Recorded(function, inputs, self.pool)
        return self.recorded[key](inputs)


def _sides(source: Sequence[Tensor]) -> tuple[Tensor | None, list[KeyValues]]:
    """The mask of a memory and its keys and values, of what _run hands on; without one, neither."""
    if not source:
        return None, []
    mask, *memory = source
    return mask, list(zip(memory[::2], memory[1::2], strict=True))
