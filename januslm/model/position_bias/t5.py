"""T5's buckets: near distances one by one, far ones by their logarithm; a table for all layers."""

import math

import torch
from torch import Tensor, nn

from januslm.model.score_bias import Asking

BUCKETS, FAR = 32, 128  # half of the buckets for keys behind the query; distances that share one


class PositionBias(nn.Module):
    """Raffel 2020, in both directions, as MPNet's encoder has it (Song 2020)."""

    def __init__(self, config, layers: int):
        super().__init__()
        self.table = nn.Embedding(BUCKETS, config.heads)

    def bucket(self, distance: Tensor) -> Tensor:
        """int64 [...], key's place minus query's -> int64 [...]."""
        half = BUCKETS // 2
        exact = half // 2
        far = distance.abs()
        grown = torch.log(far.clamp(min=1) / exact) / math.log(FAR / exact) * (half - exact)
        grown = exact + grown.to(far.dtype)
        near = torch.where(far < exact, far, grown.clamp(max=half - 1))
        return near + half * (distance > 0)

    def values(self, layer: int, query: Tensor, attention: Asking) -> Tensor:
        """The same for all layers and queries: [1, H, BUCKETS]."""
        return self.table.weight.t()[None]
