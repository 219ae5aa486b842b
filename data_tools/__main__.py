"""From text to token shards and pairs: build, tokenizer, verify, inspect, summaries, damaged.

  PROGRAM data tokenizer docstrings           learn a vocabulary
  PROGRAM data build docstrings               write the shards
  PROGRAM data inspect corpora/docstrings 3   counts and 3 documents
  PROGRAM data verify corpora/docstrings      hash every byte
  PROGRAM data damaged corpora/restore        damaged sentence -> sentence, as summaries does
  PROGRAM data glge --help                    GLGE's archives

A corpus file is TOML: one of data_tools/corpora/, by name or path, or your own; key=value after it
changes a key: `build docstrings processes=8`.
docs/corpora.md explains every key, the files written, and how to add a source.
"""

import argparse
import sys
from collections.abc import Callable

from januslm.cli.command import error_line
from januslm.cli.command import parser as parser_of
from januslm.cli.paths import CORPORA, shipped
from januslm.config import Refused


def main() -> int:
    """Run one command; a user's mistake is one line and exit code 2."""
    parser = _parser()
    given, rest = parser.parse_known_args()
    if rest:  # argparse takes no key=value after an option
        if not hasattr(given, "changes") or any(one.startswith("-") for one in rest):
            parser.error(f"unknown: {' '.join(rest)}")
        given.changes += rest
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
    from data_tools.workers import first_rank

    if first_rank(getattr(given, "mpi", False)):
        print(error_line(str(message)), file=sys.stderr)
    return code


def _report(text: str) -> None:
    print(text, flush=True)


def _build(given: argparse.Namespace) -> None:
    from data_tools.build import build
    from data_tools.recipe import read

    build(read(shipped(given.corpus, CORPORA), given.changes), _report, given.fresh, given.mpi)


def _tokenizer(given: argparse.Namespace) -> None:
    from data_tools.recipe import read
    from data_tools.train_tokenizer import learn

    learn(read(shipped(given.corpus, CORPORA), given.changes), _report, given.fresh)


def _verify(given: argparse.Namespace) -> None:
    from data_tools.inspect_corpus import verify

    verify(given.folder, given.tokenizer, _report)


def _inspect(given: argparse.Namespace) -> None:
    from data_tools import inspect_rejected
    from data_tools.inspect_corpus import inspect

    if given.amount < 0:
        raise Refused(f"N must be at least 0 documents, got {given.amount}")
    if given.rejected is not None:
        inspect_rejected.inspect(given.folder, given.rejected, given.amount, _report)
        return
    inspect(given.folder, given.amount, given.tokenizer, _report)


def _summaries(given: argparse.Namespace) -> None:
    from data_tools.summaries import pairs

    _pairs(given, "summaries", pairs)


def _damaged(given: argparse.Namespace) -> None:
    from data_tools.damaged import pairs

    _pairs(given, "damaged", pairs)


def _pairs(given: argparse.Namespace, kind: str, made_of: Callable) -> None:
    from data_tools.package_pairs import write

    for name, low in (("processes", 1), ("most", 0)):
        if (value := getattr(given, name)) < low:
            raise Refused(f"--{name} must be at least {low}, got {value}")
    packages = {split: getattr(given, split).split(",") for split in ("train", "valid", "test")}
    write(given.out, kind, made_of, packages, _report, given.processes, given.most)


def _parser() -> argparse.ArgumentParser:
    parser = parser_of("data", __doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for name, run, arguments, text in (
        ("build", _build, _of_recipe, "Write a corpus's shards, or go on where a build stopped."),
        ("tokenizer", _tokenizer, _of_recipe, "Learn a byte-level BPE from the training text."),
        ("verify", _verify, _of_folder, "Hash every byte and compare with the manifest."),
        ("inspect", _inspect, _of_folder, "Show counts, lengths and some documents as text."),
        ("summaries", _summaries, _of_pairs, "Write docstring -> summary pairs as JSONL."),
        ("damaged", _damaged, _of_pairs, "Write damaged sentence -> sentence pairs as JSONL."),
    ):
        one = commands.add_parser(name, help=text, description=text)
        one.set_defaults(run=run)
        arguments(one)
        if name == "build":
            one.add_argument("--mpi", action="store_true", help="run under mpirun: share the work")
        if name == "inspect":
            one.add_argument(
                "amount", nargs="?", type=int, default=3, metavar="N", help="documents"
            )
            one.add_argument(
                "--rejected", nargs="?", const="", metavar="RULE",
                help="what filters dropped instead, or RULE alone, with N examples of each reason",
            )  # fmt: skip
    return parser


def _of_recipe(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("corpus", metavar="CORPUS")
    parser.add_argument("changes", nargs="*", metavar="key=value", help="e.g. processes=8")
    parser.add_argument("--fresh", action="store_true", help="delete earlier output, begin anew")


def _of_folder(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "folder", metavar="DIR", help="a corpus, or what holds its train/ and valid/"
    )
    parser.add_argument("--tokenizer", default="", metavar="FILE", help="the tokenizer to expect")


def _of_pairs(parser: argparse.ArgumentParser) -> None:
    from data_tools.package_pairs import TEST, TRAIN, VALID

    parser.add_argument("out", metavar="OUT_DIR")
    for split, names in (("train", TRAIN), ("valid", VALID), ("test", TEST)):
        help = f"default: {', '.join(names)}"
        parser.add_argument(f"--{split}", default=",".join(names), metavar="PACKAGE,...", help=help)
    parser.add_argument(
        "--most", type=int, default=0, metavar="N", help="pairs in valid and in test; 0: all"
    )
    parser.add_argument("--processes", type=int, default=2, metavar="N")


if __name__ == "__main__":
    sys.exit(main())
