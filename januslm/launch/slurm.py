"""A run as a batch script of Slurm's, which stops it before its time is over and queues it anew."""

import argparse
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from januslm import config
from januslm.cli.command import Parser, program
from januslm.cli.paths import ROOT, RUNS, shipped
from januslm.config import Refused
from januslm.data import atomic
from januslm.launch.commands import Options, module, shell_code
from januslm.launch.environment import cloned, data_root, environment
from januslm.launch.job import planned

BEFORE = 300  # seconds between the signal to save and the end of the job's time
REST = 60  # seconds that ranks have after the first of them has ended
# Options of sbatch that are handed on as they are.
HANDED_ON: tuple[str, ...] = ("partition", "account", "qos", "constraint", "reservation", "mem")
HANDED_ON += ("cpus-per-task", "exclude", "nodelist", "mail-user", "mail-type", "gres", "output")
VALUE = re.compile(r"[\w.,:@%+*\[\]()|&=/-]+", re.ASCII)  # no blank, quote, or end of line
TIME = re.compile(r"(\d+-)?\d{1,3}(:\d\d){0,2}", re.ASCII)
DESCRIPTION = """A batch script for Slurm, printed or written with -o: sbatch FILE starts it.

PROGRAM slurm pretrain base --nodes 4 --gpus 8 --time 24:00:00 --partition gpu -o base.sbatch
PROGRAM slurm mine.toml train.steps=2000 --nodes 2 --tasks 16 --time 1-00:00:00

The run saves 5 minutes before its time is over, and the job queues itself again until it is done.
"""

SCRIPT = """\
#!/bin/bash
{directives}
# Slurm sends SIGUSR1 before the time is over, scancel and preemption send SIGTERM: the ranks save,
# and exit with 85, upon which the job is queued again and goes on from there.
{variables}
export MASTER_ADDR=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
export MASTER_PORT=$((20000 + SLURM_JOB_ID % 12000))
[ -z "${{SLURM_CPUS_PER_TASK:-}}" ] || export SRUN_CPUS_PER_TASK=$SLURM_CPUS_PER_TASK
export OMP_NUM_THREADS=${{SLURM_CPUS_PER_TASK:-1}}
cd -- {folder} || exit 2
srun --wait={rest} {command}
code=$?
[ $code -ne 85 ] || scontrol requeue "$SLURM_JOB_ID"
exit $code
"""


def slurm(words: Sequence[str], options: Options) -> int:
    """Print or write the script, once the run itself is found to be without a mistake."""
    given = _arguments(words)
    run = list(given.run)
    verb = run.pop(0) if run[:1] and run[0] in RUNS else _verb(run)
    each = given.tasks or options.gpus
    if not each or (given.tasks and options.gpus):
        raise Refused("either --gpus N or --tasks N: the processes on each node")
    job = planned(verb, [*run, *(["--data", given.data] if given.data else [])], options)
    directives = _directives(given, options, each, Path(run[0]).stem)
    check = module(verb, *job.arguments, "--check", str(given.nodes * each))
    done = subprocess.run(check, env=environment(), stdout=subprocess.PIPE, check=False)
    if done.returncode:
        return shell_code(done.returncode)
    text = SCRIPT.format(
        directives="\n".join(f"#SBATCH --{one}" for one in directives),
        variables=_variables(on_cpu=bool(given.tasks)),
        folder=shlex.quote(os.getcwd()),
        rest=REST,
        command=shlex.join([sys.executable, "-P", *job.command]),
    )
    if not given.out:
        print(text, end="", flush=True)
        return 0
    with atomic.plain(Path(given.out)) as file:
        file.write(text)
    return 0


def _arguments(words: Sequence[str]) -> argparse.Namespace:
    plain = argparse.RawDescriptionHelpFormatter
    described = DESCRIPTION.replace("PROGRAM", program())
    known = Parser(f"{program()} slurm", description=described, formatter_class=plain)
    known.add_argument("run", nargs="+", metavar="[VERB] RUN [key=value]", help="as for the verb")
    known.add_argument("--nodes", type=int, required=True)
    known.add_argument("--tasks", type=int, default=0, help="processes on each node, without GPUs")
    known.add_argument("--time", required=True, help="[DAYS-]HOURS:MINUTES:SECONDS")
    known.add_argument("--data", help="for fine-tuning: where tasks look for their files")
    known.add_argument("-o", dest="out", metavar="FILE", help="write the script")
    for name in HANDED_ON:
        known.add_argument(f"--{name}", help=argparse.SUPPRESS)
    known.epilog = f"--gpus N: processes on each node, a GPU each; also {', '.join(HANDED_ON)}"
    given = known.parse_intermixed_args(words)
    for name in ("nodes", "tasks"):
        if not 0 <= getattr(given, name) < 2**20 or not given.nodes:
            raise Refused(f"--{name} must be a whole number from 1, got {getattr(given, name)}")
    if not TIME.fullmatch(given.time):
        raise Refused(f"--time must be [DAYS-]HOURS:MINUTES:SECONDS, got {given.time!r}")
    return given


def _directives(given: argparse.Namespace, options: Options, each: int, name: str) -> list[str]:
    """The script's #SBATCH lines; Refused for a value that would not be one word there."""
    found = [f"job-name={re.sub(r'[^A-Za-z0-9_.-]', '-', name)}", f"nodes={given.nodes}"]
    found += [f"ntasks-per-node={each}", f"time={given.time}", f"signal=USR1@{BEFORE}"]
    found += [f"gpus-per-node={options.gpus}"] if options.gpus else []
    found += ["requeue", "open-mode=append"]
    for option in HANDED_ON:
        value = getattr(given, option.replace("-", "_"))
        if value is not None:
            if not VALUE.fullmatch(value):
                raise Refused(f"--{option} {value!r} is no value for sbatch")
            found.append(f"{option}={value}")
    return found if given.output else [*found, "output=%x-%j.log"]


def _variables(on_cpu: bool) -> str:
    """What launch.sh gives its processes on one machine."""
    found = {
        "JANUSLM_DATA": os.path.abspath(data_root()),
        "TOKENIZERS_PARALLELISM": "false",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "PYTHONSAFEPATH": "1",
    }
    if cloned():
        found["PYTHONPATH"] = environment()["PYTHONPATH"]
    if on_cpu:
        found["DS_ACCELERATOR"] = "cpu"
    return "\n".join(f"export {name}={shlex.quote(value)}" for name, value in found.items())


def _verb(run: Sequence[str]) -> str:
    """Of a run file that is named without its verb: one with a task is fine-tuned."""
    if not run:
        raise Refused(f"which run? {program()} slurm RUN --nodes N --gpus N --time HH:MM:SS")
    if Path(run[0]).is_file():
        return "finetune" if "task" in config.tree(run[0]) else "pretrain"
    for verb, folder in RUNS.items():
        if any(run[0] in (path.stem, path.name) for path in (ROOT / folder).glob("*.toml")):
            return verb
    shipped(run[0], RUNS["pretrain"])
    raise AssertionError(run[0])
