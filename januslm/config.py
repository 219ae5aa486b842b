"""A run is one TOML file; `key=value` on the command line changes it; nothing else does."""

import dataclasses
import difflib
import json
import math
import tomllib
import types
import typing
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

EXAMPLE = "optimizer.lr=1e-4"
MOST = 2**63 - 1  # of a whole number: what torch, numpy and files have room for
# of one with a range, unless that says more: steps, sizes; 2**32 times a seed is one of torch's
COUNT = 2**31 - 1


class Refused(ValueError):
    """A user's mistake: entry points print its one line and exit with code 2, no traceback."""


@dataclass(frozen=True)
class Allowed:
    """What a value may be; both ends belong to the range unless they are named `above`, `below`."""

    low: float | None = None
    high: float | None = None
    above: float | None = None
    below: float | None = None

    def admits(self, value) -> bool:
        """Whether one value, or each of a list, lies in the range."""
        if isinstance(value, list | tuple):
            return all(self.admits(one) for one in value)
        return (
            (self.low is None or value >= self.low)
            and (self.high is None or value <= self.high)
            and (self.above is None or value > self.above)
            and (self.below is None or value < self.below)
        )

    def __str__(self) -> str:
        ends = [
            (self.low, "at least"),
            (self.above, "more than"),
            (self.high, "at most"),
            (self.below, "less than"),
        ]
        return " and ".join(f"{word} {end:g}" for end, word in ends if end is not None)


def setting(default=dataclasses.MISSING, **ends):
    """A field with a range: `width: int = setting(512, low=8)`, `lr: float = setting(above=0)`."""
    metadata = {"allowed": Allowed(**ends)}
    if isinstance(default, list | dict):
        return field(default_factory=lambda: type(default)(default), metadata=metadata)
    return field(default=default, metadata=metadata)


def json_table(path: str | Path) -> dict:
    """The one table of a JSON file; Refused where it cannot be read or holds something else."""
    try:
        found = json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise Refused(f"{path}: cannot be read ({error.strerror})") from None
    except (ValueError, RecursionError) as error:
        raise Refused(f"{path}: not a JSON file: {error}") from None
    if not isinstance(found, dict):
        raise Refused(f"{path}: must be one table, got {found!r:.40}")
    return found


def load(kind: type, path: str | Path, changes: Iterable[str] = ()):
    """Read a run file into the dataclass `kind`, apply `a.b=value` changes, check every key.

    Raises Refused, naming the file and the key, for anything that is not as `kind` says.
    """
    return build(kind, tree(path, changes), str(path))


def tree(path: str | Path, changes: Iterable[str] = ()) -> dict:
    """The tables of a run file with `a.b=value` changes, unchecked; Refused if it is no TOML."""
    path = Path(path)
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise Refused(f"{path}: cannot be read ({error.strerror})") from None
    except (ValueError, RecursionError) as error:
        raise Refused(f"{path}: not a TOML file: {error}") from None
    for change in changes:
        apply(tables, change)
    return tables


def over(tables: Mapping, usual: Mapping) -> dict:
    """Nested tables: what `tables` says, and what `usual` says where they say nothing."""
    merged = dict(usual)
    for key, value in tables.items():
        both = isinstance(value, Mapping) and isinstance(merged.get(key), Mapping)
        merged[key] = over(value, merged[key]) if both else value
    return merged


def assignments(given: Iterable[str], example: str = EXAMPLE) -> dict:
    """`a.b=value` texts as nested tables; Refused, with the example, for what is none."""
    tables: dict = {}
    for change in given:
        apply(tables, change, example)
    return tables


def apply(tree: dict, change: str, example: str = EXAMPLE) -> None:
    """Put one `a.b=value` into nested tables; raises Refused for what is not a change."""
    key, equals, text = change.partition("=")
    if not equals or not key.strip():
        raise Refused(f"{change!r} is not a change: write key=value, e.g. {example}")
    *parents, last = _dotted(key.strip())
    for name in parents:
        tree = tree.setdefault(name, {})
        if not isinstance(tree, dict):
            raise Refused(f"{change!r}: {name!r} is a value, not a table")
    tree[last] = _value(text.strip())


def _dotted(key: str) -> list[str]:
    """Split at dots, but not inside quotes: loss.weights."ce/ar" has three parts."""
    parts, quoted = [""], False
    for letter in key:
        if letter == '"':
            quoted = not quoted
        elif letter == "." and not quoted:
            parts.append("")
        else:
            parts[-1] += letter
    return parts


