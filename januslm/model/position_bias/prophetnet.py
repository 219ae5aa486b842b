"""ProphetNet's buckets: how far back a key stands, weighed by the reader's hidden state."""

import math

import torch
from torch import Tensor, nn

from januslm.model.score_bias import Asking

ENCODER = False  # it has none: what stands ahead would all be in one bucket
BUCKETS, FAR = 32, 128  # half of the buckets for one distance each; distances that share the last


class PositionBias(nn.Module):
    """Qi 2020, as its published code has it: a linear map in each layer, backwards only."""

    def __init__(self, config, layers: int):
        super().__init__()
        self.heads = config.heads
        each = (nn.Linear(config.width, BUCKETS * config.heads) for _ in range(layers))
        self.relative_pos_embeddings = nn.ModuleList(each)

    def bucket(self, distance: Tensor) -> Tensor:
        """int64 [...], key's place minus query's -> int64 [...]; what stands ahead counts as 0."""
        back, exact = (-distance).clamp(min=0), BUCKETS // 2
        grown = torch.log(back.clamp(min=1) / exact) / math.log(FAR / exact) * exact
        grown = exact + grown.to(back.dtype)
        return torch.where(back < exact, back, grown.clamp(max=BUCKETS - 1))

    def values(self, layer: int, query: Tensor, attention: Asking) -> Tensor:
        """[Q, D], what the layer's attention reads -> [Q, H, BUCKETS]."""
        found = self.relative_pos_embeddings[layer](query)
        return found.unflatten(-1, (BUCKETS, self.heads)).transpose(-1, -2)
