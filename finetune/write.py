"""Sentences of your own, written AR, NAR pass by pass, and speculatively, with times.

  PROGRAM write runs/demo/restore                       asks for a sentence; Ctrl-D ends
  PROGRAM write runs/demo/restore --iterations 10
  ... | PROGRAM write runs/demo/restore                 a sentence a line, no colours

Of the three ways those are shown that the checkpoint has been taught.  In NAR's passes new words
are bold, and `_` stands for a word that is hidden again and written anew in the next pass.
Options of decoding are those of the task that the run was trained on.  $NO_COLOR is heeded.
"""

import argparse
import os
import sys
from contextlib import suppress

from finetune.side_by_side import NAMES, Screen, Writer, read_lines
from januslm.cli.command import answered, check_counts, parser, whole
from januslm.config import Refused
from januslm.inference import request
from januslm.interop.export_folder import ExportFacts, read_facts

ITERATIONS = 4
PROMPT = "> "


def main() -> int:
    options = _arguments()
    return answered(lambda: write(options))


def _arguments() -> argparse.Namespace:
    known = parser("write", __doc__ or "")
    known.add_argument("run", metavar="RUN", help="a run's folder, or its export/")
    known.add_argument(
        "--iterations",
        type=whole,
        default=ITERATIONS,
        help=f"NAR's passes (default: {ITERATIONS})",
    )
    known.add_argument("--threads", type=whole, help="CPU threads (default: torch's)")
    return known.parse_args()


def write(options: argparse.Namespace) -> int:
    """A prompt on a terminal; else every line of stdin.  Returns the exit code."""
    check_counts(options, "iterations", "threads")
    facts = read_facts(options.run)
    ways, notes = chosen(facts, options.iterations)
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="replace")  # type: ignore[union-attr]  # letters it cannot show
    terminal = sys.stdin.isatty() and sys.stdout.isatty()
    print(f"loading {facts.folder}", file=sys.stderr, flush=True)
    screen = Screen(terminal)
    writer = _opened(facts, options, ways, screen)
    for note in [_about(writer), *notes]:
        print(note, file=sys.stderr, flush=True)
    if terminal:
        return _prompt(writer)
    try:
        for text in read_lines(sys.stdin.buffer):
            print(f"{PROMPT}{text}")
            if text.strip():
                writer.show(text)
            print(flush=True)
    except BrokenPipeError:  # the reader, `head` perhaps, has enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    return 0


def chosen(facts: ExportFacts, iterations: int) -> tuple[dict[str, dict], list[str]]:
    """The ways that the checkpoint has been taught, with their options; what is said of others."""
    usual, notes = request.usual(facts), []
    names = request.taught(facts, NAMES)
    if not names:
        raise Refused(f"{facts.folder}: objective {facts.objective!r} writes in none of the ways")
    if "mask_predict" in names and not request.knows_lengths(facts):
        names.remove("mask_predict")
        notes.append("NAR is left out: the checkpoint has not been taught how long texts are")
    given = {name: {"iterations": iterations} if name == "mask_predict" else {} for name in names}
    return {name: request.settings(facts, name, given[name], usual) for name in names}, notes


def _opened(facts: ExportFacts, options, ways: dict[str, dict], screen: Screen) -> Writer:
    """The model, after its first passes: torch from here on."""
    import torch

    from januslm.inference import trained_model

    torch.set_num_threads(options.threads or torch.get_num_threads())
    writer = Writer(trained_model.opened(facts), ways, screen)
    writer.warm()
    return writer


def _about(writer: Writer) -> str:
    """What is about to write, and on what."""
    import torch

    facts, weight = writer.model.facts, writer.model.embedding.weight
    size = sum(p.numel() for p in writer.model.parameters()) / 1e6
    task = facts.about.get("task")
    learnt = f"{facts.objective}, {size:.1f} M parameters" + (f", task {task}" if task else "")
    kind = str(weight.dtype).partition(".")[2]
    threads = torch.get_num_threads()
    cpu = f"{threads} CPU thread" + "s" * (threads != 1)
    place = cpu if weight.device.type == "cpu" else "GPU"
    return f"{learnt} | {place}, {kind}"


def _prompt(writer: Writer) -> int:
    """Sentence by sentence until Ctrl-D, or Ctrl-C at the prompt; in between it stops a text."""
    with suppress(ImportError):
        import readline  # noqa: F401  # what is typed can be edited, and called back
    print("A sentence, then Enter. Ctrl-D ends.", file=sys.stderr, flush=True)
    while True:
        try:
            text = input(PROMPT)
        except (EOFError, KeyboardInterrupt):
            print()
            return 0
        except UnicodeDecodeError:
            print("(not UTF-8 text)")
            continue
        try:
            text.encode()
            if text.strip():
                writer.show(text)
                print()
        except UnicodeEncodeError:
            print("(not UTF-8 text)")
        except KeyboardInterrupt:
            print("\n(stopped)")


if __name__ == "__main__":
    sys.exit(main())
