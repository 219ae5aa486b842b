"""The plan of the house: nobody imports upwards, nobody grows without end."""

import ast
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = ("januslm", "pretrain", "finetune", "data_tools", "benchmarks")
ENTRY = FOLDERS[1:]

# From the ground up: each name is a folder of januslm/, or one of the few files beside them.
# A file imports from its own floor and from lower ones.
FLOORS = (
    {"config", "layout", "registry"},
    {"model", "data", "decoding", "noise", "metrics", "cli"},
    {"objective", "objectives", "interop"},
    {"inference"},
    {"training"},
    {"launch", "runs", "hub"},
)
DOOR = "inference"  # the room that januslm/__init__.py leads to
MODULES = 5  # files that lie in januslm/ itself, at most
DATA_TOOLS_MAY = {"config", "registry", "cli", "data"}
FUNCTION = 60
TALKS = {
    "cli",
    "launch",
    "runs",
    "log.py",
    "status.py",
    "process.py",
    "begin.py",
    "watchdog.py",
}  # folders and files of the core that speak to people
VAGUE = {"utils", "util", "common", "helpers", "helper", "misc", "manager"}


def sources() -> list[Path]:
    return sorted(p for folder in FOLDERS for p in (ROOT / folder).rglob("*.py"))


def shown(path: Path) -> str:
    return str(path.relative_to(ROOT))


def module(path: Path) -> str:
    """The dotted name; a package goes by its own name."""
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


KNOWN = {module(path) for path in sources()}


def imports(path: Path) -> frozenset[str]:
    """Modules a file imports, wherever in it; relative imports count as a name of their own."""
    return imported(path.read_text(encoding="utf-8"))


@cache
def imported(text: str) -> frozenset[str]:
    """The same for the text of a file, which several tests ask about."""
    found = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = "." * node.level + (node.module or "")
            parts = {f"{base}.{alias.name}" for alias in node.names}
            found |= {part if part in KNOWN else base for part in parts}
    return frozenset(found)


def room(name: str) -> str:
    """The folder, or the file beside the folders, that a module of the core belongs to."""
    return name.split(".")[1]


def floor(name: str) -> int:
    """Which floor a module is on; entry points are above all."""
    if name.split(".")[0] in ENTRY:
        return len(FLOORS)
    homes = [number for number, names in enumerate(FLOORS) if room(name) in names]
    assert len(homes) == 1, f"{name} needs one floor in FLOORS, it has {len(homes)}"
    return homes[0]


def upward(path: Path) -> list[str]:
    """Imports that lead to a higher floor, or across: what a file must not do."""
    own, wrong = module(path), []
    for other in imports(path):
        folder = other.split(".")[0]
        if folder not in FOLDERS or other == "januslm":
            continue
        if own == "januslm":  # the door: what `import januslm` offers, once it is asked for
            wrong += [] if room(other) == DOOR else [other]
        elif own.split(".")[0] in ENTRY:
            if folder in ENTRY and folder != own.split(".")[0]:
                wrong.append(other)
        elif folder in ENTRY or floor(other) > floor(own):
            wrong.append(other)
    return sorted(wrong)


def circle(arrows: dict[str, set[str]]) -> list[str]:
    """Names that import each other, however far around; empty if there are none."""
    left = {name: set(others) - {name} for name, others in arrows.items()}
    while free := [name for name, others in left.items() if not others & left.keys()]:
        for name in free:
            del left[name]
    return sorted(left)


def test_nobody_imports_upwards_or_across():
    assert not {shown(path): wrong for path in sources() if (wrong := upward(path))}


def test_no_modules_and_no_rooms_import_each_other_in_a_circle():
    modules = {module(path): imports(path) & KNOWN for path in sources()}
    assert not circle(modules)
    rooms: dict[str, set[str]] = {}
    for name, others in modules.items():
        if name.startswith("januslm."):
            inside = {room(other) for other in others if other.startswith("januslm.")}
            rooms.setdefault(room(name), set()).update(inside)
    assert not circle(rooms)


