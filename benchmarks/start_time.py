"""Start: seconds from Enter to the first update of tiny.toml, by DeepSpeed's launcher and by ours.

`python -m benchmarks.start_time [--rounds N] [--former CLONE]`
One process of one thread each, the same run file and corpus (this project's documents), taking
turns, every other round in reverse.  DeepSpeed's launcher is called by hand; with --former, the
launch.sh of another clone is, e.g. of commit 2129559, the last whose launch.sh called DeepSpeed's.
The clock stops when the update is written down.  Two clocks: the wall's, and the CPU seconds of all
processes of the start, which other programs on the machine hardly move.
"""

import argparse
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path

from benchmarks.record import record
from benchmarks.timing import Spent, ratio
from januslm.cli.table import drawn

ROOT = Path(__file__).resolve().parents[1]
WANTED = 2.0  # times as fast as before
CORPUS = """
out = "{place}/corpus"
root = "{place}"
vocabulary = 1000
validation = 0.3
tokenizer = "{place}/tokenizer.json"
[sources.text]
files = ["*.txt"]
split = "line"
"""


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__)
    options.formatter_class = argparse.RawDescriptionHelpFormatter
    options.add_argument("--rounds", type=int, default=5)
    options.add_argument("--former", type=Path, help="a clone whose launch.sh is compared")
    given = options.parse_args()
    rounds, former = given.rounds, given.former
    with tempfile.TemporaryDirectory(prefix="start-") as folder:
        place = Path(folder)
        roots = {"before": former or ROOT, "launch.sh": ROOT}
        # Each of its own corpus, of the same text: their formats may differ.
        words = {name: _built(place / name, root) for name, root in roots.items()}
        ways: dict[str, Callable[[list[str]], list[str]]] = {
            "before": partial(_launched, former) if former else _deepspeed,
            "launch.sh": partial(_launched, ROOT),
        }
        spent: dict[str, list[Spent]] = {name: [] for name in ways}
        for number in range(rounds + 1):  # the first one fills the page cache
            for name in ways if number % 2 == 0 else reversed(ways):
                command = ways[name](words[name])
                took = _first_update(command, place / name / "run", roots[name])
                counted = "" if number else ", not counted"
                print(f"{name}: {took.wall:.1f} s, {took.cpu:.1f} CPU s{counted}", flush=True)
                spent[name] += [took] if number else []
    found, rows = {}, [("", "before", "launch.sh", "times as fast")]
    for clock in ("wall", "cpu"):
        times = {name: [getattr(one, clock) for one in each] for name, each in spent.items()}
        faster = ratio(times["before"], times["launch.sh"])
        found[clock] = {"seconds": times, "times": faster.__dict__}
        rows.append((f"{clock} seconds", *map(_spread, times.values()), str(faster)))
    print(drawn(rows))
    print(record("start_time", found | {"former": bool(former), "wanted": WANTED}))
    return int(found["wall"]["times"]["median"] < WANTED)


def _built(place: Path, root: Path) -> list[str]:
    """A corpus of a few thousand words; the words of a command that trains tiny.toml on it."""
    place.mkdir()
    text = " ".join(path.read_text() for path in sorted((ROOT / "docs").glob("*.md"))).split()
    lines = (" ".join(text[at : at + 20]) for at in range(0, len(text), 20))
    (place / "plain.txt").write_text("\n".join(lines))
    (place / "corpus.toml").write_text(CORPUS.format(place=place))
    for verb in ("tokenizer", "build"):
        command = [sys.executable, "-m", "data_tools", verb, str(place / "corpus.toml")]
        own = os.environ | {"PYTHONPATH": str(root)}
        subprocess.run(command, cwd=root, env=own, check=True, stdout=subprocess.DEVNULL)
    data = [f'data.{part}=[{{corpus="{place}/corpus/{part}"}}]' for part in ("train", "valid")]
    run = ["tiny", f"out={place}/run", f"tokenizer={place}/tokenizer.json", *data]
    return [*run, "train.log_every=1"]


def _deepspeed(words: Sequence[str]) -> list[str]:
    with socket.socket() as free:
        free.bind(("", 0))
        port = str(free.getsockname()[1])
    runner = [sys.executable, "-m", "deepspeed.launcher.runner", "--log_level", "critical"]
    return [*runner, "--master_port", port, "--num_gpus", "1", "--module", "pretrain", *words]


def _launched(clone: Path, words: Sequence[str]) -> list[str]:
    return ["bash", str(clone / "launch.sh"), "pretrain", *words]


def _first_update(command: Sequence[str], out: Path, root: Path) -> Spent:
    """What it takes until train.jsonl has its first line; the run is stopped then."""
    shutil.rmtree(out, ignore_errors=True)
    mark = secrets.token_hex(8)
    own = {"JANUSLM_PYTHON": sys.executable, "PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"}
    # As in most shells: what has been compiled once is kept.  The first round is not counted.
    own |= {"DS_ACCELERATOR": "cpu", "JANUSLM_START": mark, "PYTHONDONTWRITEBYTECODE": ""}
    log = out / "train.jsonl"
    began = time.monotonic()
    with tempfile.TemporaryFile() as said:
        run = subprocess.Popen(
            command, env=os.environ | own, stdout=said, stderr=said, process_group=0
        )
        while not (log.is_file() and log.stat().st_size):
            if run.poll() is not None:
                said.seek(0)
                raise SystemExit(said.read().decode())
            time.sleep(0.01)
        took = Spent(sum(_processes(mark).values()), time.monotonic() - began)
        # DeepSpeed's runner hands no signal on: its group gets it.  Ours hands it on itself.
        os.killpg(run.pid, signal.SIGTERM)
        run.wait()
        while _processes(mark):
            time.sleep(0.1)
    return took


def _processes(mark: str) -> dict[int, float]:
    """CPU seconds, with those of children that have ended, of all processes of one start."""
    found = {}
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # it has ended, or is another user's
            if mark.encode() in (process / "environ").read_bytes():
                numbers = (process / "stat").read_text().rpartition(")")[2].split()
                ticks = sum(map(int, numbers[11:15]))
                found[int(process.name)] = ticks / os.sysconf("SC_CLK_TCK")
    return found


def _spread(seconds: list[float]) -> str:
    middle = sorted(seconds)[len(seconds) // 2]
    return f"{middle:.1f} ({min(seconds):.1f} to {max(seconds):.1f})"


if __name__ == "__main__":
    sys.exit(main())
