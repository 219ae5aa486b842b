"""Docstrings and documentation of the standard library and the installed packages, not imported."""

import ast
import gc
import importlib.metadata
import os
import platform
import sysconfig
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated

from xxhash import xxh3_64_intdigest

from data_tools.documents import Document, Dropped, Input, Invalid, document
from data_tools.prose import paragraphs
from januslm.config import Allowed, Refused, suggest

STDLIB = "stdlib"
# Tests document nothing, vendored copies repeat other packages under other names.
SKIPPED = {"test", "tests", "testing", "_vendor", "_vendored", "vendored", "third_party"}
SKIPPED |= {"__pycache__", "site-packages", "dist-packages", "idlelib", "lib2to3", "turtledemo"}
PAGES = (".md", ".rst")


@dataclass(frozen=True)
class Package:
    """An importable package: its name, its folder or single file, and its version."""

    name: str
    path: Path
    version: str

    def files(self) -> list[tuple[str, Path]]:
        """Its .py, .md and .rst files as (name, path), in an order that mixes the topics.

        A cap on the package then takes a fair sample rather than what comes first in the alphabet.
        """
        if self.path.is_file():
            return [(self.path.name, self.path)]
        found = []
        for folder, inner, names in os.walk(self.path):
            inner[:] = [name for name in inner if name not in SKIPPED]
            for name in names:
                if name.endswith((".py", *PAGES)):
                    path = Path(folder, name)
                    found.append((path.relative_to(self.path).as_posix(), path))
        return sorted(found, key=lambda one: (xxh3_64_intdigest(one[0].encode()), one[0]))


def inputs(
    root: Path,
    *,
    include: tuple[str, ...] = (),
    exclude: tuple[str, ...] = (),
    minimum_words: Annotated[int, Allowed(low=0)] = 20,
    package_megabytes: Annotated[float, Allowed(low=0)] = 0.0,
    invalid: Invalid = "replace",  # what to do with bytes that are not UTF-8
) -> list[Input]:
    """One input per package; `root` is not used.

    include: names as in `import NAME`, and "stdlib"; all that are installed if empty.  exclude:
    never these.  minimum_words: shorter documents are dropped.  package_megabytes: text to take
    from one package at most, 0 for all of it.
    """
    return [
        Input(
            package.name,
            sum(path.stat().st_size for _, path in package.files()),
            partial(_read, package, minimum_words, int(package_megabytes * 1e6), invalid),
            package.version,
        )
        for package in chosen(include, exclude)
    ]


def chosen(include: Iterable[str], exclude: Iterable[str]) -> list[Package]:
    """The installed packages of these names; raises Refused for one that is not installed."""
    known = installed()
    for name in include:
        if name not in known:
            raise Refused(f"package {name!r} is not installed{suggest(name, known)}")
    return [known[name] for name in sorted(set(include or known) - set(exclude))]


def installed() -> dict[str, Package]:
    """Every importable package by its name, and the standard library as "stdlib"."""
    owners = importlib.metadata.packages_distributions()
    found = {STDLIB: Package(STDLIB, Path(sysconfig.get_path("stdlib")), platform.python_version())}
    for place in {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}:
        for path in sorted(Path(place).iterdir()):
            name = path.stem if path.suffix == ".py" else path.name
            holds_code = path.suffix == ".py" or (path.is_dir() and any(path.rglob("*.py")))
            if name.isidentifier() and holds_code and name not in SKIPPED:
                version = importlib.metadata.version(owners[name][0]) if name in owners else ""
                found[name] = Package(name, path, version)
    return found


def docstrings(path: Path) -> Iterator[tuple[str, str]]:
    """(qualified name, docstring) of a file's module, classes and functions, by parsing alone.

    Raises SyntaxError where the file is not Python.
    """
    source = path.read_bytes()
    if b'"""' not in source and b"'''" not in source:
        return  # parsing is what takes the time
    waiting: list[tuple[str, ast.AST]] = [("", _parsed(source))]
    while waiting:
        name, node = waiting.pop()
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            name = f"{name}.{node.name}".strip(".") if hasattr(node, "name") else name
            text = ast.get_docstring(node, clean=False)
            if text:
                yield name, text
        for field in ("finalbody", "orelse", "handlers", "body"):
            inner = getattr(node, field, None)
            if isinstance(inner, list):
                waiting.extend((name, one) for one in reversed(inner) if hasattr(one, "body"))


def _parsed(source: bytes) -> ast.Module:
    gc.disable()  # a tree is a million small objects without cycles; looking for some takes 25 %
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # other people's invalid escapes
            return ast.parse(source)
    except (ValueError, RecursionError, MemoryError) as error:
        raise SyntaxError(str(error)) from None
    finally:
        gc.enable()


def _read(package: Package, least: int, most: int, invalid: str) -> Iterator[Document | Dropped]:
    taken = 0
    for name, path in package.files():
        if most and taken >= most:
            yield Dropped("files past package_megabytes")
            continue
        for found in _file(package, name, path, invalid):
            if isinstance(found, Document) and found.text:
                if len(found.text.split()) < least:
                    found = Dropped(f"fewer than {least} words of prose")
                else:
                    taken += len(found.text.encode())
            yield found


def _file(package: Package, name: str, path: Path, invalid: str) -> Iterator[Document | Dropped]:
    where = f"{package.name}/{name}"
    try:
        if path.suffix in PAGES:
            texts: list[bytes | str] = [path.read_bytes()]
        else:
            texts = [text for _, text in docstrings(path)]
    except SyntaxError:
        yield Dropped("files that are not valid Python")
        return
    except OSError as error:
        raise Refused(f"{path}: cannot be read ({error.strerror})") from None
    for text in texts:
        found = document(text, package.name, invalid, where)
        if isinstance(found, Document):
            prose = "\n".join(paragraphs(found.text))
            found = Document(prose, package.name, found.repaired)
        yield found
