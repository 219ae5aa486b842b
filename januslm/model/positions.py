"""Where a token stands: learned, sinusoidal or rotary."""

import torch
from torch import Tensor, nn


class Positions(nn.Module):
    """Adds a position vector to each token; rotary positions turn queries and keys instead."""

    def __init__(self, kind: str, most: int, width: int):
        super().__init__()
        self.kind = kind
        if kind == "learned":
            self.table = nn.Embedding(most, width)
        elif kind == "sinusoidal":
            self.register_buffer("wave", waves(most, width), persistent=False)

    def forward(self, x: Tensor, position: Tensor) -> Tensor:
        """x: [..., D]; position: int64 [...]."""
        if self.kind == "learned":
            return x + self.table(position)
        if self.kind == "sinusoidal":
            return x + self.wave[position].to(x.dtype)
        return x


def waves(most: int, width: int) -> Tensor:
    """float [most, width]: sin in the first half, cos in the second (Vaswani 2017, 3.5)."""
    half = width // 2
    rate = torch.exp(torch.arange(half) * -(torch.log(torch.tensor(1e4)) / max(half - 1, 1)))
    angle = torch.arange(most)[:, None] * rate
    return torch.cat([angle.sin(), angle.cos()], 1)


def rotate(x: Tensor, position: Tensor, base: float = 1e4) -> Tensor:
    """Rotary positions (Su 2021, RoFormer, 3.2.2).  x: [..., H, d]; position: int64 [...]."""
    half = x.shape[-1] // 2
    rate = base ** (-torch.arange(half, device=x.device, dtype=torch.float32) / half)
    angle = (position[..., None, None] * rate).to(torch.float32)
    cos, sin = angle.cos().to(x.dtype), angle.sin().to(x.dtype)
    one, other = x[..., :half], x[..., half:]
    return torch.cat([one * cos - other * sin, one * sin + other * cos], -1)
