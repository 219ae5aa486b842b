"""Starting real groups of processes in tests, as a launcher would."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

HERE = Path(__file__).parent


def start(script: str, *arguments: str, processes: int = 2) -> list[subprocess.Popen]:
    """One process per rank, on this machine; a single one is left to find its own way."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    ranks = [{"RANK": str(r), "LOCAL_RANK": str(r)} for r in range(processes)]
    group = {"WORLD_SIZE": str(processes), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    base = {k: v for k, v in os.environ.items() if k not in {"RANK", "LOCAL_RANK", *group}}
    base |= {"OMP_NUM_THREADS": "1", "DS_ACCELERATOR": "cpu", "TORCH_CPP_LOG_LEVEL": "ERROR"}
    return [
        subprocess.Popen(
            [sys.executable, str(HERE / script), *arguments],
            env=base if processes == 1 else base | group | rank,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in ranks
    ]


def finish(group: list[subprocess.Popen], seconds: float = 240) -> tuple[list[int], str]:
    """Exit codes by rank and what was said; a process that is still there after that is killed."""
    end, said = time.monotonic() + seconds, []
    try:
        for process in group:
            said.append(process.communicate(timeout=max(end - time.monotonic(), 1))[0])
    finally:
        for process in group:
            if process.poll() is None:
                process.kill()
                process.communicate()
    return [process.returncode for process in group], "\n".join(said)


def wait_until(true, seconds: float = 120) -> None:
    """Poll until true() holds; fails after that many seconds."""
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.02)


@contextmanager
def small_disk(folder: Path, kilobytes: int, *, lazy: bool = False) -> Iterator[Path]:
    """FOLDER/disk, a real file system of that size; lazy: it may still be in use at the end."""
    disk = folder / "disk"
    disk.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={kilobytes}k", "tmpfs", str(disk)]
    mounted = subprocess.run(command, capture_output=True, text=True, check=False)
    if mounted.returncode:
        pytest.skip(f"a small file system cannot be mounted here: {mounted.stderr.strip()}")
    yield disk
    subprocess.run(["umount", *["-l"] * lazy, str(disk)], check=True)
