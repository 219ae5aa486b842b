"""Dropout that draws four numbers at a time: torch's own is a tenth of a training step on a CPU."""

import torch
from torch import Tensor
from torch.nn import functional

STEPS = 1 << 16  # the p is kept to 1/65536


def dropout(x: Tensor, p: float) -> Tensor:
    """Zero each number with `p` and scale the rest by 1 / (1 - p), in training only.

    x: any float tensor.  The draw comes from torch's generator, so a resumed run repeats it.
    """
    if x.device.type != "cpu":
        return functional.dropout(x, p)  # one kernel there
    count = x.numel()
    draws = torch.empty(-(-count // 4), dtype=torch.int64).random_(-(2**63), None)
    dropped = round(p * STEPS)
    kept = draws.view(torch.int16)[:count].view(x.shape) >= dropped - STEPS // 2
    return x * kept.to(x.dtype).mul_(STEPS / (STEPS - dropped))
