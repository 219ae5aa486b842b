"""Kills a run at random moments until it is done, and compares it with one that was never killed.

python -m benchmarks.chaos --kills 100              two processes on this machine
python -m benchmarks.chaos --kills 20 --hosts 2     two hosts on this machine (tests/hosts.sh; root)

A kill is SIGKILL to a rank, to the process that watches a host's ranks or to the launcher, or a
signal that stops (TERM, INT, HUP, USR1) to the launcher or to a rank.  It comes at a random second,
after a random update, or while a checkpoint is being written.  The same command is typed again and
again.  What must hold after each: no process is left, every published checkpoint is whole, and no
updates are lost but those since the last one; that is published before the next save begins.  At
the end: every recorded number and every exported weight is bit for bit that of the run without
kills.  Exit code 1 where one of these does not hold.
"""

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

from benchmarks.record import record
from januslm.data import sealed

ROOT = Path(__file__).resolve().parents[1]
MARK = "JANUSLM_CHAOS"  # in the environment of every process of the run, on every host
SAVE_EVERY = 20  # updates
GONE = 60.0  # seconds within which no process may be left
TAIL = 4096  # bytes of a log in which its last line begins
CORPUS = """
out = "corpus"
root = "."
vocabulary = 400
validation = 0.2
tokenizer = "tokenizer.json"
[sources.text]
files = ["plain.txt"]
split = "line"
"""
RUN = """
out = "out"
tokenizer = "tokenizer.json"
[data]
train = [{{ corpus = "corpus/train" }}]
valid = [{{ corpus = "corpus/valid" }}]
length = 32
[model]
width = 64
ffn = 256
heads = 4
dropout = 0.1
[train]
steps = {steps}
batch = 8
log_every = 1
save_every = {save}
validate_every = 400
keep = 3
[packing]
samples = 0
[schedule]
warmup = 10
"""
STOPS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1)


@dataclass
class Story:
    """What happened, counted."""

    kills: Counter = field(default_factory=Counter)  # what was killed, and when
    codes: Counter = field(default_factory=Counter)  # the launcher's exit codes by kind of kill
    lost: list[int] = field(default_factory=list)  # updates that each kill made void
    # seconds until no process was left, by what was done
    gone: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    resumed: list[float] = field(default_factory=list)  # seconds from the command to an update
    faults: list[str] = field(default_factory=list)  # what must not happen


