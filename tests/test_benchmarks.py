"""Every benchmark starts: a number whose command does not run is no number."""

import json
import math
import subprocess
import sys

import numpy as np
import pytest

from benchmarks import corpus_duplicates
from benchmarks.gpu_step import SETTINGS
from benchmarks.kernel_split import of_trace
from tests.conftest import ROOT

FILES = sorted(path for path in ROOT.glob("benchmarks/*.py") if path.stem != "__init__")
COMMANDS = [path.stem for path in FILES if "__main__" in path.read_text(encoding="utf-8")]


@pytest.mark.slow
def test_every_file_finds_what_it_imports():
    code = "".join(f"import benchmarks.{path.stem}\n" for path in FILES)
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help(name):
    command = [sys.executable, "-m", f"benchmarks.{name}", "--help"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("usage: ")


@pytest.mark.long
@pytest.mark.slow
def test_an_update_is_timed_and_its_parts_are_all_of_it(tmp_path):
    command = [sys.executable, "-m", "benchmarks.gpu_step", "--size", "tiny", "--tokens", "400"]
    command += ["--device", "cpu", "--rounds", "1", "--limit", "900", "--results", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "gpu_step.json").read_text())["results"]
    settings = found["tiny"]["settings"]
    assert set(settings) == set(SETTINGS)
    for name, row in settings.items():
        assert "failed" not in row, (name, row)
        assert all(math.isfinite(loss) for loss in row["losses"]), name
        assert row["losses"] == pytest.approx(settings["zero0-tf32"]["losses"], rel=0.01), name
        parts, total = row["profile"]["parts"], row["profile"]["seconds"]
        assert sum(parts.values()) == pytest.approx(total, rel=0.03), name
        assert parts["unclassified"] < 0.05 * total, (name, row["profile"]["unclassified"])
        for part in ("attention", "products", "loss", "optimizer"):
            assert parts[part] > 0, (name, part)


def test_a_gpu_instant_counts_once_and_what_runs_beside_a_collective_hides_it():
    def event(cat, name, ts, dur, **args):
        return {"ph": "X", "cat": cat, "name": name, "ts": ts, "dur": dur, "tid": 1, "args": args}

    events = [
        event("user_annotation", "step/update", 0, 100),
        event("user_annotation", "step/data", 0, 10),
        event("user_annotation", "step/loss", 20, 5),
        event("cuda_runtime", "cudaLaunchKernel", 15, 1, correlation=1),
        event("cuda_runtime", "cudaLaunchKernel", 22, 1, correlation=2),
        event("kernel", "nvjet_tst_128x128", 20, 20, correlation=1),
        event("kernel", "nvjet_tst_128x128", 40, 10, correlation=2),
        event("kernel", "ncclDevKernel_AllReduce", 45, 25, correlation=3),
        event("kernel", "never_heard_of_it", 80, 5, correlation=4),
    ]
    parts = of_trace(events, cuda=True)["parts"]
    microseconds = {name: round(value * 1e6, 3) for name, value in parts.items() if value}
    assert microseconds == {
        "data": 10,
        "products": 20,
        "loss": 10,
        "collectives": 20,
        "unclassified": 5,
        "waiting": 35,
    }


def test_the_overlap_of_planted_copies_is_the_true_one_and_the_nearest_is_found():
    rng = np.random.default_rng(0)
    texts = [" ".join(map(str, rng.integers(0, 999, rng.integers(40, 90)))) for _ in range(30)]
    planted = corpus_duplicates.plant(texts, 12, rng)
    assert len(planted) == 12

    def grams(text: str) -> set[tuple[str, ...]]:
        words = text.split()
        return {tuple(words[i : i + 5]) for i in range(len(words) - 4)}

    def overlap(one: str, other: str) -> float:
        return len(grams(one) & grams(other)) / len(grams(one) | grams(other))

    for one in planted:
        assert one.overlap == overlap(one.original, one.copy)
        assert 0.8 <= one.overlap < 1
        assert one.original in texts
    every = [*texts, *(one.copy for one in planted)]
    wanted = [max(overlap(a, b) for b in every if b is not a) for a in every]
    assert corpus_duplicates.nearest(every).tolist() == wanted
    kept = {*texts, planted[0].copy}
    judged = corpus_duplicates.judged(every, kept - {texts[0]}, planted)
    missed = sum({one.original, one.copy} <= kept - {texts[0]} for one in planted)
    assert judged["recall"] == 1 - missed / 12
    nearest = dict(zip(every, wanted, strict=True))
    assert judged["false_removals"]["below 0.8"]["removed"] == int(nearest[texts[0]] < 0.8)
