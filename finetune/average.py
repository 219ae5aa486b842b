"""Average the last exports of a run: `python -m finetune.average RUN --last N OUT`."""

import argparse
import sys
from pathlib import Path

from januslm.config import Refused, plain
from januslm.interop import native
from januslm.rundir import EXPORTS, difference


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m finetune.average",
        description="Average the weights of the last N exports that a run kept (train.exports) "
        "into a model that generate and finetune read.",
    )
    parser.add_argument("run", type=Path, help="a run's folder, with exports/ in it")
    parser.add_argument("out", type=Path, help="the folder to write")
    parser.add_argument("--last", type=int, required=True, metavar="N")
    options = parser.parse_intermixed_args()
    try:
        names = average(options.run, options.last, options.out)
    except Refused as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"wrote {options.out}: the mean of {', '.join(names)}")
    return 0


def average(run: Path, last: int, out: Path) -> list[str]:
    """Write the mean of the last exports to `out`; returns the names of what went in.

    Refused where there are fewer, where they are not of one model, and where `out` is taken.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise Refused(f"{out}: is not empty; name a new folder")
    places = newest(run, last)
    first = native.read(places[0])
    # Summed in fp64, so that the order does not matter and equal weights stay bit for bit.
    total = {name: value.double() for name, value in first.model.state_dict().items()}
    for place in places[1:]:
        saved = native.read(place)
        _same(first, saved)
        for name, value in saved.model.state_dict().items():
            total[name] += value
    mean = {name: (value / len(places)).float() for name, value in total.items()}
    native.fill(first.model, mean, run)
    names = [place.name for place in places]
    words = first.folder / native.FILES[2]
    about = first.about | {"averaged": names}
    native.write(out, first.model, words, first.objective, first.options, about)
    return names


def newest(run: Path, last: int) -> list[Path]:
    """The folders of the last exports, oldest first."""
    if last < 1:
        raise Refused(f"--last must be at least 1, got {last}")
    there = sorted((run / EXPORTS).glob("step-*"))
    if len(there) < last:
        raise Refused(
            f"{run / EXPORTS}: {len(there)} exports there, --last {last} asked for; a run keeps "
            f"them with train.exports={last} (the same command with more train.steps goes on)"
        )
    return there[-last:]


def _same(first: native.Saved, other: native.Saved) -> None:
    """Refused unless both are one model: sizes, words, and what they were trained to do."""

    def told(saved: native.Saved) -> dict:
        objective = {"name": saved.objective, **saved.options}
        words = saved.tokenizer.sha256
        return {"model": plain(saved.model.config), "objective": objective, "tokenizer": words}

    if found := difference(told(first), told(other), "config"):
        raise Refused(f"{other.folder} is not of the model in {first.folder}: {found}")


if __name__ == "__main__":
    sys.exit(main())
