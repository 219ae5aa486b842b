"""Dropout that draws four numbers at a time: torch's own is a tenth of a training step on a CPU."""

import torch
from torch import Tensor
from torch.nn import functional

STEPS = 1 << 16  # the chance is kept to 1/65536


def dropout(x: Tensor, chance: float) -> Tensor:
    """Zero each number with `chance` and scale the rest by 1 / (1 - chance), in training only.

    x: any float tensor.  The draw comes from torch's generator, so a resumed run repeats it.
    """
    if x.device.type != "cpu":
        return functional.dropout(x, chance)  # one kernel there
    count = x.numel()
    draws = torch.empty(-(-count // 4), dtype=torch.int64).random_(-(2**63), None)
    dropped = round(chance * STEPS)
    kept = draws.view(torch.int16)[:count].view(x.shape) >= dropped - STEPS // 2
    return x * kept.to(x.dtype).mul_(STEPS / (STEPS - dropped))