def main() -> int:
    known = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    known.add_argument("--kills", type=int, default=100)
    known.add_argument("--hosts", type=int, default=1)
    known.add_argument("--seed", type=int, default=1)
    known.add_argument("--steps", type=int, default=0, help="updates; 0: enough for the kills")
    options = known.parse_args()
    steps = options.steps or SAVE_EVERY * (5 * options.kills // 4 + 4)
    for number in STOPS:  # of nohup, and of a shell's background, children inherit deafness
        signal.signal(number, signal.SIG_DFL)
    with (
        tempfile.TemporaryDirectory(prefix="chaos-") as name,
        hosts(name, options.hosts) as cluster,
    ):
        prepare(cluster.folder, steps)
        print(f"without kills: {steps:,} updates", flush=True)
        began = time.monotonic()
        code = cluster.started("calm").wait()
        print(f"code {code}, {time.monotonic() - began:.0f} s", flush=True)
        story = Story()
        kill_until_done(cluster, options, story)
        story.faults += compared(cluster.folder / "calm", cluster.folder / "hunted")
    results = {
        "steps": steps,
        "save_every": SAVE_EVERY,
        "kills": dict(story.kills),
        "codes": dict(story.codes),
        "updates_repeated": {"in all": sum(story.lost), "most": max(story.lost, default=0)},
        "seconds_until_no_process": {
            what: {"median": round(median(times), 1), "most": round(max(times), 1)}
            for what, times in sorted(story.gone.items())
        },
        "seconds_from_command_to_update": round(median(story.resumed or [0]), 1),
        "faults": story.faults,
    }
    print(json.dumps(results, indent=1))
    print(record("chaos" if options.hosts == 1 else f"chaos_{options.hosts}_hosts", results))
    return int(bool(story.faults))


def prepare(folder: Path, steps: int) -> None:
    """A corpus of this project's documentation, and a run on it."""
    words = " ".join(path.read_text() for path in sorted((ROOT / "docs").glob("*.md"))).split()
    lines = (" ".join(words[i : i + 12]) for i in range(0, len(words), 12))
    (folder / "plain.txt").write_text("\n".join(lines))
    (folder / "corpus.toml").write_text(CORPUS)
    (folder / "run.toml").write_text(RUN.format(steps=steps, save=SAVE_EVERY))
    for verb in ("tokenizer", "build"):
        command = [str(ROOT / "launch.sh"), "data", verb, "corpus.toml"]
        subprocess.run(command, cwd=folder, env=environment(), check=True, capture_output=True)


def environment() -> dict[str, str]:
    return os.environ | {"JANUSLM_PYTHON": sys.executable, MARK: str(os.getpid())}


@dataclass(frozen=True)
class Cluster:
    """Where runs are started.  insides: a process of each host, none where it is this machine."""

    folder: Path
    insides: tuple[str, ...] = ()

    def started(self, out: str) -> subprocess.Popen:
        """The command, as a user types it on the first host."""
        enter, spread = [], ["--gpus", "2"]
        if self.insides:
            names = "".join(f"host{number} slots=1\n" for number in range(len(self.insides)))
            (self.folder / "hosts").write_text(names)
            spread = ["--hostfile", "hosts"]
            enter = ["nsenter", "--all", "-t", self.insides[0], f"--wd={self.folder}"]
        with open(self.folder / f"{out}.console", "ab") as console:
            return subprocess.Popen(
                [*enter, str(ROOT / "launch.sh"), "pretrain", "run.toml", f"out={out}", *spread],
                cwd=self.folder,
                env=environment(),
                stdout=console,
                stderr=subprocess.STDOUT,
                process_group=0,
            )

    def launcher(self, run: subprocess.Popen) -> int:
        """Its process: nsenter has started it, where there is one."""
        children = Path(f"/proc/{run.pid}/task/{run.pid}/children").read_text().split()
        return int(children[0]) if self.insides and children else run.pid

    def processes(self) -> Iterator[tuple[int, list[str], dict[str, str]]]:
        """(process id, command line, environment) of every process of the runs, on all hosts."""
        mark = f"{MARK}={os.getpid()}"
        spaces = {os.readlink(f"/proc/{pid}/ns/pid") for pid in self.insides}
        for place in Path("/proc").glob("[0-9]*"):
            if int(place.name) == os.getpid():
                continue
            try:
                pairs = (place / "environ").read_bytes().decode(errors="replace").split("\0")
                words = (place / "cmdline").read_bytes().decode(errors="replace").split("\0")
                space = os.readlink(place / "ns" / "pid")
            except OSError:
                continue  # it has just ended
            # sshd hands no variable of ours to the process that watches a host's ranks.
            watches = space in spaces and "januslm.launch.host" in words
            if (mark in pairs or watches) and words != [""]:  # a zombie has no command line
                yield int(place.name), words, dict(p.split("=", 1) for p in pairs if "=" in p)


@contextmanager
def hosts(name: str, count: int) -> Iterator[Cluster]:
    """This machine, or so many hosts on it that share the folder."""
    if count == 1:
        yield Cluster(Path(name))
        return
    with tempfile.TemporaryDirectory(prefix="hosts-") as state:
        script = ["bash", str(ROOT / "tests" / "hosts.sh")]
        variables = os.environ | {"HOSTS": state, "NET": f"jc{os.getpid()}-"}
        shared = [name, *([str(ROOT)] if ROOT.is_relative_to(tempfile.gettempdir()) else [])]
        try:
            up = [*script, "up", str(count), *shared]
            subprocess.run(up, env=variables, check=True, timeout=60)
            insides = (Path(state, f"pid{number}").read_text().strip() for number in range(count))
            yield Cluster(Path(name), tuple(insides))
        finally:
            subprocess.run([*script, "down"], env=variables, check=True, timeout=60)


def kill_until_done(cluster: Cluster, options: argparse.Namespace, story: Story) -> None:
    """Type the command again and again, and kill each but the last run."""
    rng, out = random.Random(options.seed), cluster.folder / "hunted"
    killed = 0
    while True:
        run = cluster.started("hunted")
        shot = killed < options.kills and hunt(rng, cluster, run, out, story)
        killed += bool(shot)
        began = time.monotonic()
        code = run.wait()
        emptied(cluster, story)
        if shot:
            kind = shot.removesuffix(" 0").removesuffix(" 1")
            story.gone[kind].append(time.monotonic() - began)
            story.codes[f"{shot}: {code}"] += 1
            story.lost.append(last_step(out) - newest_step(out))
            if story.lost[-1] > 2 * SAVE_EVERY:
                story.faults.append(f"kill {killed} ({shot}): {story.lost[-1]} updates lost")
        story.faults += [f"kill {killed}: {fault}" for fault in damaged(out)]
        print(
            f"kill {killed}: {shot or 'none'}, code {code}, at step {last_step(out):,}, "
            f"checkpoint {newest_step(out):,}",
            flush=True,
        )
        if code == 0 and (out / "done").exists():
            return
        if not shot and code not in (0, 85):
            story.faults.append(f"code {code} without a kill: see chaos.console")
            shutil.copy(cluster.folder / "hunted.console", "chaos.console")
            return


def hunt(
    rng: random.Random, cluster: Cluster, run: subprocess.Popen, out: Path, story: Story
) -> str:
    """Wait for a random moment, and kill something; what it was, empty if the run ended before."""
    before, newest, began = last_step(out), newest_step(out), time.monotonic()
    now = time.time()
    when = rng.choice(("second", "update", "save"))
    if when == "second":
        end = time.monotonic() + rng.uniform(0, 12)
        here = waited(run, lambda: time.monotonic() > end)
    elif when == "update":
        more = rng.randint(1, 2 * SAVE_EVERY)
        first = waited(run, lambda: last_step(out) > before)
        if first and before == newest:  # nothing is made again before it
            story.resumed.append(time.monotonic() - began)
        here = first and waited(run, lambda: last_step(out) >= before + more)
    else:
        after = rng.uniform(0, 0.05)
        here = waited(run, lambda: saving(out, now))
        time.sleep(after)
    if not here:
        return ""
    what, pid, number = rng.choice(list(targets(cluster, run)))
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return ""
    shot = f"{number.name} to {what}"
    story.kills[f"{shot}, {when}"] += 1
    return shot


def saving(out: Path, since: float) -> bool:
    """Whether a checkpoint is being written; what a kill left half done is older."""
    with suppress(FileNotFoundError):
        there = (out / "checkpoints").glob(".saving-*")
        return any(path.stat().st_mtime > since for path in there)
    return False


def waited(run: subprocess.Popen, true: Callable[[], bool]) -> bool:
    """Poll until true(); False where the run ended first."""
    while not true():
        if run.poll() is not None:
            return False
        time.sleep(0.003)
    return run.poll() is None


def targets(cluster: Cluster, run: subprocess.Popen) -> Iterator[tuple[str, int, signal.Signals]]:
    """What there is to kill now: (name, process id, signal)."""
    launcher = cluster.launcher(run)
    yield from (("launcher", launcher, number) for number in (signal.SIGKILL, *STOPS))
    for pid, words, variables in cluster.processes():
        if "januslm.launch.host" in words:
            yield "host process", pid, signal.SIGKILL
        elif "RANK" in variables and "pretrain" in words:
            for number in (signal.SIGKILL, signal.SIGKILL, signal.SIGTERM):
                yield f"rank {variables['RANK']}", pid, number


def emptied(cluster: Cluster, story: Story) -> None:
    """Wait until no process is left; one that stays is a fault, and is ended."""
    began = time.monotonic()
    while left := list(cluster.processes()):
        if time.monotonic() - began > GONE:
            story.faults += [f"still there: {' '.join(words)}" for _, words, _ in left]
            for pid, _, _ in left:
                os.kill(pid, signal.SIGKILL)
            break
        time.sleep(0.1)


def last_step(out: Path) -> int:
    """The last update that is recorded whole."""
    file = out / "train.jsonl"
    if not file.exists():
        return 0
    with open(file, "rb") as lines:
        lines.seek(max(0, file.stat().st_size - TAIL))
        for line in reversed(lines.read().splitlines()):
            with suppress(ValueError):
                if sealed.is_whole(table := json.loads(line)):
                    return table["step"]
    return 0


def recorded(out: Path) -> list[dict]:
    file = out / "train.jsonl"
    return [table for _, table in sealed.lines(file) if table] if file.exists() else []


def newest_step(out: Path) -> int:
    there = [int(path.name.removeprefix("step-")) for path in (out / "checkpoints").glob("step-*")]
    return max(there, default=0)


def damaged(out: Path) -> list[str]:
    """Published checkpoints that are not whole, by januslm's own check."""
    if not (out / "checkpoints").exists():
        return []
    command = [str(ROOT / "launch.sh"), "checkpoint", "verify", str(out)]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True)
    return [done.stdout + done.stderr] if done.returncode else []


def compared(calm: Path, hunted: Path) -> list[str]:
    """In what the two runs differ, clocks apart."""
    clocks = ("tokens_per_second", "mfu", "data_wait", "seconds_per_step", "memory_gb")
    one, other = (
        [{key: value for key, value in table.items() if key not in clocks} for table in found]
        for found in (recorded(calm), recorded(hunted))
    )
    faults = [] if repr(one) == repr(other) else ["train.jsonl differs"]
    weights = Path("export", "model.safetensors")
    if (calm / weights).read_bytes() != (hunted / weights).read_bytes():
        faults.append("the exported weights differ")
    return faults


if __name__ == "__main__":
    sys.exit(main())
