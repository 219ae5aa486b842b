"""Pretrain a model on token shards: RUN is a file of pretrain/runs/, by name or path, or your own.

PROGRAM pretrain tiny                        goes on where it stopped
PROGRAM pretrain tiny train.steps=2000       any key of the file
PROGRAM pretrain base --gpus 8 --ds zero2_bf16
"""

import argparse
import sys

from januslm import config
from januslm.cli.command import answered, print_json, run_parser
from januslm.cli.paths import RUNS, shipped
from januslm.training import begin
from januslm.training.run_lock import check_free
from pretrain.settings import PretrainRun, ResolvedPretrainRun, check_start, resolve


def main() -> int:
    options = _arguments()

    def load_run() -> PretrainRun:
        return config.load(PretrainRun, shipped(options.run, RUNS["pretrain"]), options.changes)

    def resolved(quick: bool = False) -> ResolvedPretrainRun:
        file = shipped(options.run, RUNS["pretrain"])
        return resolve(load_run(), file, options.ds, quick)

    def check(**how: bool) -> dict:
        check_free(load_run().out)
        return check_start(resolved(**how), options.check, begin.start_of(options))

    if options.check is not None:  # the launcher asks, before it starts anything, without torch
        return answered(lambda: print_json(check(quick=True)))

    def estimate() -> None:
        from januslm.training import estimate
        from pretrain.job import workload

        found = resolved()
        check_start(found, options.estimate, begin.start_of(options))
        print(estimate.table(workload(found), options.estimate), flush=True)

    if options.estimate is not None:
        return answered(estimate)

    def train(begun: begin.Begun) -> int:
        from januslm.training.process import run_process
        from pretrain.job import build

        return run_process(begun, build)

    return begin.process(lambda: load_run().out, resolved, train, options)


def _arguments() -> argparse.Namespace:
    return run_parser("pretrain", __doc__).parse_intermixed_args()


if __name__ == "__main__":
    sys.exit(main())
