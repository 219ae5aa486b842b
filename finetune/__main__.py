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
from januslm.launch.environment import data_root


def main() -> int:
    options = _arguments()

    def resolved() -> ResolvedFinetuneRun:
        file = shipped(options.run, RUNS["finetune"])
        return resolve(load(file, options.changes), file, options.data, options.ds)

    if options.check is not None:  # the launcher asks, before it starts anything, without torch
        return answered(lambda: print_json(check_start(resolved(), options.check)))
    from finetune.job import build
    from januslm.training.process import run_process

    return run_process(resolved, build, options.report)


def _arguments() -> argparse.Namespace:
    known = run_parser("finetune", __doc__)
    known.add_argument("--data", default=data_root(), help="where tasks look for their files")
    return known.parse_intermixed_args()


if __name__ == "__main__":
    sys.exit(main())
