"""Real ranks of a tiny pretraining run, started as any launcher would start them."""

import os
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from tests.conftest import ROOT
from tests.tiny_run import lay

RUN = """
out = "{base}/run"
tokenizer = "{base}/tokenizer.json"
[data]
train = [{{ corpus = "{base}/corpus/train" }}]
valid = [{{ corpus = "{base}/corpus/valid" }}]
length = 24
valid_samples = 8
[model]
width = 16
ffn = 32
heads = 2
encoder_layers = 1
decoder_layers = 1
positions = "learned"
[train]
steps = 6
batch = 4
save_every = 3
log_every = 1
[packing]
samples = 0
[schedule]
warmup = 1
"""
LAUNCHERS = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_", "OMPI_", "PMI", "SLURM_", "JANUSLM_")


def laid(base: Path, text: str = "") -> Path:
    """A corpus of this project's documents, or of `text`, and run.toml, a run on it."""
    for verb in lay(base, RUN, text):
        command = [sys.executable, "-P", "-m", "data_tools", verb, str(base / "corpus.toml")]
        done = subprocess.run(command, env=environment(), capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    return base


def environment(**variables: str) -> dict[str, str]:
    """That of a fresh shell, with what a launcher of ours would set."""
    kept = {"SLURM_CONF"}  # where Slurm is, not whose rank we are
    plain = {k: v for k, v in os.environ.items() if k in kept or not k.startswith(LAUNCHERS)}
    usual = {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "DS_ACCELERATOR": "cpu"}
    return plain | usual | variables


def started(
    base: Path,
    *words: str,
    processes: int = 2,
    verb: str = "pretrain",
    given: Sequence[str] | None = None,
    each: Sequence[dict[str, str]] = ({}, {}, {}, {}),
    other: Sequence[tuple[str, ...]] = ((), (), (), ()),
) -> list[subprocess.Popen]:
    """One process a rank; each: more variables, and other: more words, by rank.

    given: in place of the run file.
    """
    first = [str(base / "run.toml")] if given is None else given
    port = free_port()
    ranks = []
    for rank in range(processes):
        place = {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(processes)}
        meeting = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        command = [sys.executable, "-P", "-m", verb, *first, *words, *other[rank]]
        ranks.append(
            subprocess.Popen(
                command,
                cwd=base,
                env=environment(**place, **meeting) | each[rank],
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
        )
    return ranks


def free_port() -> str:
    """A port that nobody listens on now."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return str(free.getsockname()[1])
