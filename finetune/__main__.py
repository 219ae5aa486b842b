"""Fine-tune a model on a task: RUN is a file of finetune/runs/, by name or path, or your own.

PROGRAM finetune docsum                      goes on where it stopped
PROGRAM finetune docsum objective.name=ar    any key of the file
PROGRAM finetune glge_janus task=xsum --gpus 8
"""

import argparse
import sys

from finetune.settings import ResolvedFinetuneRun, check_start, load, resolve
from januslm.cli.command import answered, print_json, run_parser
from januslm.cli.paths import RUNS, shipped
from januslm.config import Refused
from januslm.launch.environment import data_root


def main() -> int:
    options = _arguments()

    def resolved() -> ResolvedFinetuneRun:
        file = shipped(options.run, RUNS["finetune"])
        return resolve(load(file, options.changes), file, options.data, options.ds)

    if options.check:  # the launcher asks, before it starts anything, without torch
        return answered(lambda: print_json(_checked(resolved(), options)))
    from finetune.job import build
    from januslm.training.process import run_process

    return run_process(resolved, build, options.report)


def _checked(found: ResolvedFinetuneRun, options: argparse.Namespace) -> dict:
    if hasattr(found.task, "ROOT") and options.data != data_root():
        raise Refused(
            f"--data: task {found.run.task!r} names its files from where you stand; say "
            f"data.root={options.data}"
        )
    return check_start(found, options.check)


def _arguments() -> argparse.Namespace:
    known = run_parser("finetune", __doc__)
    known.add_argument("--data", default=data_root(), help="where tasks look for their files")
    return known.parse_intermixed_args()


if __name__ == "__main__":
    sys.exit(main())
