"""Linear maps for few rows on the CPU: a second copy of the weight in oneDNN's own layout.

MKL's product is slow for few rows, above all times a vocabulary: 5 rows x 32000 words take 14.7 ms
there and 7.4 ms here (width 512, AVX2, one thread).  On AMD, MKL leaves AVX-512 unused: there the
product is half as fast for any number of rows.  Results are equal to fp32 rounding.
"""

import copy
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

# Weights from so many numbers on gain, between so many rows.  Measured: 1.1 to 2.5 times as fast
# with AVX2 (Intel), 1.2 to 3.6 times with AVX-512 (AMD); by machine and not by timing at run time,
# so that a run gives the same numbers twice.
ANY = 1 << 62
GAINS = {
    "AVX512": ((1 << 18, 1, ANY), (1 << 16, 8, ANY)),
    "other": ((1 << 22, 1, 160), (1 << 19, 2, 24)),
}
HINT = 16  # rows the layout is chosen for; a hint of 1 would be bad for all others

M = TypeVar("M", bound=nn.Module)


def fits(weight: Tensor) -> bool:
    """Whether a weight can be prepacked."""
    cpu = weight.device.type == "cpu" and weight.dtype == torch.float32
    return cpu and torch.backends.mkldnn.is_available()


class Packed(nn.Module):
    """A linear map, by whichever of the two products is faster for the number of rows."""

    def __init__(self, weight: Tensor, bias: Tensor | None = None):
        super().__init__()
        self.weight, self.bias = weight.detach(), None if bias is None else bias.detach()
        size = weight.numel()
        gains = GAINS.get(torch.backends.cpu.get_cpu_capability(), GAINS["other"])
        self.low, self.high = next(((a, b) for least, a, b in gains if size >= least), (1, 0))
        if self.high:
            self.prepacked = torch.ops.mkldnn._reorder_linear_weight(self.weight, HINT)

    def forward(self, x: Tensor) -> Tensor:
        if self.low <= len(x) <= self.high:
            return torch.ops.mkldnn._linear_pointwise(x, self.prepacked, self.bias, "none", [], "")
        return linear(x, self.weight, self.bias)


def packed_copy(model: M) -> M:
    """The same model, parameters shared, with every linear map prepacked."""
    shared = {id(p): p for p in [*model.parameters(), *model.buffers()]}
    twin = copy.deepcopy(model, shared)
    for module in list(twin.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, nn.Linear):
                setattr(module, name, Packed(child.weight, child.bias))
    return twin.eval()
