"""Every way to write in januslm/decoding, as tests call it."""

import inspect
import tomllib
from pathlib import Path

from januslm.config import Refused
from januslm.inference.incremental import IncrementalDecoder
from januslm.inference.request import check_ways
from januslm.registry import constant, find, names, options
from tests.samples import choices, resolved

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
    """An objective whose checkpoints can write in this way, and its options: JANUS where it can."""
    for objective in ("janus", *names("januslm.objectives")):
        for given in ({}, *texts(find("januslm.objectives", objective).layout)):
            try:
                needs = constant("januslm.decoding", name, "NEEDS", ())
                check_ways(resolved(objective, **given), needs)
            except Refused:
                continue
            return " ".join([objective, *(f"{key}={value}" for key, value in given.items())])
    raise AssertionError(f"no objective teaches {name}")


def texts(function) -> list[dict]:
    """The choices among a plug-in's options that are words."""
    found = [{k: v for k, v in c.items() if isinstance(v, str)} for c in choices(function)]
    return list({str(given): given for given in found}.values())


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

    def extend(self, *given, **more):
        self.word_by_word += 1
        return super().extend(*given, **more)

    def fill(self, *given, **more):
        self.all_at_once += 1
        return super().fill(*given, **more)

    def row(self, *given, **more):
        self.all_at_once += 1
        return super().row(*given, **more)
