"""What the processes of a run find in their environment, here and on other hosts."""

import os
from pathlib import Path

from januslm.cli.paths import ROOT

# What the processes on other hosts must know; DeepSpeed hands them nothing else but PYTHON*.
HANDED_OVER = (
    "PATH",
    "OMP_NUM_THREADS",
    "TOKENIZERS_PARALLELISM",
    "DS_ACCELERATOR",
    "GLOO_SOCKET_IFNAME",
    "NCCL_SOCKET_IFNAME",
    "NCCL_DEBUG",
)


def gpus() -> int:
    """NVIDIA's devices that processes here may use, counted without torch."""
    if (visible := os.environ.get("CUDA_VISIBLE_DEVICES")) is not None:
        return len([one for one in visible.split(",") if one.strip() not in ("", "-1")])
    return sum(path.name[6:].isdecimal() for path in Path("/dev").glob("nvidia*"))


def has_gpu() -> bool:
    """Whether there is a GPU, or a driver that may show one later."""
    return Path("/dev/nvidiactl").exists() or gpus() > 0


def cloned() -> bool:
    """Whether this is a clone of the project, with its tests, or what pip has installed."""
    return (ROOT / "launch.sh").is_file()


def data_root() -> str:
    """Where tasks look for their files: $JANUSLM_DATA, shared/data beside a clone, else data/."""
    usual = str(ROOT.parent / "shared" / "data") if cloned() else "data"
    return os.environ.get("JANUSLM_DATA") or usual


def environment(processes: int | None = None) -> dict[str, str]:
    """The environment of a command; processes: how many of them share this machine's cores."""
    found = os.environ | {
        "JANUSLM_DATA": data_root(),
        "TOKENIZERS_PARALLELISM": "false",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        # A folder of the user's may be called finetune too: ours is meant.
        "PYTHONSAFEPATH": "1",
    }
    if cloned():
        before = os.environ.get("PYTHONPATH", "").split(os.pathsep)
        others = [folder for folder in before if folder not in ("", str(ROOT))]
        found["PYTHONPATH"] = os.pathsep.join([str(ROOT), *others])
    if not has_gpu():
        found["DS_ACCELERATOR"] = "cpu"
    if processes and not os.environ.get("OMP_NUM_THREADS"):
        cores = len(os.sched_getaffinity(0))
        found["OMP_NUM_THREADS"] = str(-(-cores // processes))
    return found


def handed_over(found: dict[str, str]) -> str:
    """The lines of DeepSpeed's file of variables for other hosts, after the user's own."""
    own = [Path.home() / ".deepspeed_env", Path(".deepspeed_env")]
    lines = [line for file in own if file.is_file() for line in file.read_text().splitlines()]
    lines += [f"{name}={found[name]}" for name in HANDED_OVER if found.get(name)]
    return "".join(f"{line}\n" for line in lines if "=" in line)
