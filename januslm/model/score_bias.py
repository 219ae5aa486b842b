"""What attention adds to its scores for the distance between a query and a key."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn


class Asking(Protocol):
    """What a scheme may read of the layer's own attention: how its queries are made."""

    @property
    def q_proj(self) -> nn.Linear: ...


class PositionBias(Protocol):
    """What a file of januslm/model/position_bias/ brings, which says more."""

    def bucket(self, distance: Tensor) -> Tensor: ...  # int64 -> int64

    # [Q, D], and the layer's own attention -> [Q or 1, H, B]
    def values(self, layer: int, query: Tensor, attention: Asking) -> Tensor: ...


@dataclass(frozen=True)
class Bias:
    """The bias of one layer's attention, for any plan.  Q, K = slots on either side."""

    values: Tensor  # float [Q or 1, H, B]
    bucket: Callable[[Tensor], Tensor]
    query_position: Tensor  # int64 [Q]
    key_position: Tensor  # int64 [K]

    def between(self, queries: Tensor, key_position: Tensor) -> Tensor:
        """Bias [G, H, q, k] of queries int64 [G, q], by index, and keys at int64 [G, k]."""
        distance = key_position[:, None, :] - self.query_position[queries][:, :, None]
        bucket = self.bucket(distance)  # [G, q, k]
        if len(self.values) == 1:
            return self.values[0][:, bucket].transpose(0, 1)
        values = self.values[queries].transpose(1, 2)  # [G, H, q, B]
        heads = values.shape[1]
        return values.gather(-1, bucket[:, None].expand(-1, heads, -1, -1))

    def score_mod(self, rows: int, queries: int) -> Callable:
        """FlexAttention's form, for `rows` rows of `queries` queries each."""
        q_place, k_place = (p.view(rows, -1) for p in (self.query_position, self.key_position))
        values, every = self.values, len(self.values) > 1

        def add(score, b, h, i, j):  # a plain function: FlexAttention counts its arguments
            bucket = self.bucket(k_place[b, j] - q_place[b, i])
            row = b * queries + i if every else torch.zeros_like(i)
            return score + values[row, h, bucket]

        return add
