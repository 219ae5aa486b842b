"""Every way to write in januslm/decoding, as tests call it."""

import inspect
import tomllib
from pathlib import Path

from januslm.config import Refused
from januslm.inference.incremental import IncrementalDecoder
from januslm.inference.request import check_ways
from januslm.registry import constant, find, names, options
from tests.samples import resolved

DECODERS = names("januslm.decoding")
FOLDER = Path(__file__).parent / "fixtures" / "decoding"


def algorithm(name: str):
    """The function `decode` of januslm/decoding/NAME.py."""
    return find("januslm.decoding", name).decode


def settings(name: str, **limits) -> dict:
    """All options: the defaults, over them fixtures/decoding/NAME.toml, and the limits it takes."""
    path = FOLDER / f"{name}.toml"
    own = tomllib.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    known = inspect.signature(algorithm(name)).parameters
    limits = {key: value for key, value in limits.items() if key in known}
    return options(algorithm(name), own | limits, name)


def taking(*limits: str) -> list[str]:
    """The algorithms that have all these options."""
    known = {name: inspect.signature(algorithm(name)).parameters for name in DECODERS}
    return [name for name in DECODERS if set(limits) <= set(known[name])]


def taught(name: str) -> str:
    """An objective whose checkpoints can write in this way: JANUS where it can."""
    for objective in ("janus", *names("januslm.objectives")):
        try:
            check_ways(resolved(objective), constant("januslm.decoding", name, "NEEDS", ()))
        except Refused:
            continue
        return objective
    raise AssertionError(f"no objective teaches {name}")


class CountingDecoder(IncrementalDecoder):
    """Counts its passes of each kind."""

    word_by_word = all_at_once = 0

    def step(self, *given, **more):
        self.word_by_word += 1
        return super().step(*given, **more)

    def block(self, *given, **more):
        self.word_by_word += 1
        return super().block(*given, **more)

    def draft(self, *given, **more):
        self.word_by_word += 1
        return super().draft(*given, **more)

    def fill(self, *given, **more):
        self.all_at_once += 1
        return super().fill(*given, **more)
