"""Models that write word by word and all at once: `januslm.load("runs/x").generate(["..."])`.

Nothing is imported before it is asked for, so commands check their arguments without torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from januslm.inference.trained_model import TrainedModel, Written, load

__all__ = ["TrainedModel", "Written", "load"]


if not TYPE_CHECKING:  # type checkers know what is here from the lines above

    def __getattr__(name: str):
        if name in __all__:
            return getattr(import_module("januslm.inference.trained_model"), name)
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
