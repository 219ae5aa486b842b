"""What --dry-run says a run will take, against what the run then takes."""

import re

import pytest

from januslm.training.estimate import memory
from januslm.training.manifest import check
from tests.tiny_run import built, started


@pytest.mark.parametrize(
    ("stage", "bf16", "weights", "gradients", "optimizer"),
    [
        (0, False, 4, 4, 8),
        (1, False, 4, 4, 12 / 4),
        (2, False, 4, 1, 12 / 4),
        (0, True, 2, 2, 12),
        (1, True, 2, 2, 12 / 4),
        (2, True, 2, 2 / 4, 12 / 4),
        (3, True, 2 / 4, 2 / 4, 12 / 4),
    ],
)
def test_memory_is_that_of_zeros_table(stage, bf16, weights, gradients, optimizer):
    ds = {"zero_optimization": {"stage": stage}, "bf16": {"enabled": bf16}}
    want = {"weights": weights, "gradients": gradients, "optimizer": optimizer}
    assert memory(1000, ds, 4) == {name: 1000 * each for name, each in want.items()}


def said(place, *words, code=0) -> str:
    done = started(place, *words)
    text, _ = done.communicate(timeout=120)
    assert done.returncode == code, text
    return text


def row(text: str, name: str) -> str:
    return re.search(rf"^{name} +(.*)$", text, re.MULTILINE)[1]


@pytest.mark.slow
def test_a_dry_run_foretells_the_run_and_writes_nothing(tmp_path):
    place = built(tmp_path)
    words = ("pretrain", "run.toml", "train.steps=3", "schedule.warmup=1")
    text = said(place, *words, "--dry-run", "--gpus", 2)
    out = place / "pre"
    assert not out.exists()
    assert f"{out}: a new run" in row(text, "folder")
    parameters = re.match(r"[\d,]+ parameters", row(text, "model"))[0]
    samples = re.match(r"[\d,]+ samples", row(text, "data"))[0]
    seconds = float(re.search(r"updates of ([\d.]+) s on 1 CPU thread", row(text, "time"))[1])
    assert 0 < seconds < 60
    assert "2 processes, cpu_fp32.json" in row(text, "memory")

    real = said(place, *words)
    assert f"{parameters}, {samples}, 1 processes" in real
    shown, unit = re.search(r"checkpoints of ([\d.]+) (kB|MB)", row(text, "disk")).groups()
    [folder] = (out / "checkpoints").glob("step-*")
    assert float(shown) * {"kB": 1e3, "MB": 1e6}[unit] == pytest.approx(
        check(folder).bytes, rel=0.1
    )
    assert "goes on from update 3" in said(place, *words, "--dry-run")
    assert "unknown key 'stps'" in said(
        place, "pretrain", "run.toml", "train.stps=3", "--dry-run", code=2
    )
