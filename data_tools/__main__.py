"""From text to token shards: build, tokenizer, verify, inspect, summaries.

  python -m data_tools tokenizer data_tools/corpora/docstrings.toml   learn a vocabulary
  python -m data_tools build     data_tools/corpora/docstrings.toml   write the shards
  python -m data_tools inspect   runs/docstrings 3                    counts and 3 documents
  python -m data_tools verify    runs/docstrings                      hash every byte

A corpus file is TOML; key=value after it changes a key: `build CORPUS.toml processes=8`.
docs/corpora.md explains every key, the files written, and how to add a source.
"""

import argparse
import sys

from januslm.config import Refused


def main() -> int:
    """Run one command; a user's mistake is one line and exit code 2."""
    given = _parser().parse_args()
    try:
        given.run(given)
    except Refused as error:
        return _failed(error, given, 2)
    except OSError as error:
        place = f"{error.filename}: " if error.filename else ""
        return _failed(f"{place}{error.strerror or error}; what is finished is kept", given, 2)
    except KeyboardInterrupt:
        return _failed("interrupted; the same command goes on from here", given, 130)
    return 0


def _failed(message: object, given: argparse.Namespace, code: int) -> int:
    from data_tools.pool import first_rank

    if first_rank(getattr(given, "mpi", False)):
        print(message, file=sys.stderr)
    return code


def _say(text: str) -> None:
    print(text, flush=True)


def _build(given: argparse.Namespace) -> None:
    from data_tools.build import build
    from data_tools.recipe import read

    build(read(given.corpus, given.changes), _say, given.fresh, given.mpi)


def _tokenizer(given: argparse.Namespace) -> None:
    from data_tools.recipe import read
    from data_tools.vocabulary import learn

    learn(read(given.corpus, given.changes), _say, given.fresh)


def _verify(given: argparse.Namespace) -> None:
    from data_tools.inspection import verify

    verify(given.folder, given.tokenizer, _say)


def _inspect(given: argparse.Namespace) -> None:
    from data_tools.inspection import inspect

    inspect(given.folder, given.amount, given.tokenizer, _say)


def _summaries(given: argparse.Namespace) -> None:
    from data_tools.summaries import write

    packages = {split: getattr(given, split).split(",") for split in ("train", "valid", "test")}
    write(given.out, packages, _say, given.processes, given.most)


def _parser() -> argparse.ArgumentParser:
    from data_tools.summaries import TEST, TRAIN, VALID

    plain = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser("data_tools", description=__doc__, formatter_class=plain)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def command(name: str, run, text: str) -> argparse.ArgumentParser:
        made = commands.add_parser(name, help=text, description=text, formatter_class=plain)
        made.set_defaults(run=run)
        return made

    for name, run, text in (
        ("build", _build, "Write the shards of a corpus, or go on where a build was stopped."),
        (
            "tokenizer",
            _tokenizer,
            "Learn a byte-level BPE vocabulary from a corpus's training text.",
        ),
    ):
        one = command(name, run, text)
        one.add_argument("corpus", metavar="CORPUS.toml")
        one.add_argument("changes", nargs="*", metavar="key=value", help="e.g. processes=8")
        one.add_argument("--fresh", action="store_true", help="delete earlier output, begin anew")
        if name == "build":
            one.add_argument("--mpi", action="store_true", help="run under mpirun: share the work")

    one = command("verify", _verify, "Hash every byte of a corpus and compare with its manifest.")
    one.add_argument("folder", metavar="DIR")
    one.add_argument("--tokenizer", default="", metavar="FILE", help="also: was it made with this?")

    one = command("inspect", _inspect, "Show counts, lengths and some documents as text.")
    one.add_argument("folder", metavar="DIR")
    one.add_argument("amount", nargs="?", type=int, default=3, metavar="N", help="documents shown")
    one.add_argument("--tokenizer", default="", metavar="FILE", help="if not DIR/../tokenizer.json")

    one = command("summaries", _summaries, "Write docstring body -> summary pairs as JSONL.")
    one.add_argument("out", metavar="OUT_DIR")
    for split, names in (("train", TRAIN), ("valid", VALID), ("test", TEST)):
        one.add_argument(f"--{split}", default=",".join(names), metavar="PACKAGE,...",
                         help=f"default: {', '.join(names)}")  # fmt: skip
    one.add_argument(
        "--most", type=int, default=0, metavar="N", help="pairs in valid and test, 0: all"
    )
    one.add_argument("--processes", type=int, default=2, metavar="N")
    return parser


if __name__ == "__main__":
    sys.exit(main())
