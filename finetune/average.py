"""Average some exports of a run (train.exports keeps them): of the last, or of the best.

  PROGRAM average runs/multi30k/ar runs/multi30k/ar_mean --last 5
  PROGRAM average runs/multi30k/ar runs/multi30k/ar_best --best 5 --by ce/ar

The mean of their weights is a model that generate and finetune read.
"""

import argparse
import math
import sys
from pathlib import Path

from januslm.cli.command import answered, parser
from januslm.config import Refused, plain, suggest
from januslm.data import sealed
from januslm.interop.export_folder import FILES, ExportFacts, read_facts
from januslm.training.run_dir import EXPORTS, difference


def main() -> int:
    options = _arguments()

    def command() -> None:
        if options.best is None:
            places = newest(options.run, options.last)
        else:
            places = best(options.run, options.best, options.by)
        names = average(options.run, places, options.out)
        print(f"wrote {options.out}: the mean of {', '.join(names)}")

    return answered(command)


def _arguments() -> argparse.Namespace:
    known = parser("average", __doc__)
    known.add_argument("run", type=Path, metavar="RUN", help="a run's folder, with exports/ in it")
    known.add_argument("out", type=Path, metavar="OUT", help="the folder to write")
    which = known.add_mutually_exclusive_group(required=True)
    which.add_argument("--last", type=int, metavar="N", help="the last N exports")
    which.add_argument("--best", type=int, metavar="N", help="the N exports of the lowest --by")
    known.add_argument(
        "--by",
        default="loss",
        metavar="NAME",
        help="for --best: a number of valid.jsonl; ce/ar is AR's, ce/nar NAR's (default: loss)",
    )
    return known.parse_intermixed_args()


def average(run: Path, places: list[Path], out: Path) -> list[str]:
    """Write the mean of these exports of a run to `out`; returns the names of what went in.

    Refused where they are not of one model, and where `out` is taken.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise Refused(f"{out}: is not empty; name a new folder")
    facts = [read_facts(place) for place in places]
    for other in facts[1:]:
        _same(facts[0], other)
    from januslm.interop import native  # torch from here on

    first = native.read(places[0])
    # Summed in fp64, so that the order does not matter and equal weights stay bit for bit.
    total = {name: value.double() for name, value in first.model.state_dict().items()}
    for place in places[1:]:
        for name, value in native.read(place).model.state_dict().items():
            total[name] += value
    mean = {name: (value / len(places)).float() for name, value in total.items()}
    native.fill(first.model, mean, run)
    names = [place.name for place in places]
    native.write(
        out,
        first.model,
        tokenizer_file=first.folder / FILES[2],
        objective=first.objective,
        options=first.options,
        about=first.about | {"averaged": names},
    )
    return names


def newest(run: Path, last: int) -> list[Path]:
    """The folders of the last exports, oldest first; Refused where there are fewer."""
    return _exports(run, last, "--last")[-last:]


def best(run: Path, count: int, by: str) -> list[Path]:
    """The exports with the lowest validation number `by`, oldest first; of equals, the later one.

    Refused where there are fewer, and where the run did not validate at the step of an export.
    """
    there = _exports(run, count, "--best")
    found = _validation(run / "valid.jsonl", by)
    steps = {int(place.name.removeprefix("step-")): place for place in there}
    if missing := [step for step in steps if step not in found]:
        raise Refused(
            f"{run}: no validation at step {missing[0]}, which {EXPORTS}/ has; --best needs "
            "train.save_every to be a multiple of train.validate_every"
        )
    chosen = sorted(steps, key=lambda step: (found[step], -step))[:count]
    return [steps[step] for step in sorted(chosen)]


def _exports(run: Path, count: int, option: str) -> list[Path]:
    if count < 1:
        raise Refused(f"{option} must be at least 1, got {count}")
    if not run.is_dir():
        raise Refused(f"{run}: no such folder; a run's folder is its `out`")
    there = sorted(one for one in (run / EXPORTS).glob("step-*") if one.name[5:].isdecimal())
    if len(there) < count:
        raise Refused(
            f"{run / EXPORTS}: {len(there)} exports there, {option} {count} asked for; a run keeps "
            f"them with train.exports={count} (the same command with more train.steps goes on)"
        )
    return there


def _validation(path: Path, by: str) -> dict[int, float]:
    """Step -> the number `by`, of a run's valid.jsonl."""
    if not path.is_file():
        raise Refused(f"{path}: no such file, so the run has not validated")
    found = {}
    for number, row in sealed.lines(path):
        if row is None:
            raise Refused(
                f"{path}:{number}: damaged: its content does not match the hash in it; the run "
                "drops such lines when it goes on"
            )
        if by not in row:
            raise Refused(f"{path}:{number}: no number {by!r}{suggest(by, row.keys() - {'step'})}")
        value = math.inf if row[by] is None else row[by]  # a run that broke writes null
        if not isinstance(value, int | float):
            raise Refused(f"{path}:{number}: {by!r} must be a number, got {value!r}")
        if not isinstance(row["step"], int):
            raise Refused(f"{path}:{number}: 'step' must be a whole number, got {row['step']!r}")
        found[row["step"]] = math.inf if math.isnan(value) else value
    return found


def _same(first: ExportFacts, other: ExportFacts) -> None:
    """Refused unless both are one model: sizes, words, and what they were trained to do."""

    def identity(facts: ExportFacts) -> dict:
        objective = {"name": facts.objective, **facts.options}
        words = facts.tokenizer.sha256
        return {"model": plain(facts.config), "objective": objective, "tokenizer": words}

    if found := difference(identity(first), identity(other), "config"):
        raise Refused(f"{other.folder} is not of the model in {first.folder}: {found}")


if __name__ == "__main__":
    sys.exit(main())
