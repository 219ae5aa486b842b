"""What a user gets: texts from `generate` on a whole split, scores from `evaluate`.

The commands run as processes of their own: what is timed elsewhere must write these texts.
"""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from januslm.config import Refused

ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Way:
    """A row of the table: an algorithm of januslm/decoding and what it is asked for."""

    name: str
    algorithm: str
    options: dict = field(default_factory=dict)


@dataclass(frozen=True)
class Written:
    """What `generate` wrote in one way, in the order of the split."""

    sources: list[str]
    predictions: list[str]
    references: list[list[str]]
    facts: dict  # settings, tokens, passes, truncated, verified: see finetune/generate.py


def write(run: str, way: Way, folder: Path, where: Sequence[str], gpu: bool) -> Written:
    """Texts of one way.  where: further arguments of `generate`.  Raises Refused as it does."""
    file = folder / f"{way.name.replace(' ', '-').replace(',', '')}.jsonl"
    options = [f"{key}={json.dumps(value)}" for key, value in way.options.items()]
    words = [run, "--algorithm", way.algorithm, *options, *where, "--out", str(file)]
    if way.algorithm in ("speculative", "draft"):
        words.append("--verify")
    _called("finetune.generate", words, gpu, allowed=(0, 1))  # 1: --verify found a difference
    rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    facts = json.loads(file.with_suffix(".json").read_text(encoding="utf-8"))
    facts["file"] = file.name
    columns = ([r[name] for r in rows] for name in ("source", "prediction", "references"))
    return Written(*columns, facts)


def scores(folder: Path, data: Sequence[str]) -> dict[str, dict[str, tuple[float, float | None]]]:
    """File -> column -> score and half of its 95 % interval, in the task's own metrics.

    The official post-processing is used where a task has one.
    """
    _called("finetune.evaluate", [str(folder), "--examples", "0", "--intervals", *data], gpu=False)
    found = json.loads((folder / "scores.json").read_text(encoding="utf-8"))
    assert len(found) == 1, f"predictions of {len(found)} test sets in one folder"
    rows = next(iter(found[0]["modes"].values()))
    return {
        row["file"]: {
            name: (value, row["intervals"].get(name))
            for name, value in row.items()
            if isinstance(value, float) and name != "ms_per_sentence"
        }
        for row in rows.values()
        if "file" in row  # the lead baseline has none
    }


def _called(module: str, words: Sequence[str], gpu: bool, allowed: Sequence[int] = (0,)) -> None:
    """Run a command on one thread; Refused with its own last line where it fails."""
    hidden = {} if gpu else {"CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(
        [sys.executable, "-m", module, *words],
        capture_output=True,
        text=True,
        env=os.environ
        | {
            "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]),
            "OMP_NUM_THREADS": "1",
            **hidden,
        },
    )
    if done.returncode not in allowed:
        said = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        raise Refused(f"{module}: {said[-1].removeprefix('error: ')}")
