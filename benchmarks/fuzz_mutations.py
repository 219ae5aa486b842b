"""Ways to spoil an input: a table's values and keys, a text, a file's bytes, a command's words."""

import copy
import json
import shutil
import tomllib
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from random import Random
from typing import Any

import xxhash

DEEP = 3000  # nested lists: more than a parser's recursion goes
LONG = "9" * 5000  # digits: more than Python makes a number of
NUMBERS = [0, 1, -1, 2, 3, 5, 255, 1024, 2**16, 2**31 - 1, 2**31, 2**32, 2**40, 2**53 + 1]
NUMBERS += [2**63 - 1, 2**63, 2**64, 2**70, 10**400, -(2**31), -(2**63), -(2**70)]
FLOATS = [0.0, -0.0, 0.5, 1.0, -1.0, 1.5, 1e-320, 1e-8, 1e17, 1e308, -1e308]
FLOATS += [float("nan"), float("inf"), -float("inf")]
TEXTS = ["", " ", "a", ".", "..", "/", "~", "-", "--help", "../..", "a/../b", "none", "janus"]
TEXTS += ["ar", "a\0b", "line\nfeed", "\r\n", "\x1b[31m", "ünïcödé", "\U0001f600", "\ufeff", "%s"]
TEXTS += ["$(id)", "`id`", "{task}", "{0}", "'; --", "x" * 5000, "true", "1", "utf-8", "undefined"]
TEXTS += ["plain.txt", "corpus", "model", "data", "*", "**", "[", "a=b", "idna", "rot13", "hex"]
OTHERS: list[Any] = [True, False, [], [[]], [1, "a"], [0.5], ["a"], {}, {"a": {}}, {"name": 3}]
OTHERS += [date(1979, 5, 27), [None], {"": 0}]
WORDS = ["", "-", "--", "--help", "--bogus", "-1", "0", "1", "2", "1.5", "nan", "many", "99999"]
WORDS += ["100000", str(2**70), "a=b", "=", "=1", "a=", "a.b.c=1", '"=1', "..", "/", "\t", "ä"]
WORDS += ["x" * 300, "none", "text", "tokenizer.json", "model", "pre.toml", "line\nfeed", "*", "{}"]


def value(rng: Random, instead_of: Any = None) -> Any:
    """Something else than a value, most often of a like type."""
    if isinstance(instead_of, int | float) and not isinstance(instead_of, bool):
        if rng.random() < 0.2:
            return instead_of * rng.choice([-1, 2, 10, 1000, 10**9])
        if rng.random() < 0.75:
            return rng.choice([*NUMBERS, *FLOATS])
    if isinstance(instead_of, str) and instead_of and rng.random() < 0.4:
        at = rng.randrange(len(instead_of))
        return rng.choice([instead_of[:at], instead_of[:at] + "x" + instead_of[at:], "\0"])
    return rng.choice(rng.choice([NUMBERS, FLOATS, TEXTS, OTHERS]))


def places(tree: Any) -> Iterator[tuple[Any, Any]]:
    """(container, key) of everything in nested tables and lists."""
    for key in tree if isinstance(tree, dict) else range(len(tree)):
        yield tree, key
        if isinstance(tree[key], dict | list):
            yield from places(tree[key])


def spoiled(tree: Any, rng: Random) -> Any:
    """A copy of nested tables with one to three things changed."""
    tree = copy.deepcopy(tree)
    for _ in range(rng.choice([1, 1, 1, 2, 3])):
        found = list(places(tree))
        if not found:
            break
        holder, key = rng.choice(found)
        old = holder[key]
        match rng.randrange(10):
            case 0:
                del holder[key]
            case 1 if isinstance(holder, dict):
                name = str(key)
                holder[rng.choice([name + "s", name.upper(), name[:-1], *TEXTS])] = holder.pop(key)
            case 2:
                holder[key] = rng.choice([[old], {key: old}, [old, old], {"name": old}])
            case 3:
                other, name = rng.choice(found)
                if name in other if isinstance(other, dict) else name < len(other):
                    holder[key] = copy.deepcopy(other[name])
            case 4 if isinstance(holder, dict):
                holder[rng.choice(TEXTS)] = value(rng)
            case _:
                holder[key] = value(rng, old)
    return tree


def toml(table: dict) -> str:
    """Tables as TOML, each on a line of its own."""
    return "".join(f"{_quoted(str(key))} = {toml_value(value)}\n" for key, value in table.items())


def toml_value(value: Any) -> str:
    """One value as TOML writes it; what TOML has no word for, as JSON's null."""
    if isinstance(value, bool) or value is None:
        return json.dumps(value)
    if isinstance(value, dict):
        inside = (f"{_quoted(str(key))} = {toml_value(one)}" for key, one in value.items())
        return "{ " + ", ".join(inside) + " }"
    if isinstance(value, list):
        return "[" + ", ".join(map(toml_value, value)) + "]"
    return _quoted(value) if isinstance(value, str) else str(value)


def _quoted(text: str) -> str:
    plain = (c if c.isprintable() and c not in '"\\' else f"\\U{ord(c):08x}" for c in text)
    return '"' + "".join(plain) + '"'


