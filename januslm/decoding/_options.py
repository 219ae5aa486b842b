"""What options of several algorithms may be; read before torch is imported (registry.declared)."""

from typing import Annotated, Literal

from januslm.config import Allowed

MOST = 1 << 31  # of what is counted: beyond it, products would leave int64
Count = Annotated[int, Allowed(low=0, high=MOST)]
Length = Annotated[int, Allowed(low=1, high=MOST)]
Ratio = Annotated[float, Allowed(low=0, high=1000)]
Beam = Annotated[int, Allowed(low=1, high=1024)]  # each is a sentence in memory
Choice = Literal["topk", "around"]
