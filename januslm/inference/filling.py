"""A batch of texts of known lengths, filled word by word in any order, with everything cached.

The order is that of writing: a slot reads what the objective's rule lets it read of the words that
stand already, so each word is predicted as in training, in the factorization that is written.
B = sentences, K = words that come at once, Q = places asked for, V = vocabulary.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from januslm.inference.kv_cache import Extend, State
from januslm.layout import NONE, AnyOrder, Codes, Rule


class Filling:
    """The texts of a state, nothing of which is written yet; it is used up.

    ways: of each sentence, from its length.  extend: a pass, see IncrementalDecoder.extend.
    """

    def __init__(self, extend: Extend, rule: Rule, state: State, ways: Sequence[AnyOrder]):
        self.extend, self.rule, self.state = extend, rule, state
        self.holes = [way.holes for way in ways]
        self.later = 1 + max(map(len, self.holes))
        streams = rule.streams
        self.words, self.asks = (streams.index(name) for name in (ways[0].words, ways[0].asks))
        self.query = ways[0].query
        most = max(len(way.start) for way in ways)
        rows = np.full((4, len(ways), most), NONE)
        rows[0] = 0  # any token
        for row, way in enumerate(ways):
            start = way.start
            waits = np.where(start.rank == NONE, NONE, self.later)
            for column, values in zip(
                rows[:, row], (start.token, start.position, start.stream, waits), strict=True
            ):
                column[: len(start)] = values
        # Token, place, stream and rank of what is cached or joins with the next pass; a stream of
        # NONE is filling.  A mask whose word is not written yet has the rank `later`.
        self.slots = torch.from_numpy(rows).to(state.at.device)
        self.cached = 0
        self.written = torch.zeros_like(state.at)  # int64 [B]: words

    def ask(self, words: Tensor, at: Tensor, asked: Tensor) -> Tensor:
        """Logits [B, Q, V] of the words at the places `asked` int64 [B, Q], each as the next one.

        words, at: int64 [B, K], written since the last call, in this order, and where.  A place of
        NONE is none.
        """
        self._join(words, at)
        ask = self._columns(self.query, asked, self.asks, self.written[:, None])
        token, place, stream, rank = torch.cat([self.slots, ask], 2)
        first, kept = self.cached, self.slots.shape[2] - self.cached
        size = token.shape[1]
        keys = rank[:, None].expand(-1, size - first, -1).clone()
        own = (place[:, None] == asked[..., None]) & (keys[:, kept:] == self.later)
        keys[:, kept:] = torch.where(own, self.written[:, None, None], keys[:, kept:])
        readers = Codes(stream[:, first:, None], rank[:, first:, None])
        look = self.rule.sees(readers, Codes(stream[:, None], keys))
        look = look & (stream >= 0)[:, None]
        itself = torch.eye(size, dtype=torch.bool, device=look.device)[first:]
        look = look | (itself & (stream[:, first:, None] < 0))  # filling reads something, too
        self.cached += kept
        tokens, places = (x[:, first:].clamp(min=0) for x in (token, place))
        return self.extend(self.state, tokens, places, look, kept)

    def keep(self, chosen: Tensor) -> None:
        """Go on with these sentences only: int64 [B']."""
        self.state.keep(chosen)
        self.slots, self.written = self.slots[:, chosen], self.written[chosen]
        self.holes = [self.holes[row] for row in chosen.tolist()]

    def _join(self, words: Tensor, at: Tensor) -> None:
        """Words join the slots, and their masks learn when they were written."""
        real = at != NONE
        order = self.written[:, None] + real.cumsum(1) - 1
        _, place, _, rank = self.slots
        now = (place[..., None] == at[:, None]) & (rank == self.later)[..., None] & real[:, None]
        rank = torch.where(now.any(2), (now * order[:, None]).sum(2), rank)
        self.slots = torch.cat([self.slots[:3], rank[None]])
        self.slots = torch.cat([self.slots, self._columns(words, at, self.words, order)], 2)
        self.written = self.written + real.sum(1)

    def _columns(self, token, at: Tensor, stream: int, rank: Tensor) -> Tensor:
        """Slots of one stream, int64 [4, B, n]; those at NONE are filling."""
        parts = (torch.as_tensor(x, device=at.device) for x in (token, at, stream, rank))
        token, place, stream_of, rank = (x.expand_as(at) for x in parts)
        return torch.stack([token, place, stream_of.masked_fill(at == NONE, NONE), rank])
