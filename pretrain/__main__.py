"""Pretrain a model on token shards: `python -m pretrain RUN.toml [key=value ...]`."""

import argparse
import sys
from pathlib import Path

from januslm import config
from januslm.cli.command import answered
from pretrain.settings import PretrainRun, ResolvedRun, resolve


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m pretrain", description=__doc__)
    parser.add_argument("run", help="a file of pretrain/runs/")
    parser.add_argument("changes", nargs="*", metavar="key=value", help="e.g. train.steps=100")
    parser.add_argument("--ds", default="", help="a file of ds_configs/: how the run is spread")
    parser.add_argument("--check", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--report", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--local_rank", help=argparse.SUPPRESS)  # DeepSpeed's launcher adds it
    options = parser.parse_intermixed_args()

    def resolved(verify: str = "") -> ResolvedRun:
        changes = [*options.changes, *([f"data.verify={verify}"] if verify else [])]
        return resolve(config.load(PretrainRun, options.run, changes), options.run, options.ds)

    if options.check:  # the launcher asks, before it starts anything; torch is not imported
        return answered(lambda: resolved(verify="size") and 0)
    from januslm.training.process import run_process
    from pretrain.job import build

    return run_process(resolved, build, options.report)


if __name__ == "__main__":
    sys.exit(main())
