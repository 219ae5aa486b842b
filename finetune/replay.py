"""The examples of one update of a fine-tuning run again, each with its loss: januslm replay."""

import sys
from pathlib import Path

from finetune.settings import CHANGEABLE, FinetuneRun, resolve
from januslm import config
from januslm.cli.command import answered, step_parser
from januslm.model.config import GIVEN_BY_OTHERS

DESCRIPTION = "Which examples of update STEP have a loss that is not finite."


def main() -> int:
    options = step_parser("replay", DESCRIPTION).parse_args()
    return answered(lambda: _replay(Path(options.run), options.step))


def _replay(folder: Path, step: int) -> None:
    import torch

    from finetune.job import build
    from januslm.training.engine import World
    from januslm.training.replay import report, settings

    about = settings(folder)
    about.pop("tokenizer_sha256", None)
    about["data"].pop("pairs", None)
    kept = CHANGEABLE if about["start"] else about["model"].keys() - GIVEN_BY_OTHERS
    about["model"] = {k: v for k, v in about["model"].items() if k in kept}
    run = config.build(FinetuneRun, about, f"{folder}/config.json")
    resolved = resolve(run, str(folder), about["data"]["root"])
    _, job = build(resolved, World(0, 1, torch.device("cpu")))
    for line in report(folder, step, job, resolved.run.train.batch):
        print(line, flush=True)


if __name__ == "__main__":
    sys.exit(main())
