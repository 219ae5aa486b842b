"""XLNet's relative encoding: the reader's query against a learned map of the distance's wave."""

import torch
from torch import Tensor, nn

from januslm.model.score_bias import Asking

FAR = 128  # distances beyond it, either way, share a wave (clamp_len of the published code)


class PositionBias(nn.Module):
    """Yang 2019, from Transformer-XL (Dai 2019, 3.3), with biases of each layer (untie_r).

    (q + r_r) . W_r R(query's place - key's) / sqrt(d), where q is without the bias of q_proj, which
    plays the part of r_w, the other bias.
    """

    wave: Tensor

    def __init__(self, config, layers: int):
        super().__init__()
        width, self.heads = config.width, config.heads
        half = (width + 1) // 2
        rate = 1e4 ** (-torch.arange(half, dtype=torch.float64) / half)
        angle = torch.arange(FAR, -FAR - 1, -1)[:, None] * rate
        wave = torch.cat([angle.sin(), angle.cos()], 1)[:, :width].float()
        self.register_buffer("wave", wave, persistent=False)
        self.r = nn.ModuleList(nn.Linear(width, width, bias=False) for _ in range(layers))
        biases = (nn.Parameter(torch.zeros(width)) for _ in range(layers))
        self.r_r_bias = nn.ParameterList(biases)

    def bucket(self, distance: Tensor) -> Tensor:
        """int64 [...], key's place minus query's -> int64 [...]."""
        return distance.clamp(-FAR, FAR) + FAR

    def values(self, layer: int, query: Tensor, attention: Asking) -> Tensor:
        """[Q, D], what the layer's attention reads -> [Q, H, 2 FAR + 1]."""
        asks = query @ attention.q_proj.weight.t() + self.r_r_bias[layer]
        far = self.r[layer](self.wave.to(query.dtype))
        asks, far = (x.unflatten(-1, (self.heads, -1)).transpose(0, 1) for x in (asks, far))
        return (asks @ far.transpose(1, 2) * asks.shape[-1] ** -0.5).transpose(0, 1)
