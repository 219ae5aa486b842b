"""Trains under DeepSpeed: checks, starts, passes signals on, and says how the run itself ended."""

import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO

from januslm.cli.command import program
from januslm.cli.paths import ROOT, RUNS
from januslm.config import Refused
from januslm.launch import hosts
from januslm.launch.commands import Options, module, need, shell_code, show
from januslm.launch.environment import data_root, environment, gpus, handed_over, has_gpu

RESUME, REFUSED = 85, 2  # exit codes: stopped by a signal and saved; a mistake of the user's
BEAT = 5.0  # seconds between two lines while a run starts
NOISE = b"real_accelerator.py"  # DeepSpeed says on each import which accelerator it took


def train(verb: str, words: Sequence[str], options: Options) -> int:
    """Pretrain or fine-tune; the exit code is what the run itself reports, not DeepSpeed's.

    Refused before DeepSpeed or torch are imported, where it can be.
    """
    if not words:
        names = ", ".join(path.stem for path in sorted((ROOT / RUNS[verb]).glob("*.toml")))
        raise Refused(f"which run? {program()} {verb} RUN [key=value ...]; there are {names}")
    slots = hosts.read(options.hostfile) if options.hostfile and not options.dry else {}
    local = options.gpus or (None if slots or has_gpu() else 1)
    arguments = [*words, *(["--ds", options.ds] if options.ds else [])]
    if verb == "finetune" and not any(word.startswith("--data") for word in words):
        arguments += ["--data", data_root()]
    variables = environment(None if options.hostfile else local)
    command = _command(verb, arguments, options, local)
    if options.dry:
        show(command, variables)
        return 0
    need("torch", "deepspeed")
    world = str(_world(slots, options.gpus) if slots else local or max(gpus(), 1))
    check = module(verb, *arguments, "--check", world)
    sys.stdout.flush()
    checked = subprocess.run(check, env=variables, stdout=subprocess.PIPE, check=False)
    if checked.returncode:
        return shell_code(checked.returncode)
    with tempfile.TemporaryDirectory(prefix="januslm-") as folder:
        report = Path(folder, "report")
        report.mkdir()
        if slots:
            variables.setdefault("OMP_NUM_THREADS", "1")
            variables["DS_ENV_FILE"] = str(Path(folder, "variables"))
            Path(variables["DS_ENV_FILE"]).write_text(handed_over(variables))
        code = _supervised([*command, "--report", str(report)], variables, report)
        return _verdict(report, code)


def _world(slots: Mapping[str, int], each: int | None) -> int:
    """How many processes there will be; each: on every host, in place of its slots."""
    return len(slots) * each if each else sum(slots.values())


def _command(verb: str, arguments: list[str], options: Options, local: int | None) -> list[str]:
    """DeepSpeed's own launcher, with a port that is free here."""
    with socket.socket() as free:
        free.bind(("", 0))
        port = str(free.getsockname()[1])
    ours = ["--log_level", "critical", "--master_port", port]
    ours += ["--hostfile", options.hostfile] if options.hostfile else []
    ours += ["--num_gpus", str(local)] if local else []
    return module("deepspeed.launcher.runner", *ours, "--module", verb, *arguments)


def _supervised(command: list[str], variables: Mapping[str, str], report: Path) -> int:
    """Run the launcher in a process group of its own until the last process of it has ended.

    DeepSpeed's runner hands no signal on and would leave orphans: the whole group gets them.
    """
    early: list[int] = []
    process: subprocess.Popen | None = None

    def hand_on(number: int, _frame: object) -> None:
        wanted = signal.SIGUSR1 if number == signal.SIGUSR1 else signal.SIGTERM
        if process is None:
            early.append(wanted)
        else:
            _tell(process.pid, wanted)

    kinds = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)
    before = [signal.signal(kind, hand_on) for kind in kinds]
    over = threading.Event()
    try:
        sys.stdout.flush()
        process = subprocess.Popen(
            command,
            env=variables,
            stdin=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            process_group=0,
        )
        for number in early:
            _tell(process.pid, number)
        assert process.stderr is not None
        reader = threading.Thread(target=_without_noise, args=(process.stderr,), daemon=True)
        reader.start()
        threading.Thread(target=_beat, args=(report, over), daemon=True).start()
        code = process.wait()
        over.set()
        _wait_for_the_last(process.pid)
        reader.join(timeout=5)
        return shell_code(code)
    finally:
        over.set()
        for kind, handler in zip(kinds, before, strict=True):
            signal.signal(kind, handler)


def _tell(group: int, number: int) -> None:
    with suppress(ProcessLookupError):
        os.killpg(group, number)


def _wait_for_the_last(group: int) -> None:
    """Told to stop, DeepSpeed's runner ends at once, while the training still saves."""
    while True:
        with suppress(ChildProcessError):  # orphans are ours where we are a container's first
            os.waitpid(-group, os.WNOHANG)
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return
        time.sleep(0.2)


def _without_noise(stream: IO[bytes]) -> None:
    for line in stream:
        if NOISE not in line:
            sys.stderr.buffer.write(line)
            sys.stderr.buffer.flush()


def _beat(report: Path, over: threading.Event) -> None:
    """A line every few seconds until the ranks have met."""
    began = time.monotonic()
    while not over.wait(BEAT) and not (report / "started").exists():
        print(f"starting, {time.monotonic() - began:.0f} s", flush=True)


def _verdict(report: Path, code: int) -> int:
    """The exit code by what rank 0 wrote: DeepSpeed's may be 0 after a kill, and 1 after a stop."""
    ended = {path.name for path in report.iterdir()}
    if "refused" in ended:
        return REFUSED
    if "done" in ended:
        return 0
    if "resume" in ended:
        where = (report / "resume").read_text().strip()
        log_line(f"stopped on request; the same command goes on from {where}")
        return RESUME
    if "started" in ended:
        hint = "without finishing", "the same command goes on from its last checkpoint"
    else:
        hint = "before its first update", "the lines above say why, unless it was stopped"
    log_line(f"the run ended {hint[0]} (launcher's code {code}); {hint[1]}")
    return code if code not in (0, REFUSED, RESUME) else 1


def log_line(text: str) -> None:
    """A line for people on stderr, bold on a terminal."""
    print(f"\033[1m{text}\033[0m" if sys.stderr.isatty() else text, file=sys.stderr, flush=True)
