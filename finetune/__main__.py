"""Fine-tune a model on a task: RUN is a file of finetune/runs/, by name or path, or your own.

PROGRAM finetune docsum                      goes on where it stopped
PROGRAM finetune docsum objective.name=ar    any key of the file
PROGRAM finetune glge_janus task=xsum --gpus 8
"""

import argparse
import sys

from finetune.settings import FinetuneRun, ResolvedFinetuneRun, check_start, load, resolve
from januslm.cli.command import answered, print_json, run_parser
from januslm.cli.paths import RUNS, shipped
from januslm.config import Refused
from januslm.launch.environment import data_root
from januslm.training import begin
from januslm.training.run_lock import check_free


def main() -> int:
    options = _arguments()

    def load_run() -> FinetuneRun:
        return load(shipped(options.run, RUNS["finetune"]), options.changes)

    def resolved() -> ResolvedFinetuneRun:
        file = shipped(options.run, RUNS["finetune"])
        return resolve(load_run(), file, options.data, options.ds)

    def check() -> dict:
        check_free(load_run().out)
        found = resolved()
        _check_data(found, options)
        return check_start(found, options.check, begin.start_of(options))

    if options.check is not None:  # the launcher asks, before it starts anything, without torch
        return answered(lambda: print_json(check()))

    def estimate() -> None:
        from finetune.job import workload
        from januslm.training import estimate

        found = resolved()
        _check_data(found, options)
        check_start(found, options.estimate, begin.start_of(options))
        print(estimate.table(workload(found), options.estimate), flush=True)

    if options.estimate is not None:
        return answered(estimate)

    def train(begun: begin.Begun) -> int:
        from finetune.job import build
        from januslm.training.process import run_process

        return run_process(begun, build)

    return begin.process(lambda: load_run().out, resolved, train, options)


def _check_data(found: ResolvedFinetuneRun, options: argparse.Namespace) -> None:
    """Refuse --data for a task that names its files by itself."""
    if hasattr(found.task, "ROOT") and options.data != data_root():
        raise Refused(
            f"--data: task {found.run.task!r} names its files from where you stand; say "
            f"data.root={options.data}"
        )


def _arguments() -> argparse.Namespace:
    known = run_parser("finetune", __doc__)
    known.add_argument("--data", default=data_root(), help="where tasks look for their files")
    return known.parse_intermixed_args()


if __name__ == "__main__":
    sys.exit(main())
