"""A folder is the registry: the file name is the name used in a run file."""

import ast
import copy
import importlib
import importlib.util
import inspect
import pkgutil
import typing
from collections.abc import Callable, Mapping
from dataclasses import field, make_dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from januslm.config import Refused, build, plain, suggest


def names(package: str) -> list[str]:
    """Every plug-in of a package: names("januslm.objectives") -> ["ar", "cmlm", ...]."""
    path = importlib.import_module(package).__path__
    return sorted(m.name for m in pkgutil.iter_modules(path) if not m.name.startswith("_"))


def check(package: str, name: str) -> None:
    """Refused, with the names there are, for a plug-in that is not there; nothing is imported."""
    known = names(package)
    if name not in known:
        name = name if isinstance(name, str) else repr(name)  # of a run file, where it may be 3
        raise Refused(f"no {name!r} in {package.rpartition('.')[2]}/{suggest(name, known)}")


def find(package: str, name: str) -> ModuleType:
    """Import one plug-in by its file name; raises Refused with the names there are."""
    check(package, name)
    return importlib.import_module(f"{package}.{name}")


def constant(package: str, plugin: str, name: str, default: Any = None) -> Any:
    """A literal that a plug-in's file sets, read without importing it; `default` where it does not.

    So a run file is checked in no time, where the plug-in itself would import torch.
    """
    check(package, plugin)
    folder = Path(next(iter(importlib.import_module(package).__path__)))
    for node in ast.parse((folder / f"{plugin}.py").read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == name:
            return ast.literal_eval(node.value)
    return default


def declared(package: str, name: str, function: str) -> inspect.Signature:
    """The keyword-only arguments of a plug-in's function, read from its source.

    The plug-in is not imported, nor what it imports, but for the names that annotations and
    defaults use: options are checked before torch is there.  Raises Refused like `find`.
    """
    check(package, name)
    spec = importlib.util.find_spec(f"{package}.{name}")
    tree = ast.parse(Path(typing.cast(str, spec and spec.origin)).read_bytes())
    names_of = _Names(tree, package)
    found = [n for n in tree.body if isinstance(n, ast.FunctionDef) and n.name == function]
    try:
        [definition] = found
        asked = definition.args
        options = [
            inspect.Parameter(
                one.arg,
                inspect.Parameter.KEYWORD_ONLY,
                default=names_of.value(usual),
                annotation=names_of.value(one.annotation),
            )
            for one, usual in zip(asked.kwonlyargs, asked.kw_defaults, strict=True)
        ]
        return inspect.Signature(options)
    except (ValueError, NameError):  # made in a way that only running the file can tell
        return inspect.signature(getattr(find(package, name), function), eval_str=True)


class _Names(dict):
    """The names of a file, each made when it is asked for: by an import or an assignment."""

    def __init__(self, tree: ast.Module, package: str):
        super().__init__()
        self._around = {"__package__": package}  # for relative imports
        self._made: dict[str, ast.stmt] = {}
        for node in tree.body:
            if isinstance(node, ast.Import | ast.ImportFrom):
                for alias in node.names:
                    alone = copy.copy(node)
                    alone.names = [alias]
                    self._made[alias.asname or alias.name.partition(".")[0]] = alone
            elif isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
                self._made[node.targets[0].id] = node

    def value(self, expression: ast.expr | None) -> Any:
        """What an expression of the file means; NameError where the file has to be run for it."""
        if expression is None:
            return inspect.Parameter.empty
        return eval(compile(ast.Expression(expression), "option", "eval"), self._around, self)

    def __missing__(self, name: str) -> Any:
        if name not in self._made:
            raise KeyError(name)
        exec(compile(ast.Module([self._made[name]], []), "option", "exec"), self._around, self)
        return self[name]


def options(of: Callable | inspect.Signature, given: Mapping, where: str) -> dict:
    """The keyword-only arguments of a plug-in, checked by name and type like any key of a run file.

    of: a plug-in's function, or its signature as `declared` reads it.  Its options are its own
    keyword-only arguments; their defaults are the defaults.  An annotation
    `Annotated[float, Allowed(above=0)]` adds a range.  Returns all options, the given ones in
    place of the defaults.
    """
    signature = of if isinstance(of, inspect.Signature) else inspect.signature(of, eval_str=True)
    columns = []
    for p in signature.parameters.values():
        if p.kind is not p.KEYWORD_ONLY:
            continue
        assert p.annotation is not p.empty, f"{where}: option {p.name} has no type"
        extra = getattr(p.annotation, "__metadata__", ())
        metadata = {"allowed": extra[0]} if extra else {}
        want = typing.get_args(p.annotation)[0] if extra else p.annotation
        if p.default is p.empty:
            columns.append((p.name, want, field(metadata=metadata)))
        else:
            columns.append((p.name, want, field(default=p.default, metadata=metadata)))
    kind = make_dataclass("Options", columns, frozen=True, kw_only=True)
    return plain(build(kind, given, where))
