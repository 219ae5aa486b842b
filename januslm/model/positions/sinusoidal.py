"""A fixed wave for each place (Vaswani 2017, 3.5)."""

import torch
from torch import Tensor, nn

TELLS_MASKS_APART = True
HEAD_MULTIPLE = 1


class Positions(nn.Module):
    """Adds a row of `waves` to each token."""

    wave: Tensor

    def __init__(self, config):
        super().__init__()
        self.register_buffer("wave", waves(config.max_positions, config.width), persistent=False)

    def forward(self, x: Tensor, position: Tensor) -> Tensor:
        """x: [..., D]; position: int64 [...]."""
        return x + self.wave[position].to(x.dtype)


def waves(most: int, width: int) -> Tensor:
    """float [most, width]: sin in the first half, cos in the second."""
    half = width // 2
    rate = torch.exp(torch.arange(half) * -(torch.log(torch.tensor(1e4)) / max(half - 1, 1)))
    angle = torch.arange(most)[:, None] * rate
    return torch.cat([angle.sin(), angle.cos()], 1)
