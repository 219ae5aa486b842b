"""Every key there is: its type, default, range and one sentence, read from the code itself.

  PROGRAM config                     every key of run files, corpus files and ds_configs/
  PROGRAM config finetune.train      those of one table, or one key: finetune.train.batch
  PROGRAM config objective.janus     the options of one plug-in: objective, noise, task, decoding,
                                     metric, source, filter, dedup
  PROGRAM config objective           those of all plug-ins of a kind
  ... --plugins my/                  with those of a folder of your own

A sentence is the comment at the key's line, or of an option `name: ...` in the docstring of the
plug-in's function.  docs/reference.md is the whole of it: PROGRAM config > docs/reference.md
"""

import ast
import dataclasses
import importlib
import inspect
import io
import json
import re
import sys
import textwrap
import tokenize
import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from januslm import registry
from januslm.cli.command import answered, parser
from januslm.config import Allowed, Refused, suggest

WIDTH = 96
FILES = {  # what the files are called here, and the dataclass of their keys
    "pretrain": ("pretrain.settings", "PretrainRun"),
    "finetune": ("finetune.settings", "FinetuneRun"),
    "corpus": ("data_tools.recipe", "Recipe"),
}
SPREAD = "ds"  # files of ds_configs/
ELSEWHERE = "not here"  # the kind of a key that another file says
KINDS = {  # plug-ins: the folder, the function whose options they are
    "objective": ("januslm.objectives", "layout"),
    "noise": ("januslm.noise", "hide"),
    "task": ("finetune.tasks", "configured"),
    "decoding": ("januslm.decoding", "decode"),
    "metric": ("januslm.metrics", "score"),
    "source": ("data_tools.sources", "inputs"),
    "filter": ("data_tools.filters", "of_text"),
    "dedup": ("data_tools.dedup", "deduplicator"),
}
OTHERWISE = {"filter": ("of_tokens", "prepared")}  # of a plug-in that has not the first


@dataclass(frozen=True)
class Key:
    """One key of a file, or one option of a plug-in."""

    name: str
    kind: str  # of value
    default: str  # as it would be written; "": it must be given
    allowed: str
    sentence: str

    def lines(self) -> list[str]:
        """Its two lines or more, for people."""
        given = f"{self.name} = {self.default}" if self.default else f"{self.name}, required"
        if self.kind == ELSEWHERE:
            given = self.name
        kind = ", ".join(part for part in (self.kind, self.allowed) if part)
        first = f"{given:32}  {kind}"
        return [first, *textwrap.wrap(self.sentence, WIDTH - 4, initial_indent=" " * 4,
                                      subsequent_indent=" " * 4)]  # fmt: skip


@dataclass(frozen=True)
class Table:
    """The keys of one table of a file, or the options of one plug-in."""

    name: str  # finetune.train
    about: str
    keys: tuple[Key, ...]

    def lines(self) -> list[str]:
        """As a part of docs/reference.md."""
        body = [line for key in self.keys for line in key.lines()]
        block = ["```", *body, "```"] if body else ["No options."]
        return [f"## {self.name}", self.about, "", *block, ""]


def main() -> int:
    """Exit code 0, or 2 and one line for a name that there is not."""
    known = parser("config", __doc__ or "")
    known.add_argument("name", nargs="?", default="", metavar="NAME", help="finetune.train.batch")
    known.add_argument("--plugins", default="", metavar="DIR", help="a folder of your own")
    options = known.parse_args()

    def command() -> None:
        registry.extend(options.plugins)
        print("\n".join(page() if not options.name else part(options.name)), end="\n")

    return answered(command)


def page() -> list[str]:
    """All of it: docs/reference.md."""
    head = [
        "# Every key",
        "`januslm config` prints this page from the code, `januslm config finetune.train` a part",
        "of it. Keys of run files may stand on the command line too: `train.batch=64`. `-`: no",
        "value unless one is given. The options of plug-ins, yours too, are shown by",
        *(f"`januslm config {kind}`," for kind in KINDS),
        "and those of one by `januslm config objective.janus`.",
        "",
    ]
    tables = tables_of_files()
    return [*head, *(line for table in tables for line in table.lines())][:-1]


def part(name: str) -> list[str]:
    """What there is to say of one name; Refused, with the nearest, for one that there is not."""
    if name in KINDS:
        return [line for table in plugins(name) for line in table.lines()][:-1]
    kind, _, rest = name.partition(".")
    if kind in KINDS:
        package, _ = KINDS[kind]
        plugin, _, option = rest.partition(".")
        registry.check(package, plugin)
        return _of([_plugin(kind, plugin)], f"{kind}.{plugin}" + f".{option}" * bool(option))
    return _of([*tables_of_files()], name)


