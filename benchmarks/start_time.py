"""Start: seconds from Enter to the first update of tiny.toml, by DeepSpeed's launcher and by ours.

`python -m benchmarks.start_time [--rounds N]`
One process each, the same run file and corpus (this project's documents), taking turns, every
other round in reverse.  DeepSpeed's launcher is called as launch.sh once called it, without the
check of the run that launch.sh made and makes.  The clock stops when the update is written down.
"""

import argparse
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from benchmarks.record import record
from benchmarks.timing import ratio
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
    rounds = options.parse_args().rounds
    with tempfile.TemporaryDirectory(prefix="start-") as folder:
        place = Path(folder)
        words = _built(place)
        ways: dict[str, Callable[[], list[str]]] = {
            "deepspeed": lambda: _deepspeed(words),
            "launch.sh": lambda: ["bash", str(ROOT / "launch.sh"), "pretrain", *words],
        }
        seconds: dict[str, list[float]] = {name: [] for name in ways}
        for number in range(rounds + 1):  # the first one fills the page cache
            for name in ways if number % 2 == 0 else reversed(ways):
                took = _first_update(ways[name](), place / "run")
                print(f"{name}: {took:.1f} s{'' if number else ', not counted'}", flush=True)
                seconds[name] += [took] if number else []
    times = ratio(seconds["deepspeed"], seconds["launch.sh"])
    rows = [("", "seconds to the first update"), *((n, _spread(s)) for n, s in seconds.items())]
    print(drawn(rows), f"\nlaunch.sh is {times} as fast")
    path = record("start_time", {"seconds": seconds, "times": times.__dict__, "wanted": WANTED})
    print(path)
    return int(times.median < WANTED)


def _built(place: Path) -> list[str]:
    """A corpus of a few thousand words; the words of a command that trains tiny.toml on it."""
    text = " ".join(path.read_text() for path in sorted((ROOT / "docs").glob("*.md"))).split()
    lines = (" ".join(text[at : at + 20]) for at in range(0, len(text), 20))
    (place / "plain.txt").write_text("\n".join(lines))
    (place / "corpus.toml").write_text(CORPUS.format(place=place))
    for verb in ("tokenizer", "build"):
        command = [sys.executable, "-m", "data_tools", verb, str(place / "corpus.toml")]
        subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    data = [f'data.{part}=[{{corpus="{place}/corpus/{part}"}}]' for part in ("train", "valid")]
    run = ["tiny", f"out={place}/run", f"tokenizer={place}/tokenizer.json", *data]
    return [*run, "train.log_every=1"]


def _deepspeed(words: Sequence[str]) -> list[str]:
    with socket.socket() as free:
        free.bind(("", 0))
        port = str(free.getsockname()[1])
    runner = [sys.executable, "-m", "deepspeed.launcher.runner", "--log_level", "critical"]
    return [*runner, "--master_port", port, "--num_gpus", "1", "--module", "pretrain", *words]


def _first_update(command: Sequence[str], out: Path) -> float:
    """Seconds until train.jsonl has its first line; the run is stopped then."""
    shutil.rmtree(out, ignore_errors=True)
    threads = str(len(os.sched_getaffinity(0)))
    own = {"JANUSLM_PYTHON": sys.executable, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": threads}
    log = out / "train.jsonl"
    began = time.monotonic()
    with tempfile.TemporaryFile() as said:
        run = subprocess.Popen(
            command,
            env=os.environ | own | {"DS_ACCELERATOR": "cpu"},
            stdout=said,
            stderr=said,
            process_group=0,
        )
        while not (log.is_file() and log.stat().st_size):
            if run.poll() is not None:
                said.seek(0)
                raise SystemExit(said.read().decode())
            time.sleep(0.01)
        took = time.monotonic() - began
        # DeepSpeed's runner hands no signal on: its group gets it.  Ours hands it on itself.
        os.killpg(run.pid, signal.SIGTERM)
        run.wait()
        while _alive(run.pid):
            time.sleep(0.1)
    return took


def _alive(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


def _spread(seconds: list[float]) -> str:
    middle = sorted(seconds)[len(seconds) // 2]
    return f"{middle:.1f} ({min(seconds):.1f} to {max(seconds):.1f})"


if __name__ == "__main__":
    sys.exit(main())
