"""What is started where: the hosts of a run, their ranks, and the command of each rank."""

import os
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from januslm.cli.command import program
from januslm.cli.paths import ROOT, RUNS
from januslm.config import Refused
from januslm.launch import hosts, remote
from januslm.launch.commands import Options
from januslm.launch.environment import data_root, gpus

HERE = "localhost"
FROM_SCRATCH = "--from-scratch"  # argparse takes its beginnings as well


@dataclass(frozen=True)
class Job:
    """A verb that trains, with its arguments, on hosts with so many ranks each."""

    verb: str
    arguments: tuple[str, ...]
    hosts: Mapping[str, int]

    @property
    def world(self) -> int:
        return sum(self.hosts.values())

    @property
    def command(self) -> list[str]:
        """Of every rank, behind the interpreter; RANK and its like tell them apart."""
        return ["-m", self.verb, *self.arguments]

    @property
    def again(self) -> "Job":
        """The same for a restart, which goes on: --from-scratch was for the first start."""
        kept = [a for a in self.arguments if not (a[:3] == "--f" and FROM_SCRATCH.startswith(a))]
        return replace(self, arguments=tuple(kept))

    @property
    def first(self) -> dict[str, int]:
        """The first rank of each host."""
        found, count = {}, 0
        for host, ranks in self.hosts.items():
            found[host] = count
            count += ranks
        return found

    def who(self, host: str, rank: int) -> str:
        """A rank as messages name it; "" where there is but one."""
        if self.world == 1:
            return ""
        return f"rank {rank} on {host}" if len(self.hosts) > 1 else f"rank {rank}"

    def show(self) -> None:
        """Print what is started on each host, as it could be typed."""
        for host, count in self.hosts.items():
            if not hosts.is_here(host):
                print(shlex.join(remote.command(host)))
            for local in range(count):
                rank = self.first[host] + local
                own = f"RANK={rank} LOCAL_RANK={local} WORLD_SIZE={self.world}"
                print(f"env {own} {shlex.join([remote.python(), '-P', *self.command])}")


def planned(verb: str, words: Sequence[str], options: Options) -> Job:
    """From a command line.  Refused for a run that is not named, and a hostfile that is wrong."""
    if not words:
        names = ", ".join(path.stem for path in sorted((ROOT / RUNS[verb]).glob("*.toml")))
        raise Refused(f"which run? {program()} {verb} RUN [key=value ...]; there are {names}")
    arguments = [*words, *(["--ds", options.ds] if options.ds else [])]
    if verb == "finetune" and not any(word.startswith("--data") for word in words):
        arguments += ["--data", data_root()]
    return Job(verb, tuple(arguments), spread(options))


def spread(options: Options) -> dict[str, int]:
    """Ranks by host; --gpus stands for the slots of every host."""
    if options.hostfile:
        slots = hosts.read(options.hostfile)
        return {host: options.gpus or count for host, count in slots.items()}
    there = 0 if os.environ.get("DS_ACCELERATOR") == "cpu" else gpus()
    return {HERE: options.gpus or there or 1}