def _of(tables: Sequence[Table], name: str) -> list[str]:
    """A table, those inside it, or one key of one."""
    inside = [t for t in tables if t.name == name or t.name.startswith(f"{name}.")]
    if inside:
        return [line for table in inside for line in table.lines()][:-1]
    single = {f"{t.name}.{key.name}": (t, key) for t in tables for key in t.keys}
    # A key that is refused is asked for by its own name.
    single |= {n.replace(f"{SPREAD}.refused.", f"{SPREAD}."): at for n, at in single.items()}
    if name in single:
        table, key = single[name]
        return [f"{table.name}: {table.about}", "", *key.lines()]
    ends = sorted(one for one in single if one.endswith(f".{name}"))
    if ends:
        raise Refused(f"no key {name!r} by itself; there is {', '.join(ends)}")
    raise Refused(_nearest({*single, *(t.name for t in tables), *KINDS}, name))


def _nearest(known: set[str], name: str) -> str:
    """What to say of a name that there is not: which there are beside it, and the nearest."""
    parts = name.split(".")
    above, missed = "", parts[0]
    while missed != name and f"{above}{missed}" in known:
        above, missed = f"{above}{missed}.", parts[f"{above}{missed}.".count(".")]
    beside = {one.removeprefix(above).partition(".")[0] for one in known if one.startswith(above)}
    if not beside:
        return f"{above[:-1]} has no keys here; plug-ins have: {', '.join(KINDS)}"
    inside = f" in {above[:-1]}" if above else ""
    return f"no key {missed!r}{inside}{suggest(missed, beside)}"


def tables_of_files() -> Iterator[Table]:
    """Of all files that a user writes."""
    for name, (module, kind) in FILES.items():
        yield from _tables(name, getattr(importlib.import_module(module), kind))
    keys = importlib.import_module("januslm.training.ds_keys")
    yield from _tables(SPREAD, keys.DeepSpeedKeys)
    owned = {name: f"belongs to {of}" for name, of in keys.OWNED.items()}
    refused = (owned | keys.REFUSED).items()
    lines = tuple(Key(name, ELSEWHERE, "", "", why) for name, why in refused)
    yield Table(f"{SPREAD}.refused", "DeepSpeed's keys that are refused, and why.", lines)


def _tables(name: str, kind: type) -> Iterator[Table]:
    """The table of a dataclass, then those of its fields that are dataclasses themselves."""
    hints, comments = typing.get_type_hints(kind), _comments(kind)
    keys: list[Key] = []
    inside: list[tuple[str, type]] = []
    for field in dataclasses.fields(kind):
        want = hints[field.name]
        (nested,) = _nested(want) or (None,)
        if nested:
            inside.append((field.name, nested))
        if field.name in _BY_NAME and want is dict:
            inside.append((field.name, _BY_NAME[field.name]()))
        allowed = field.metadata.get("allowed")
        keys.append(
            Key(
                field.name,
                _kind(want),
                _default(field),
                str(allowed) if allowed else "",
                comments.get(field.name, ""),
            )
        )
    about = (kind.__doc__ or "").partition("\n")[0]
    yield Table(name, about, tuple(_given(name, keys)))
    for inner, nested in inside:
        yield from _tables(f"{name}.{inner}", nested)


def _model() -> type:
    return importlib.import_module("januslm.model.config").ModelConfig


_BY_NAME = {"model": _model}  # tables whose keys depend on what else the file says


def _given(name: str, keys: list[Key]) -> list[Key]:
    """The keys of [model] that a file may say: the tokenizer and the objective say the others."""
    if not name.endswith(".model"):
        return keys
    presets = importlib.import_module("januslm.model.config").PRESETS
    sentence = "sizes and style to start from, in the place of the defaults below"
    first = Key("preset", " | ".join(presets), '"tiny"', "", sentence)
    return [first, *(key for key in keys if key.name not in ("vocabulary", "extra_vectors"))]


def _nested(want: Any) -> list[type]:
    """The dataclass that a type is, or that it is a list of."""
    if dataclasses.is_dataclass(want):
        return [typing.cast(type, want)]
    return [
        one
        for one in typing.get_args(want)
        if isinstance(one, type) and dataclasses.is_dataclass(one)
    ]


