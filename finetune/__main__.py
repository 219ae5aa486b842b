"""Fine-tune a model on a task: `python -m finetune RUN.toml [key=value ...]`."""

import argparse
import sys
from pathlib import Path

from finetune.settings import ResolvedRun, load, resolve
from januslm.cli.command import answered


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m finetune", description=__doc__)
    parser.add_argument("run", help="a file of finetune/runs/")
    parser.add_argument("changes", nargs="*", metavar="key=value", help="e.g. train.steps=100")
    parser.add_argument("--ds", default="", help="a file of ds_configs/: how the run is spread")
    parser.add_argument("--data", default="../shared/data", help="where tasks look for their files")
    parser.add_argument("--check", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--report", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--local_rank", help=argparse.SUPPRESS)  # DeepSpeed's launcher adds it
    options = parser.parse_intermixed_args()

    def resolved() -> ResolvedRun:
        run = load(options.run, options.changes)
        return resolve(run, options.run, options.data, options.ds)

    if options.check:  # the launcher asks, before it starts anything; torch is not imported
        return answered(lambda: resolved() and 0)
    from finetune.job import build
    from januslm.training.process import run_process

    return run_process(resolved, build, options.report)


if __name__ == "__main__":
    sys.exit(main())
