"""The examples of one update of a pretraining run again, each with its loss: januslm replay."""

import sys
from pathlib import Path

from januslm import config
from januslm.cli.command import answered, step_parser
from januslm.model.config import GIVEN_BY_OTHERS
from pretrain.settings import PretrainRun, resolve

DESCRIPTION = "Which examples of update STEP have a loss that is not finite."


def main() -> int:
    options = step_parser("replay", DESCRIPTION).parse_args()
    return answered(lambda: _replay(Path(options.run), options.step))


def _replay(folder: Path, step: int) -> None:
    import torch

    from januslm.training.engine import World
    from januslm.training.replay import report, settings
    from pretrain.job import build

    about = settings(folder)
    about.pop("tokenizer_sha256", None)
    about["data"].pop("fingerprints", None)
    about["model"] = {k: v for k, v in about["model"].items() if k not in GIVEN_BY_OTHERS}
    run = config.build(PretrainRun, about, f"{folder}/config.json")
    resolved = resolve(run, str(folder))
    _, job = build(resolved, World(0, 1, torch.device("cpu")))
    for line in report(folder, step, job, resolved.run.train.batch):
        print(line, flush=True)


if __name__ == "__main__":
    sys.exit(main())
