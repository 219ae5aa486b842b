"""The plan of the house: nobody imports upwards, nobody grows without end."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = ("januslm", "pretrain", "finetune", "data_tools", "benchmarks")
ENTRY = FOLDERS[1:]

# From the ground up.  A file imports from lower lines; plug-ins of a folder may from each other.
FLOORS = (
    {"config"},
    {"folder", "log", "board", "ahead", "machine"},
    {"layout", "noise", "dropout", "tokenizer", "shards", "sampler", "schedule", "spread", "rundir"}
    | {"significance"},
    {"attention", "positions", "losses", "cache", "prepacked"},
    {"packing", "objectives", "metrics"},
    {"model"},
    {"learner", "reading", "interop", "decoding"},
    {"work", "checkpoint", "graphs"},
    {"universal"},
    {"engine"},
    {"train"},
    {"start"},
)
DATA_TOOLS_MAY = {"config", "folder", "log", "tokenizer", "shards", "sampler", "noise"}
LINES, FUNCTION = 300, 60
VAGUE = {"utils", "util", "common", "helpers", "helper", "misc", "manager"}


def sources() -> list[Path]:
    return sorted(p for folder in FOLDERS for p in (ROOT / folder).rglob("*.py"))


def shown(path: Path) -> str:
    return str(path.relative_to(ROOT))


EVERY = pytest.mark.parametrize("path", sources(), ids=shown)


def module(path: Path) -> str:
    """The dotted name; a package goes by its own name."""
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


KNOWN = {module(path) for path in sources()}


def imports(path: Path) -> set[str]:
    """Modules a file imports, wherever in it; relative imports count as a name of their own."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = "." * node.level + (node.module or "")
            parts = {f"{base}.{alias.name}" for alias in node.names}
            found |= {part if part in KNOWN else base for part in parts}
    return found


def floor(name: str) -> int:
    """Which floor a module is on; entry points are above all."""
    folder, *rest = name.split(".")
    if folder in ENTRY or rest[-1:] == ["__main__"]:
        return len(FLOORS)
    homes = [number for number, names in enumerate(FLOORS) if rest and rest[0] in names]
    assert len(homes) == 1, f"{name} needs one floor in FLOORS, it has {len(homes)}"
    return homes[0]


def plugins(name: str) -> str | None:
    """The folder of plug-ins that a module of the core belongs to."""
    parts = name.split(".")
    package = ".".join(parts[:2])
    return package if (ROOT / package.replace(".", "/")).is_dir() else None


def upward(path: Path) -> list[str]:
    own = module(path)
    if own == "januslm":
        return sorted(i for i in imports(path) if i.split(".")[0] in FOLDERS)
    wrong = []
    for other in imports(path):
        folder = other.split(".")[0]
        if folder not in FOLDERS or other == "januslm":
            continue
        if own.split(".")[0] in ENTRY:
            if folder in ENTRY and folder != own.split(".")[0]:
                wrong.append(other)
        elif folder in ENTRY or (
            floor(other) >= floor(own) and (not plugins(own) or plugins(own) != plugins(other))
        ):
            wrong.append(other)
    return wrong


@EVERY
def test_nobody_imports_upwards_or_across(path):
    assert not upward(path)


def test_every_floor_is_inhabited():
    core = {p.relative_to(ROOT / "januslm").parts[0].removesuffix(".py") for p in sources()
            if p.is_relative_to(ROOT / "januslm")}  # fmt: skip
    named = [name for names in FLOORS for name in names]
    assert sorted(named) == sorted(core - {"__init__"})


def test_the_tools_for_data_need_no_model():
    for path in (ROOT / "data_tools").rglob("*.py"):
        core = {i.split(".")[1] for i in imports(path) if i.startswith("januslm.")}
        assert core <= DATA_TOOLS_MAY, f"{shown(path)} imports {core - DATA_TOOLS_MAY}"
        assert "torch" not in {i.split(".")[0] for i in imports(path)}, shown(path)


def test_the_ground_floor_is_standard_library():
    import sys

    outside = {i.split(".")[0] for i in imports(ROOT / "januslm" / "config.py")}
    assert outside <= sys.stdlib_module_names


def test_deepspeed_is_imported_in_engine_alone():
    users = {shown(p) for p in sources() if any(i.startswith("deepspeed") for i in imports(p))}
    assert users == {"januslm/engine.py"}


@EVERY
def test_the_core_neither_prints_nor_parses_arguments(path):
    if not path.is_relative_to(ROOT / "januslm") or path.name == "__main__.py":
        return
    tree = ast.parse(path.read_text(encoding="utf-8"))
    calls = {n.func.id for n in ast.walk(tree)
             if isinstance(n, ast.Call) and isinstance(n.func, ast.Name)}  # fmt: skip
    assert "argparse" not in imports(path)
    assert path.name == "log.py" or "print" not in calls


@EVERY
def test_files_and_functions_end(path):
    text = path.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= LINES
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            size = node.end_lineno - node.lineno + 1
            assert size <= FUNCTION, f"{node.name} has {size} lines"


@EVERY
def test_files_say_in_a_sentence_what_they_are(path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    assert not tree.body or ast.get_docstring(tree), "no docstring"


@EVERY
def test_no_name_is_vague(path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    classes = {n.name.lower() for n in ast.walk(tree) if isinstance(n, ast.ClassDef)}
    functions = {n.name for n in ast.walk(tree) if isinstance(n, ast.FunctionDef)}
    assert not VAGUE & set(module(path).split("."))
    assert not [c for c in classes for word in VAGUE if c.endswith(word)]
    assert not [n for n in functions if n.startswith("get_") or n.endswith("_v2")]


def test_an_import_upwards_is_noticed(tmp_path, monkeypatch):
    monkeypatch.setitem(globals(), "ROOT", tmp_path)
    core = tmp_path / "januslm"
    core.mkdir()
    for text, wrong in {
        "from januslm.model import Seq2Seq": ["januslm.model"],
        "from januslm import engine": ["januslm.engine"],
        "def f():\n    import finetune.pairs": ["finetune.pairs"],
        "from januslm.config import Refused\nimport numpy": [],
    }.items():
        (core / "layout.py").write_text(text)
        assert upward(core / "layout.py") == wrong
