"""A run of seconds for tests of the launcher: its corpus, its file, and its ranks as processes."""

import os
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

from tests.conftest import ROOT
from tests.test_refusals import CORPUS, PRETRAIN

ENDLESS = ("train.steps=100000", "train.validate_every=100000", "train.save_every=100000")


def lay(place: Path, run: str, text: str = "") -> tuple[str, str]:
    """plain.txt, of this project's documentation or of `text`, and the files that use it.

    Returns the commands of data_tools that make the corpus of it.
    """
    text = text or " ".join(path.read_text() for path in sorted((ROOT / "docs").glob("*.md")))
    words = text.split()[:4500]
    lines = (" ".join(words[i : i + 9]) for i in range(0, len(words), 9))
    (place / "plain.txt").write_text("\n".join(lines))
    for name, content in (("corpus.toml", CORPUS), ("run.toml", run)):
        (place / name).write_text(content.format(base=place))
    return "tokenizer", "build"


def built(place: Path) -> Path:
    """The folder, with a corpus of this project's documentation and a run file of a tiny model."""
    for verb in lay(place, PRETRAIN):
        done = started(place, "data", verb, "corpus.toml")
        said, _ = done.communicate(timeout=120)
        assert done.returncode == 0, said
    return place


def started(place: Path, *words, **variables: str) -> subprocess.Popen:
    """launch.sh, as a user starts it in that folder."""
    usual = {"JANUSLM_PYTHON": sys.executable, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        ["bash", str(ROOT / "launch.sh"), *map(str, words)],
        cwd=place,
        env=os.environ | usual | variables,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def ranks(out: Path) -> dict[int, int]:
    """Ranks by process id: processes that train and whose command line names the run's folder."""
    found = {}
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(FileNotFoundError, ProcessLookupError):  # it has ended meanwhile
            words = (process / "cmdline").read_text().split("\0")
            if {"pretrain", "finetune"} & set(words) and any(str(out) in word for word in words):
                own = (process / "environ").read_text().split("\0")
                numbers = [int(value[5:]) for value in own if value.startswith("RANK=")]
                found |= {int(process.name): number for number in numbers}
    return found


def updates(out: Path) -> int:
    """How many updates a run has written down."""
    log = out / "train.jsonl"
    return len(log.read_text().splitlines()) if log.is_file() else 0