def text(whole: str, rng: Random) -> str:
    """A text with a line gone, doubled, cut or mangled."""
    lines = whole.splitlines(keepends=True) or [""]
    at = rng.randrange(len(lines))
    match rng.randrange(7):
        case 0:
            del lines[at]
        case 1:
            lines.insert(at, lines[at])
        case 2:
            lines[at] = lines[at][: rng.randrange(len(lines[at]) + 1)]
        case 3:
            lines.insert(at, rng.choice(TEXTS) + "\n")
        case 4:
            key, equals, _ = lines[at].partition("=")
            deep = "[" * DEEP + "]" * DEEP
            lines[at] = f"{key}{equals} {rng.choice([LONG, deep, 'nan', '1979-05-27', '[1'])}\n"
        case 5:
            return "".join(lines[:at])
        case _:
            rng.shuffle(lines)
    return "".join(lines)


def spoil_file(path: Path, others: list[Path], rng: Random) -> str:
    """Damage one file, structure or bytes; what was done, in words."""
    if rng.random() < 0.7 and _structure(path, rng):
        return f"changed {path.name}"
    raw = bytearray(path.read_bytes())
    match rng.randrange(8):
        case 0:
            path.unlink()
            return f"deleted {path.name}"
        case 1:
            path.unlink()
            path.mkdir()
            return f"{path.name} is a folder"
        case 2:
            if (other := rng.choice(others)) != path:
                shutil.copyfile(other, path)
            return f"{path.name} is {other.name}"
        case 3:
            path.write_bytes(b"")
            return f"emptied {path.name}"
        case 4:
            path.write_bytes(raw[: rng.randrange(len(raw) + 1)])
            return f"cut {path.name}"
        case 5:
            path.write_bytes(raw + rng.randbytes(rng.choice([1, 8, 100])))
            return f"lengthened {path.name}"
        case _:
            if raw:
                at = rng.randrange(len(raw) * 8)
                raw[at // 8] ^= 1 << at % 8
                path.write_bytes(raw)
            return f"flipped a bit of {path.name}"


def _structure(path: Path, rng: Random) -> bool:
    """Change what a file of text says, its own hash made to fit; False where it is no such file."""
    if path.suffix == ".safetensors":
        return _header(path, rng)
    try:
        whole = path.read_text(encoding="utf-8")
        if rng.random() < 0.2 or path.suffix not in (".toml", ".json", ".jsonl"):
            changed = text(whole, rng)
        elif path.suffix == ".toml":
            changed = toml(spoiled(tomllib.loads(whole), rng))
        elif path.suffix == ".json":
            changed = json.dumps(resealed(spoiled(json.loads(whole), rng)), default=str)
        else:
            lines = whole.splitlines()
            at = rng.randrange(len(lines))
            table = resealed(spoiled(json.loads(lines[at]), rng))
            lines[at] = json.dumps(table, default=str)
            changed = "\n".join(lines) + "\n"
    except (ValueError, OSError):
        return False
    path.write_text(changed, encoding="utf-8", errors="surrogateescape")
    return True


def _header(path: Path, rng: Random) -> bool:
    """Change what a safetensors file says of its tensors, and leave their bytes."""
    raw = path.read_bytes()
    size = int.from_bytes(raw[:8], "little")
    header = json.dumps(spoiled(json.loads(raw[8 : 8 + size]), rng), default=str).encode()
    path.write_bytes(len(header).to_bytes(8, "little") + header + raw[8 + size :])
    return True


def resealed(table: Any) -> Any:
    """A sealed table (januslm/data/sealed.py) with the hash of what it holds now."""
    if not isinstance(table, dict) or "xxh3" not in table:
        return table
    rest = json.loads(json.dumps({k: v for k, v in table.items() if k != "xxh3"}, default=str))
    plain = json.dumps(rest, sort_keys=True)
    return rest | {"xxh3": xxhash.xxh3_64_hexdigest(plain.encode())}


def change(table: dict, rng: Random) -> str:
    """A key=value that some key of a file may get on the command line."""
    dotted = list(_dotted(table))
    key, old = rng.choice(dotted)
    if rng.random() < 0.15:
        key = rng.choice([key + ".x", key[:-1], key.upper(), "", ".", "a b", '"', "model.zz"])
    new = value(rng, old)
    kind = rng.random()
    shown = toml_value(new) if kind < 0.6 else str(new) if kind < 0.9 else rng.choice(WORDS)
    return f"{key}{rng.choice(['=', '=', '=', '=', ' = ', ''])}{shown}".replace("\0", "")


def _dotted(table: dict, before: str = "") -> Iterator[tuple[str, Any]]:
    for name, one in table.items():
        quoted = f'"{name}"' if "." in name or "/" in name else name
        yield f"{before}{quoted}", one
        if isinstance(one, dict):
            yield from _dotted(one, f"{before}{quoted}.")


def words(given: list[str], extra: list[str], rng: Random) -> list[str]:
    """A command's words with one replaced, left out, doubled or added."""
    given = list(given)
    at = rng.randrange(len(given)) if given else 0
    match rng.randrange(6):
        case 0 if given:
            given[at] = rng.choice(WORDS)
        case 1 if given:
            del given[at]
        case 2 if given:
            given.insert(at, given[at])
        case 3 if given:
            word = given[at]
            cut = rng.randrange(len(word) + 1)
            given[at] = word[:cut] + rng.choice(["x", "=", "/", "", "-", "9"]) + word[cut:]
        case _:
            option = rng.choice(extra or WORDS)
            given += [option] if rng.random() < 0.4 else [option, rng.choice(WORDS)]
    return given
