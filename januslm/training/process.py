"""One process of a training run, from its first import to its exit code."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from januslm.cli.paths import SPREADS, shipped
from januslm.config import Refused
from januslm.training.engine import World, connect, leave
from januslm.training.job import Job
from januslm.training.trainer import RunPlan, train

REFUSED = 2  # exit code: the user's mistake, named in one line


def spread(asked: str, world: World) -> Path:
    """The file of ds_configs/ that was asked for, else the usual one for this machine."""
    usual = "zero1_bf16" if world.device.type == "cuda" else "cpu_fp32"
    return Path(shipped(asked or usual, SPREADS))


def run_process(
    resolve: Callable[[], Any], build: Callable[[Any, World], tuple[RunPlan, Job]]
) -> int:
    """Join the ranks, train, and return the exit code: 0 done, 85 resume me, 2 refused.

    resolve() reads and checks the run file before the ranks meet; build makes the rest of it.
    """
    world, code = None, REFUSED
    try:
        resolved = resolve()
        world = connect()
        plan, job = build(resolved, world)
        code = train(plan, job, world).code
    except Refused as error:
        print(f"error: {error}", file=sys.stderr)
    if world:
        leave(code)
    return code
