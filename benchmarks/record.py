"""One measurement, with what it was measured on: benchmarks/results/NAME.json."""

import json
import os
import platform
import subprocess
import sys
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

FOLDER = Path(__file__).resolve().parent / "results"
PACKAGES = (
    "torch",
    "numpy",
    "deepspeed",
    "transformers",
    "datasets",
    "tokenizers",
    "ctranslate2",
)


def record(name: str, results: dict, folder: Path = FOLDER) -> Path:
    """Write the results with date, command, machine, commit and versions; returns the path."""
    folder.mkdir(exist_ok=True)
    path = folder / f"{name}.json"
    document = {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": f"python -m benchmarks.{Path(sys.argv[0]).stem} {_words(sys.argv[1:])}".rstrip(),
        "machine": _machine(),
        "commit": _commit(),
        "versions": {p: v for p in PACKAGES if (v := _version(p))},
        "results": results,
    }
    path.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    return path


def _words(given: list[str]) -> str:
    """As they were typed; of a path from the root, a place on this machine, the last name."""
    return " ".join(Path(word).name if Path(word).is_absolute() else word for word in given)


def _machine() -> dict:
    names = [
        line.partition(":")[2].strip()
        for line in _lines("/proc/cpuinfo")
        if line.startswith("model name")
    ]
    memory = [line.split()[1] for line in _lines("/proc/meminfo") if line.startswith("MemTotal")]
    return {
        "system": platform.platform(),
        "python": platform.python_version(),
        "processor": names[0] if names else platform.processor(),
        "cores": os.cpu_count(),
        "memory_gib": round(int(memory[0]) / 2**20, 1) if memory else None,
        "load": os.getloadavg()[0],
    }


def _lines(path: str) -> list[str]:
    return Path(path).read_text().splitlines() if Path(path).exists() else []


def _commit() -> str:
    found = subprocess.run(
        ["git", "describe", "--always", "--dirty", "--abbrev=12"],
        cwd=FOLDER.parent,
        capture_output=True,
        text=True,
    )
    return found.stdout.strip() or "none yet"


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
