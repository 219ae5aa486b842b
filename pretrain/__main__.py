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
from pretrain.settings import PretrainRun, ResolvedPretrainRun, check_start, resolve


def main() -> int:
    options = _arguments()

    def resolved(quick: bool = False) -> ResolvedPretrainRun:
        file = shipped(options.run, RUNS["pretrain"])
        return resolve(config.load(PretrainRun, file, options.changes), file, options.ds, quick)

    if options.check is not None:  # the launcher asks, before it starts anything, without torch
        return answered(lambda: print_json(check_start(resolved(quick=True), options.check)))
    from januslm.training.process import run_process
    from pretrain.job import build

    return run_process(resolved, build, options.report)


def _arguments() -> argparse.Namespace:
    return run_parser("pretrain", __doc__).parse_intermixed_args()


if __name__ == "__main__":
    sys.exit(main())
