"""One process of a training run, from its first import to its exit code."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from januslm.cli.paths import SPREADS, shipped
from januslm.config import Refused
from januslm.training.engine import World, connect, leave
from januslm.training.job import Job
from januslm.training.trainer import RESUME, RunPlan, train

REFUSED = 2  # exit code: the user's mistake, named in one line


def spread(asked: str, world: World) -> Path:
    """The file of ds_configs/ that was asked for, else the usual one for this machine."""
    usual = "zero1_bf16" if world.device.type == "cuda" else "cpu_fp32"
    return Path(shipped(asked or usual, SPREADS))


def run_process(
    resolve: Callable[[], Any],
    build: Callable[[Any, World], tuple[RunPlan, Job]],
    report: Path | None,
) -> int:
    """Join the ranks, train, and return the exit code: 0 done, 85 resume me, 2 refused.

    resolve() reads and checks the run file before the ranks meet; build makes the rest of it.
    report: a folder for januslm/launch, where a file started says that the ranks have met, and a
    file done, resume or refused how it ended.
    """
    world, code = None, REFUSED
    try:
        resolved = resolve()
        world = connect()
        plan, job = build(resolved, world)
        if report and world.first:
            (report / "started").touch()
        code = train(plan, job, world).code
        if report and world.first:
            (report / ("resume" if code == RESUME else "done")).write_text(f"{plan.folder}\n")
    except Refused as error:
        if _first_to_say(report, "refused"):
            print(f"error: {error}", file=sys.stderr)
    if world:
        leave(code)
    return code


def _first_to_say(report: Path | None, what: str) -> bool:
    """True in one process: all ranks meet the same mistake, but it may also be one rank's alone."""
    if not report:
        return True
    try:
        (report / what).open("x").close()
    except FileExistsError:
        return False
    return True
