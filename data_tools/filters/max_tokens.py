"""Documents that are too long in tokens."""

from typing import Annotated

import numpy as np

from data_tools.documents import Dropped
from januslm.config import Allowed


def of_tokens(ids: np.ndarray, *, limit: Annotated[int, Allowed(low=1)]) -> Dropped | None:
    """Drop what is too long.

    limit: tokens, the final eos not counted.
    """
    return Dropped(f"longer than {limit} tokens", len(ids)) if len(ids) > limit else None
