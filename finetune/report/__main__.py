"""One HTML file that tells a run, or compares several: it needs no network and no server.

  PROGRAM report runs/demo/restore                      report.html, here
  PROGRAM report runs/a runs/b -o a_and_b.html         side by side, with what differs
  PROGRAM report runs/a --examples 0                   without written examples: without torch

Curves, speed, memory, starts and stops with their reasons, the data's card, the layout's drawing,
scores with intervals of RUN/predictions, and examples that the exported model writes now, pass by
pass.  What is missing or damaged in a run's folder is named in the page.
"""

import argparse
import os
import sys
from pathlib import Path

from finetune.report import page
from januslm.cli.command import answered, check_counts, parser, whole
from januslm.config import Refused
from januslm.data import atomic
from januslm.runs.compare import Facts, facts_of

EXAMPLES, ITERATIONS = 3, 4


def main() -> int:
    options = _arguments()
    return answered(lambda: report(options))


def _arguments() -> argparse.Namespace:
    known = parser("report", __doc__ or "")
    known.add_argument("runs", metavar="RUN", nargs="+", type=Path, help="the folder of a run")
    known.add_argument("-o", "--output", type=Path, default=Path("report.html"), metavar="FILE")
    known.add_argument(
        "--examples", type=whole, default=EXAMPLES, metavar="N",
        help=f"texts that are written now, of each run (default: {EXAMPLES}; 0: none)",
    )  # fmt: skip
    known.add_argument(
        "--iterations", type=whole, default=ITERATIONS,
        help=f"NAR's passes in the examples (default: {ITERATIONS})",
    )  # fmt: skip
    known.add_argument("--threads", type=whole, help="CPU threads (default: torch's)")
    return known.parse_args()


def report(options: argparse.Namespace) -> None:
    """Refused, before anything slow, for a folder that is no run and a file that cannot be."""
    check_counts(options, "iterations", "threads")
    if options.examples < 0:
        raise Refused(f"--examples must be at least 0, got {options.examples}")
    _check_output(options.output)
    folders = {folder.resolve(): folder for folder in reversed(options.runs)}
    runs = [_read(folder) for folder in reversed(folders.values())]
    text = page.written(runs, options.examples, options.iterations, options.threads)
    with atomic.plain(options.output) as file:
        file.write(text)
    print(f"wrote {options.output}: {len(text.encode()) / 1000:,.0f} kB")


def _read(folder: Path) -> Facts:
    print(f"reading {folder}", file=sys.stderr, flush=True)
    return facts_of(folder)


def _check_output(path: Path) -> None:
    if not path.parent.is_dir():
        raise Refused(f"{path}: there is no folder {path.parent}; make it, or name another file")
    if path.is_dir():
        raise Refused(f"{path}: is a folder; name a file in it: -o {path / 'report.html'}")
    if not os.access(path.parent, os.W_OK):
        raise Refused(f"{path}: cannot be written, {path.parent} may not be written by this user")


if __name__ == "__main__":
    sys.exit(main())
