"""A batch that is written block by block: finished blocks are cached, the one in work is not.

B = sentences, R = words of finished blocks that join the cache, K = words of a block.
"""

import torch
from torch import Tensor

from januslm.inference.kv_cache import Extend, State
from januslm.layout import BlockRead, Codes, Rule


class Blocks:
    """The texts of a state, nothing of which is written yet; it is used up.

    extend: a pass, see IncrementalDecoder.extend.
    """

    def __init__(self, extend: Extend, rule: Rule, state: State, read: BlockRead):
        self.extend, self.rule, self.state, self.read = extend, rule, state, read
        names = (read.words, *read.asks, read.shown or read.words)
        streams = torch.tensor([rule.streams.index(name) for name in names])
        self.streams = streams.to(state.at.device)

    def ask(self, words: Tensor, block: Tensor) -> Tensor:
        """Logits [B, K, V] of a block int64 [B, K] in one pass: `read.query` where no word stands.

        words: int64 [B, R], the prefix or a finished block before it that is not cached yet.
        """
        (batch, run), size, device = words.shape, block.shape[1], block.device
        masked = block == self.read.query
        assert self.read.shown or masked.all(), "require() refuses it"
        shown = torch.where(masked, self.streams[1 : 1 + size], self.streams[-1])
        stream = torch.cat([self.streams[:1].expand(batch, run), shown], 1)
        # Rules compare ranks: they may count from the first of the words.
        own = torch.zeros(run, dtype=torch.long) if self.read.together else torch.arange(run)
        rank = torch.cat([own, torch.full((size,), run - 1)]).to(device).expand(batch, -1)
        look = self.rule.sees(
            Codes(stream[..., None], rank[..., None]), Codes(stream[:, None], rank[:, None])
        )
        place = torch.arange(run + size, device=device).expand(batch, -1)
        logits = self.extend(self.state, torch.cat([words, block], 1), place, look, run)
        self.state.at = self.state.at + run
        return logits
