"""docs/first-hour.md as a newcomer types it, with fewer updates and fewer texts."""

import os
import re
import subprocess
import sys

import pytest

from tests.conftest import ROOT

PAGE = ROOT / "docs" / "first-hour.md"
SMALLER = {
    "pretrain": "train.steps=12 schedule.warmup=2 train.batch=8 data.valid_samples=8",
    "finetune": "train.steps=12 schedule.warmup=2 train.batch=8 data.valid_samples=8",
    "generate": "--limit 6",
    "write": "--threads 1",
    "report": "--examples 1",
}


def typed() -> list[tuple[str, str]]:
    """(kind, text) of each block: commands, where it is not called Python."""
    found = re.findall(r"^```(\w*)\n(.*?)^```$", PAGE.read_text("utf-8"), re.M | re.S)
    return [(kind, text) for kind, text in found if kind != "text"]


def command(line: str) -> str:
    """The line with what makes it smaller, and the programs of this environment."""
    verb = re.search(r"\./launch\.sh (\w+)", line)
    line += f" {SMALLER.get(verb[1], '')}" if verb else ""
    line = line.replace("./launch.sh", f"bash {ROOT / 'launch.sh'}")
    return line.replace(".venv/bin/python", sys.executable).replace("docs/", f"{ROOT}/docs/")


@pytest.mark.slow
@pytest.mark.long
def test_everything_can_be_typed_as_it_stands(tmp_path):
    own = {"JANUSLM_PYTHON": sys.executable, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    own["HF_HOME"] = str(tmp_path / "hf-home")

    def run(words: list[str]) -> str:
        done = subprocess.run(
            words,
            cwd=tmp_path,
            env=os.environ | own,
            capture_output=True,
            text=True,
            timeout=300,
            stdin=subprocess.DEVNULL,
        )
        assert done.returncode == 0, (words, done.stdout[-2000:], done.stderr[-2000:])
        return done.stdout

    said = ""
    for kind, text in typed():
        if kind == "python":
            said += run([sys.executable, "-c", text])
            continue
        for line in text.splitlines():
            said += run(["bash", "-c", command(line)])
    assert re.search(r"mine\.jsonl: [\d,]{5,} paragraphs; mine\.csv: [\d,]{5,} sentences", said)
    for way in ("AR greedy", "NAR 4 iterations", "speculative", "copy"):
        assert re.search(rf"^{way}.* [\d.]+", said, re.M), way
    assert "<html" in (tmp_path / "report.html").read_text("utf-8")
    assert (tmp_path / "hf-model" / "modeling_januslm.py").is_file()
    assert said.count("['") == 3, "one text from Python, two from transformers"
