"""What the processes of a run find in their environment, here and on other hosts."""

import os
from pathlib import Path

from januslm.cli.paths import ROOT

# What other hosts get of the user's environment: where programs and libraries lie, and
# whatever a library of a run reads.
HANDED_OVER = ("PATH", "LD_LIBRARY_PATH", "LD_PRELOAD", "VIRTUAL_ENV", "LANG", "LC_ALL")
HANDED_OVER_PREFIXES = (
    "PYTHON",
    "NCCL_",
    "GLOO_",
    "FI_",
    "UCX_",
    "CUDA_",
    "TORCH",
    "HF_",
    "DS_",
    "OMP_",
    "MKL_",
    "TRITON_",
    "TOKENIZERS_",
    "JANUSLM_",
    "MASTER_",
)
# A launcher around ours (an allocation of Slurm's, mpirun) has counted its processes, not our
# ranks.
OTHERS_COUNTS = ("SLURM_", "OMPI_", "PMI_", "PMIX_", "RANK", "LOCAL_RANK", "WORLD_SIZE")


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


def handed_over() -> dict[str, str]:
    """The variables of the user's that a run on other hosts gets, lines of .deepspeed_env last."""
    found = {
        name: value
        for name, value in os.environ.items()
        if name in HANDED_OVER or name.startswith(HANDED_OVER_PREFIXES)
    }
    own = os.environ.get("DS_ENV_FILE", ".deepspeed_env")  # a name or a path, as DeepSpeed has it
    for file in (Path.home() / own, Path(own)):
        if file.is_file():
            lines = (line.partition("=") for line in file.read_text().splitlines())
            found |= {name.strip(): value for name, equals, value in lines if equals}
    return found


def of_ranks(count: int) -> dict[str, str]:
    """What `count` ranks of one host find in their environment; each adds who it is."""
    found = environment(count)
    return {n: v for n, v in found.items() if not n.startswith(OTHERS_COUNTS)}
