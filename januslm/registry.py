"""A folder is the registry: the file name is the name used in a run file."""

import ast
import importlib
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
        raise Refused(f"no {name!r} in {package.rpartition('.')[2]}/{suggest(name, known)}")


def find(package: str, name: str) -> ModuleType:
    """Import one plug-in by its file name; raises Refused with the names there are."""
    check(package, name)
    return importlib.import_module(f"{package}.{name}")


def constant(package: str, plugin: str, name: str) -> Any:
    """A number, text or truth value that a plug-in's file sets, read without importing it.

    So a run file is checked in no time, where the plug-in itself would import torch.
    """
    check(package, plugin)
    folder = Path(next(iter(importlib.import_module(package).__path__)))
    for node in ast.parse((folder / f"{plugin}.py").read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == name:
            return ast.literal_eval(node.value)
    raise AssertionError(f"{package}.{plugin} sets no {name}")


def options(function: Callable, given: Mapping, where: str) -> dict:
    """The keyword-only arguments of a plug-in, checked by name and type like any key of a run file.

    A plug-in's options are its function's own keyword-only arguments; their defaults are the
    defaults.  An annotation `Annotated[float, Allowed(above=0)]` adds a range.  Returns all
    options, the given ones in place of the defaults.
    """
    hints = typing.get_type_hints(function, include_extras=True)
    columns = []
    for p in inspect.signature(function).parameters.values():
        if p.kind is not p.KEYWORD_ONLY:
            continue
        extra = getattr(hints[p.name], "__metadata__", ())
        metadata = {"allowed": extra[0]} if extra else {}
        want = typing.get_args(hints[p.name])[0] if extra else hints[p.name]
        if p.default is p.empty:
            columns.append((p.name, want, field(metadata=metadata)))
        else:
            columns.append((p.name, want, field(default=p.default, metadata=metadata)))
    kind = make_dataclass("Options", columns, frozen=True, kw_only=True)
    return plain(build(kind, given, where))
