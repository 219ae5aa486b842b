"""Which rank of how many this process is, and where they meet, by what its launcher says."""

import os
import re
import socket
import zlib
from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass

from januslm.config import Refused

NAMES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")
OPENMPI = tuple(f"OMPI_COMM_WORLD_{what}" for what in ("RANK", "SIZE", "LOCAL_RANK", "LOCAL_SIZE"))
HYDRA = ("PMI_RANK", "PMI_SIZE", "MPI_LOCALRANKID", "MPI_LOCALNRANKS")  # mpich, Intel MPI
SLURM = ("SLURM_PROCID", "SLURM_STEP_NUM_TASKS", "SLURM_LOCALID", "")
LAUNCHERS = {"openmpi": OPENMPI, "mpich": HYDRA, "srun": SLURM}
LOWEST_PORT, PORTS = 15000, 15000  # below the ports that Linux gives away by itself


@dataclass(frozen=True)
class Place:
    """One rank of a run.  launcher: who started it; "" for a process that was started alone."""

    rank: int
    size: int
    local_rank: int
    local_size: int  # 0: nobody says
    launcher: str


def place(env: Mapping[str, str] = os.environ) -> Place:
    """This process among all.

    Raises Refused, in one line, where variables are missing, or where two launchers disagree.
    """
    known = [name for name, names in LAUNCHERS.items() if _started_by(name, names, env)]
    others = [_read(name, LAUNCHERS[name], env) for name in known]
    if "RANK" not in env and "WORLD_SIZE" not in env:
        if others:
            return others[0]
        if (tasks := _number("SLURM_NTASKS", env)) and tasks > 1 and "SLURM_STEP_ID" not in env:
            raise Refused(
                f"SLURM_NTASKS = {tasks}, but this process was started alone: start it with srun, "
                "with januslm, or with RANK=0 WORLD_SIZE=1 LOCAL_RANK=0 if it is to be alone"
            )
        return Place(0, 1, 0, 1, "")
    given = _read("RANK and WORLD_SIZE", NAMES, env)
    for other in others:
        # mpirun and srun may start one launcher on each host, which starts several ranks.
        same = given.size == other.size and given.rank == other.rank
        if not same and (given.size <= other.size or given.size % other.size):
            raise Refused(
                f"RANK = {given.rank} and WORLD_SIZE = {given.size}, but {other.launcher} says "
                f"rank {other.rank} of {other.size}: unset the ones that are wrong"
            )
    return given


def resolve(env: MutableMapping[str, str] = os.environ) -> Place:
    """The same, and sets what torch reads: RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR, MASTER_PORT.

    Raises Refused as `place` does, and where nobody says at which address the ranks meet.
    """
    found = place(env)
    address, port = _meeting(found, env)
    env.update(
        RANK=str(found.rank),
        WORLD_SIZE=str(found.size),
        LOCAL_RANK=str(found.local_rank),
        MASTER_ADDR=address,
        MASTER_PORT=str(port),
    )
    return found


def _started_by(name: str, names: tuple[str, ...], env: Mapping[str, str]) -> bool:
    if name == "srun":  # a batch script has SLURM_PROCID as well, but is no step
        return "SLURM_STEP_ID" in env and "SLURM_PROCID" in env
    return names[0] in env or names[1] in env


def _read(launcher: str, names: tuple[str, ...], env: Mapping[str, str]) -> Place:
    size_name = names[1]
    if launcher == "srun" and size_name not in env:
        size_name = "SLURM_NTASKS"
    rank, size = (_needed(name, env, names) for name in (names[0], size_name))
    if not 0 <= rank < size:
        raise Refused(f"{names[0]} = {rank} is no rank of {size_name} = {size}")
    if size > 1 and names[2] not in env:
        raise Refused(f"{names[2]} is missing: which process of its host rank {rank} is")
    local = _number(names[2], env) or 0
    return Place(rank, size, local, (_number(names[3], env) or 0) if names[3] else 0, launcher)


def _needed(name: str, env: Mapping[str, str], names: tuple[str, ...]) -> int:
    if (found := _number(name, env)) is None:
        there = ", ".join(f"{other} = {env[other]}" for other in names if other in env)
        raise Refused(f"{name} is missing beside {there}: give all of them, or none")
    return found


def _number(name: str, env: Mapping[str, str]) -> int | None:
    text = env.get(name)
    if text is None:
        return None
    if not re.fullmatch(r"\d{1,9}", text):
        raise Refused(f"{name} must be a whole number from 0, got {text!r}")
    return int(text)


def _meeting(found: Place, env: Mapping[str, str]) -> tuple[str, int]:
    """Where rank 0 listens."""
    address, port = env.get("MASTER_ADDR"), _number("MASTER_PORT", env)
    if port is not None and not 0 < port < 1 << 16:
        raise Refused(f"MASTER_PORT must be a port from 1 to 65535, got {port}")
    if found.size == 1 and port is None:
        return address or "127.0.0.1", _free_port()
    if address and port:
        return address, port
    if found.launcher == "srun":
        nodes = env.get("SLURM_STEP_NODELIST") or env.get("SLURM_JOB_NODELIST", "")
        job = f"{env.get('SLURM_JOB_ID')}.{env.get('SLURM_STEP_ID')}"
        if nodes:
            return address or first_host(nodes), port or _port_of(job)
    if found.launcher in ("openmpi", "mpich"):
        if found.local_size == found.size:
            # One process of the launcher's on this host started all of us.
            job = env.get("PMIX_NAMESPACE") or f"{os.getppid()}"
            return address or "127.0.0.1", port or _port_of(job)
        if met := _by_mpi(found):
            return address or met[0], port or met[1]
    absent = [name for name in ("MASTER_ADDR", "MASTER_PORT") if not env.get(name)]
    raise Refused(
        f"no {' and '.join(absent)} for {found.size} ranks: the host of rank 0, and a port that is "
        "free there; give them to all ranks"
    )


def first_host(nodes: str) -> str:
    """The first of Slurm's list of hosts: gpu[07-09,12],login -> gpu07."""
    head = re.match(r"([^,\[]*)(?:\[([^\],-]*)[^\]]*\]([^,\[]*))?", nodes)
    assert head is not None, nodes
    return "".join(part or "" for part in head.groups())


def _port_of(job: str) -> int:
    """The same on all ranks of a job, and most likely another for another job."""
    return LOWEST_PORT + zlib.crc32(job.encode()) % PORTS


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def _by_mpi(found: Place) -> tuple[str, int] | None:
    """Rank 0's address and a free port of its host, which all get over MPI; None without mpi4py."""
    try:
        from mpi4py import MPI
    except (ImportError, RuntimeError):
        return None
    world = MPI.COMM_WORLD
    if world.Get_size() != found.size:  # another MPI than that of the mpirun that started us
        return None
    mine = None
    if found.rank == 0:
        mine = socket.gethostbyname(socket.getfqdn()), _free_port()
    return world.bcast(mine, root=0)