def _value(text: str):
    try:
        return tomllib.loads(f"x = {text}")["x"]
    except (ValueError, RecursionError):
        return text  # a bare word is a string


def build(kind: type, tree: Mapping, where: str):
    """Make the dataclass `kind` from tables; raises Refused with `where: key: what is wrong`."""
    if not isinstance(tree, Mapping):
        raise Refused(f"{where} must be a table, got {tree!r}")
    known = {f.name: f for f in dataclasses.fields(kind)}
    hints = typing.get_type_hints(kind)
    values = {}
    for key, value in tree.items():
        if key not in known:
            raise Refused(f"{where}: unknown key {key!r}{suggest(key, known)}")
        values[key] = _typed(hints[key], value, f"{where}: {key}")
        allowed = known[key].metadata.get("allowed")
        if allowed and allowed.high is None and _beyond(values[key]):
            raise Refused(f"{where}: {key} must be at most {COUNT}, got {values[key]!r}")
        if allowed and values[key] is not None and not allowed.admits(values[key]):
            raise Refused(f"{where}: {key} must be {allowed}, got {value!r}")
    for f in known.values():
        if f.default is f.default_factory is dataclasses.MISSING and f.name not in values:
            raise Refused(f"{where}: {f.name} is missing")
    try:
        return kind(**values)
    except Refused as error:  # a __post_init__ that compares two keys
        raise Refused(f"{where}: {error}") from None


def _beyond(value) -> bool:
    several = value if isinstance(value, list | tuple) else [value]
    return any(isinstance(one, int) and one > COUNT for one in several)


def suggest(name: str, known: Iterable[str]) -> str:
    """'; there are a, b, c. Did you mean a?', to end a sentence on an unknown name."""
    known = sorted(known)
    close = difflib.get_close_matches(name, known, 1)
    hint = f". Did you mean {close[0]!r}?" if close else ""
    return f"; there are {', '.join(known)}{hint}"


def _typed(want, value, where: str):
    """The value as type `want`, or Refused.  An int is a float where a float is wanted."""
    origin, inside = typing.get_origin(want), typing.get_args(want)
    if origin is typing.Literal:
        if value not in inside:
            raise Refused(f"{where} must be one of {', '.join(map(str, inside))}, got {value!r}")
        return value
    if origin in (types.UnionType, typing.Union):
        if value is None and type(None) in inside:
            return None
        return _typed(next(t for t in inside if t is not type(None)), value, where)
    if dataclasses.is_dataclass(want):
        if dataclasses.is_dataclass(value):
            return value
        if not isinstance(value, Mapping):
            raise Refused(f"{where} must be a table, got {value!r}")
        return build(typing.cast(type, want), value, where)
    if origin in (list, tuple):
        if not isinstance(value, list | tuple):
            raise Refused(f"{where} must be a list, got {value!r}")
        return origin(_typed(inside[0], item, f"{where}[{i}]") for i, item in enumerate(value))
    if origin is dict or want is dict:
        if not isinstance(value, Mapping):
            raise Refused(f"{where} must be a table, got {value!r}")
        if not inside:
            return dict(value)
        return {key: _typed(inside[1], item, f"{where}.{key}") for key, item in value.items()}
    if want is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value) if abs(value) < 2**1023 else math.inf
    if want is int and isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
        value = int(value)  # 1e3
    if want is float and isinstance(value, float) and not math.isfinite(value):
        raise Refused(f"{where} must be a finite number, got {value}")
    if want is int and isinstance(value, int) and abs(value) > MOST:
        raise Refused(f"{where} is a number of {value.bit_length()} bits; 63 is the most")
    if want is str and isinstance(value, str) and "\0" in value:
        raise Refused(f"{where} must be a text without NUL, got {value!r}")
    if isinstance(want, type) and (
        not isinstance(value, want) or (isinstance(value, bool) and want is not bool)
    ):
        raise Refused(f"{where} must be {_TYPE_NAMES.get(want, want.__name__)}, got {value!r}")
    return value


_TYPE_NAMES = {
    int: "a whole number",
    float: "a number",
    str: "a text",
    bool: "true or false",
    dict: "a table",
}


def plain(value):
    """Dataclasses to plain tables, ready for JSON; `build` undoes it."""
    return json.loads(json.dumps(value, default=lambda x: dataclasses.asdict(x)))