def _kind(want: Any) -> str:
    """A type, as a user would say it."""
    origin, inside = typing.get_origin(want), typing.get_args(want)
    if origin is typing.Annotated:
        return _kind(inside[0])
    if origin is typing.Literal:
        return " | ".join(str(one) for one in inside)
    if origin in (types.UnionType, typing.Union):
        return _kind(next(one for one in inside if one is not type(None)))
    if origin in (list, tuple):
        return f"list of {_plural(inside[0])}"
    if origin is dict:
        return f"table of {_plural(inside[1])}"
    if dataclasses.is_dataclass(want) or want is dict:
        return "table"
    return _KINDS.get(want, getattr(want, "__name__", str(want)))


_KINDS = {int: "whole number", float: "number", str: "text", bool: "true or false"}


def _plural(want: Any) -> str:
    return {str: "texts", int: "whole numbers", float: "numbers"}.get(want, "tables")


def _default(field: dataclasses.Field) -> str:
    if field.default_factory is not dataclasses.MISSING:
        made = field.default_factory()
        return "{}" if dataclasses.is_dataclass(made) else _shown(made)
    return "" if field.default is dataclasses.MISSING else _shown(field.default)


def _shown(value: Any) -> str:
    """As it would stand in a file; "-" for what may be left out without a value of its own."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key} = {_shown(one)}" for key, one in value.items()) + "}"
    return "-" if value is None else json.dumps(value)


def _comments(kind: type) -> dict[str, str]:
    """The comments of a dataclass's fields, those of its bases too, by the field's name."""
    found: dict[str, str] = {}
    for base in reversed(kind.__mro__):
        if dataclasses.is_dataclass(base):
            source = textwrap.dedent(inspect.getsource(base))
            [tree] = ast.parse(source).body
            assert isinstance(tree, ast.ClassDef)
            lines = {
                node.target.id: (node.lineno, node.end_lineno or node.lineno)
                for node in tree.body
                if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)
            }
            found |= {k: text for k, at in lines.items() if (text := _comment(source, *at))}
    return found


def _comment(source: str, first: int, last: int) -> str:
    """The comment behind a statement, else the lines of comment right above it."""
    alone, behind = _comments_by_line(source)
    if last in behind:
        return behind[last]
    above: list[str] = []
    while (first := first - 1) in alone:
        above.insert(0, alone[first])
    return " ".join(above)


def _comments_by_line(source: str) -> tuple[dict[int, str], dict[int, str]]:
    """Comments that fill their line, and those behind code."""
    alone: dict[int, str] = {}
    behind: dict[int, str] = {}
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            lines = behind if token.line[: token.start[1]].strip() else alone
            lines[token.start[0]] = token.string.lstrip("# ").strip()
    return alone, behind


def plugins(kind: str) -> list[Table]:
    """The options of all plug-ins of one kind."""
    return [_plugin(kind, name) for name in registry.names(KINDS[kind][0])]


def _plugin(kind: str, name: str) -> Table:
    package, function = KINDS[kind]
    source = registry.source(package, name)
    tree = ast.parse(source)
    functions = {node.name: node for node in tree.body if isinstance(node, ast.FunctionDef)}
    about = (ast.get_docstring(tree) or "").partition("\n")[0]
    there = [one for one in (function, *OTHERWISE.get(kind, ())) if one in functions]
    if not there:
        return Table(f"{kind}.{name}", about, ())
    function = there[0]
    known = registry.declared(package, name, function).parameters
    definition = functions[function]
    sentences = _sentences(ast.get_docstring(definition) or "", known)
    for one in definition.args.kwonlyargs:
        if said := _comment(source, one.lineno, one.end_lineno or one.lineno):
            sentences[one.arg] = said
    keys = tuple(
        _option(parameter, sentences.get(option, "")) for option, parameter in known.items()
    )
    return Table(f"{kind}.{name}", about, keys)


def _option(parameter: inspect.Parameter, sentence: str) -> Key:
    extra = getattr(parameter.annotation, "__metadata__", ())
    allowed = str(extra[0]) if extra and isinstance(extra[0], Allowed) else ""
    default = "" if parameter.default is parameter.empty else _shown(parameter.default)
    return Key(parameter.name, _kind(parameter.annotation), default, allowed, sentence)


def _sentences(text: str, options: Mapping[str, Any]) -> dict[str, str]:
    """`name: what it is` of a docstring, up to the next such or an empty line."""
    if not options:
        return {}
    names = "|".join(map(re.escape, options))
    found = re.findall(
        rf"(?:^|\n|  )({names}):\s(.*?)(?=(?:\n|  )[a-z_]+:\s|\n\n|\Z)", text, re.DOTALL
    )
    return {name: " ".join(said.split()).rstrip(".") for name, said in found}


if __name__ == "__main__":
    sys.exit(main())
