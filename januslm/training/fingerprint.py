"""What must be the same on every rank of a run, and how two of them differ: without torch."""

import functools
import json
import platform
from collections.abc import Iterator, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import xxhash

from januslm import registry
from januslm.cli.paths import ROOT, SPREADS, shipped
from januslm.training.ds_config import read

PACKAGES = ("januslm", "pretrain", "finetune", "data_tools")  # what a rank may import of ours
VERSIONS = ("torch", "deepspeed", "numpy", "tokenizers")


def fingerprint(about: Mapping[str, Any], tokenizer: str, ds: str) -> dict:
    """Nested plain tables: code, versions, the resolved run, its tokenizer, its DeepSpeed JSON.

    about: what config.json says of the run.  tokenizer: its sha256.  ds: a file of ds_configs/,
    "" for the usual one of the machine.
    """
    return {
        "code": code(),
        "versions": {"python": platform.python_version()} | {n: _version(n) for n in VERSIONS},
        "tokenizer": tokenizer,
        "ds_config": read(shipped(ds, SPREADS)) if ds else {},
        "run": json.loads(json.dumps(about)),
    }


@functools.cache
def code() -> str:
    """januslm's version, and a hash of all Python files that a run may import, plug-ins too."""
    state = xxhash.xxh3_128()
    for folder in (*(ROOT / package for package in PACKAGES), *map(Path, registry.extended())):
        for path in sorted(folder.rglob("*.py")):
            state.update(str(path.relative_to(folder.parent)).encode() + b"\0")
            state.update(path.read_bytes())
    return f"{_version('januslm')} {state.hexdigest()}"


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def differences(one: Any, other: Any, key: str = "") -> Iterator[tuple[str, Any, Any]]:
    """The dotted keys in which two fingerprints differ, each with both values."""
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        for name in sorted(one.keys() | other.keys()):
            inside = f"{key}.{name}" if key else name
            yield from differences(one.get(name), other.get(name), inside)
    elif one != other:
        yield key, one, other