def test_every_floor_is_inhabited_and_nothing_lies_beside_them():
    core = [
        p.relative_to(ROOT / "januslm").parts
        for p in sources()
        if p.parts[-1] != "__init__.py" and p.is_relative_to(ROOT / "januslm")
    ]
    named = [name for names in FLOORS for name in names]
    assert sorted(named) == sorted({parts[0].removesuffix(".py") for parts in core})
    assert len({parts for parts in core if len(parts) == 1}) <= MODULES


def test_the_tools_for_data_need_no_model():
    for path in (ROOT / "data_tools").rglob("*.py"):
        core = {i.split(".")[1] for i in imports(path) if i.startswith("januslm.")}
        assert core <= DATA_TOOLS_MAY, f"{shown(path)} imports {core - DATA_TOOLS_MAY}"
        assert "torch" not in {i.split(".")[0] for i in imports(path)}, shown(path)


def test_the_ground_floor_is_standard_library():
    import sys

    outside = {i.split(".")[0] for i in imports(ROOT / "januslm" / "config.py")}
    assert outside <= sys.stdlib_module_names


def test_deepspeed_is_imported_in_engine_and_its_hooks_alone():
    users = {shown(p) for p in sources() if any(i.startswith("deepspeed") for i in imports(p))}
    names = ("engine.py", "deepspeed_hooks.py")
    assert users == {f"januslm/training/{name}" for name in names}


def faults(path: Path) -> list[str]:
    """What is wrong with the form of one file."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    found = [] if not tree.body or ast.get_docstring(tree) else ["no docstring"]
    defined = ast.FunctionDef | ast.AsyncFunctionDef
    for node in (n for n in ast.walk(tree) if isinstance(n, defined)):
        if (size := node.end_lineno - node.lineno + 1) > FUNCTION:
            found.append(f"{node.name} has {size} lines")
        if node.name.startswith("get_") or node.name.endswith("_v2"):
            found.append(f"{node.name} is no name of ours")
    classes = {n.name.lower() for n in ast.walk(tree) if isinstance(n, ast.ClassDef)}
    found += [f"{c} is vague" for c in sorted(classes) if c.endswith(tuple(VAGUE))]
    found += [f"{name} is vague" for name in sorted(VAGUE & set(module(path).split(".")))]
    return found + (_talks(path, tree) if path.is_relative_to(ROOT / "januslm") else [])


def _talks(path: Path, tree: ast.Module) -> list[str]:
    """The core neither prints nor parses arguments, but where it is there for that."""
    if path.name == "__main__.py" or path.parent.name in TALKS or path.name in TALKS:
        return []
    calls = [
        n.func.id
        for n in ast.walk(tree)
        if isinstance(n, ast.Call) and isinstance(n.func, ast.Name)
    ]
    found = ["prints"] if "print" in calls else []
    return found + (["parses arguments"] if "argparse" in imports(path) else [])


def test_every_file_keeps_to_the_form():
    assert not {shown(path): found for path in sources() if (found := faults(path))}


def test_an_import_upwards_is_noticed(tmp_path, monkeypatch):
    monkeypatch.setitem(globals(), "ROOT", tmp_path)
    core = tmp_path / "januslm"
    (core / "model").mkdir(parents=True)
    for text, wrong in {
        "from januslm.training.engine import Engine": ["januslm.training.engine"],
        "from januslm import objective": ["januslm.objective"],
        "def f():\n    import finetune.generate": ["finetune.generate"],
        "from januslm.config import Refused\nimport numpy": [],
        "from januslm.model.losses import fused": [],
    }.items():
        (core / "model" / "packing.py").write_text(text)
        assert upward(core / "model" / "packing.py") == wrong


def test_a_circle_is_noticed():
    assert circle({"a": {"b"}, "b": {"c"}, "c": set()}) == []
    assert circle({"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a"}}) == ["a", "b", "c", "d"]
