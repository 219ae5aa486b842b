"""Queries and keys turned by their place (Su 2021, RoFormer, 3.2.2)."""

import torch
from torch import Tensor

from januslm.model.positions.none import Positions

__all__ = ["Positions", "rotate"]

TELLS_MASKS_APART = False
HEAD_MULTIPLE = 2


def rotate(x: Tensor, position: Tensor, base: float = 1e4) -> Tensor:
    """x: [..., H, d], queries or keys; position: int64 [...]."""
    half = x.shape[-1] // 2
    rate = base ** (-torch.arange(half, device=x.device, dtype=torch.float32) / half)
    angle = (position[..., None, None] * rate).to(torch.float32)
    cos, sin = angle.cos().to(x.dtype), angle.sin().to(x.dtype)
    one, other = x[..., :half], x[..., half:]
    return torch.cat([one * cos - other * sin, one * sin + other * cos], -1)
