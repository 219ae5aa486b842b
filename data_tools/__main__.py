"""From text to token shards and pairs: build, look at, put together, hand on.

  PROGRAM data tokenizer docstrings           learn a vocabulary
  PROGRAM data plan docstrings                time, memory and disk of a build, from a sample
  PROGRAM data build docstrings               write the shards; --mpi 8: by 8 ranks of mpirun
  PROGRAM data inspect corpora/docstrings 3   counts, histograms and 3 documents
  PROGRAM data verify corpora/docstrings      hash every byte
  PROGRAM data merge all corpora/a corpora/b  several corpora as one
  PROGRAM data split corpora/a/train parts train=rest test=500      one as several
  PROGRAM data mix corpora/a=3 corpora/b=1    a run file's lines, the epochs of each corpus
  PROGRAM data convert --to megatron corpora/a out                  for other projects
  PROGRAM data convert --from datatrove files out --tokenizer FILE  and from them
  PROGRAM data damaged corpora/restore        damaged sentence -> sentence, as summaries does
  PROGRAM data glge --help                    GLGE's archives

A corpus file is TOML: one of data_tools/corpora/, by name or path, or your own; key=value after it
changes a key: `build docstrings processes=8`.
docs/corpora.md explains every key, the files written, and how to add a source.
"""

import argparse
import sys
from collections.abc import Callable
from itertools import zip_longest

from januslm.cli.command import error_line
from januslm.cli.command import parser as parser_of
from januslm.cli.paths import CORPORA, shipped
from januslm.config import Refused, assignments


def main() -> int:
    """Run one command; a user's mistake is one line and exit code 2."""
    parser = _parser()
    # a number may follow --mpi; argparse would take CORPUS.toml for one
    words = sys.argv[1:]
    pairs = zip_longest(words, words[1:], fillvalue="")
    words = ["--mpi=" if w == "--mpi" and not n.isdecimal() else w for w, n in pairs]
    given, rest = parser.parse_known_args(words)
    if rest:  # argparse takes no key=value after an option
        if not hasattr(given, "changes") or any(one.startswith("-") for one in rest):
            parser.error(f"unknown: {' '.join(rest)}")
        given.changes += rest
    try:
        return given.run(given) or 0
    except Refused as error:
        return _failed(error, getattr(error, "code", 2))
    except OSError as error:
        place = f"{error.filename}: " if error.filename else ""
        return _failed(f"{place}{error.strerror or error}; what is finished is kept", 2)
    except KeyboardInterrupt:
        return _failed("interrupted; the same command goes on from here", 130)


def _failed(message: object, code: int) -> int:
    print(error_line(str(message)), file=sys.stderr)
    return code


def _report(text: str) -> None:
    try:
        print(text, flush=True)
    except UnicodeEncodeError:  # a terminal without blocks, or without the letters of a document
        coding = sys.stdout.encoding
        print(text.encode(coding, "replace").decode(coding), flush=True)


def _build(given: argparse.Namespace) -> int | None:
    from data_tools import mpirun
    from data_tools.build import build
    from data_tools.recipe import read
    from data_tools.workers import launched, serve

    if given.mpi:
        fresh = ["--fresh"] if given.fresh else []
        words = ["build", given.corpus, *given.changes, *fresh, "--mpi"]
        return mpirun.run(given.mpi, given.hostfile, words)
    if given.hostfile:
        raise Refused(f"--hostfile {given.hostfile}: how many ranks? --mpi N")
    rank, size = launched()
    if rank:
        serve()
        return None
    if size > 1 and given.mpi is None:
        _report(f"started as {size} ranks: they share the work, as with --mpi")
    recipe = read(shipped(given.corpus, CORPORA), given.changes)
    build(recipe, _report, given.fresh, mpi=size > 1 or given.mpi is not None)
    return None


def _plan(given: argparse.Namespace) -> None:
    from data_tools.plan import plan
    from data_tools.recipe import read

    if not 0 < given.seconds < 3600:
        raise Refused(f"--seconds must be more than 0, less than 3600, got {given.seconds}")
    plan(read(shipped(given.corpus, CORPORA), given.changes), _report, given.seconds)


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


def _merge(given: argparse.Namespace) -> None:
    from data_tools.merge import merge

    merge(given.out, given.corpora, _report, given.copy)


def _split(given: argparse.Namespace) -> None:
    from data_tools import split

    sizes = assignments(given.sizes, "train=0.99")
    if bool(sizes) == bool(given.pieces):
        raise Refused("either NAME=SHARE ..., e.g. train=rest test=500, or --pieces N")
    if given.pieces:
        split.pieces(given.folder, given.out, given.pieces, _report, given.copy)
    else:
        split.split(given.folder, given.out, {k: str(v) for k, v in sizes.items()}, _report)


def _mix(given: argparse.Namespace) -> None:
    from data_tools.mix import By, mix

    by: By = "epochs" if given.epochs else "weights" if given.temperature is None else "temperature"
    if given.epochs and given.temperature is not None:
        raise Refused("either --epochs or --temperature, not both")
    temperature = 1.0 if given.temperature is None else given.temperature
    for name, value, low in (
        ("temperature", temperature, 0),
        ("length", given.length, 3),
        ("tokens", given.tokens, -1),
    ):
        if not low < value < float("inf"):
            raise Refused(f"--{name} must be more than {max(low, 0)}, got {value}")
    more = {"tokens": given.tokens, "unit": given.unit, "length": given.length, "out": given.out}
    mix(given.corpora, by, _report, temperature=temperature, **more)


def _convert(given: argparse.Namespace) -> None:
    from data_tools.convert import convert_from, convert_to

    *places, out = given.places
    if bool(given.source) == bool(given.to) or not places:
        raise Refused("either --from FORMAT FILES ... OUT --tokenizer FILE, or --to FORMAT DIR OUT")
    if given.to:
        if len(places) > 1:
            raise Refused(f"--to converts one corpus, or the two in a folder, got {len(places)}")
        convert_to(given.to, places[0], out, _report, given.copy)
    elif given.tokenizer:
        convert_from(given.source, places, out, given.tokenizer, _report)
    else:
        raise Refused("--tokenizer FILE: what the ids mean; token files do not say it")


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
        ("plan", _plan, _of_plan, "Say what a build will take, from a sample; writes nothing."),
        ("build", _build, _of_recipe, "Write a corpus's shards, or go on where a build stopped."),
        ("tokenizer", _tokenizer, _of_recipe, "Learn a byte-level BPE from the training text."),
        ("verify", _verify, _of_folder, "Hash every byte and compare with the manifest."),
        ("inspect", _inspect, _of_folder, "Show counts, lengths and some documents as text."),
        ("merge", _merge, _of_merge, "Put corpora of one tokenizer under one manifest."),
        ("split", _split, _of_split, "Cut a corpus in several, by hash or by whole shards."),
        ("mix", _mix, _of_mix, "Weights for a run file, and the epochs of each corpus."),
        ("convert", _convert, _of_convert, "From and to token files of other projects."),
        ("summaries", _summaries, _of_pairs, "Write docstring -> summary pairs as JSONL."),
        ("damaged", _damaged, _of_pairs, "Write damaged sentence -> sentence pairs as JSONL."),
    ):
        one = commands.add_parser(name, help=text, description=text)
        one.set_defaults(run=run)
        arguments(one)
        if name == "build":
            help = "share the work among N ranks; without N: those that mpirun has started"
            one.add_argument("--mpi", type=_ranks, metavar="N", help=help)
            help = 'for --mpi N: "HOST slots=8" a line, as mpirun reads it'
            one.add_argument("--hostfile", default="", metavar="FILE", help=help)
        if name == "inspect":
            one.add_argument(
                "amount", nargs="?", type=int, default=3, metavar="N", help="documents"
            )
            one.add_argument(
                "--rejected", nargs="?", const="", metavar="RULE",
                help="what filters dropped instead, or RULE alone, with N examples of each reason",
            )  # fmt: skip
    return parser


def _ranks(text: str) -> int:
    """0 for none given; mpirun.run refuses what is no number of ranks."""
    return int(text) or -1 if text else 0


def _of_recipe(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("corpus", metavar="CORPUS")
    parser.add_argument("changes", nargs="*", metavar="key=value", help="e.g. processes=8")
    parser.add_argument("--fresh", action="store_true", help="delete earlier output, begin anew")


def _of_plan(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("corpus", metavar="CORPUS")
    parser.add_argument("changes", nargs="*", metavar="key=value", help="e.g. processes=8")
    help = "of reading, filtering and tokenizing (%(default)s)"
    parser.add_argument("--seconds", type=float, default=5.0, metavar="S", help=help)


def _of_folder(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "folder", metavar="DIR", help="a corpus, or what holds its train/ and valid/"
    )
    parser.add_argument("--tokenizer", default="", metavar="FILE", help="the tokenizer to expect")


def _copied(parser: argparse.ArgumentParser) -> None:
    help = "copy files; else they are hard links where that is possible"
    parser.add_argument("--copy", action="store_true", help=help)


def _of_merge(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("out", metavar="OUT", help="a new folder")
    help = "a corpus, or what holds its train/ and valid/"
    parser.add_argument("corpora", nargs="+", metavar="DIR", help=help)
    _copied(parser)


def _of_split(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", metavar="DIR", help="a corpus: a folder with a manifest")
    parser.add_argument("out", metavar="OUT", help="a new folder, for OUT/NAME of each name")
    help = "a share below 1, a number of documents, or rest; by the hash of each document"
    parser.add_argument("sizes", nargs="*", metavar="NAME=SIZE", help=help)
    help = "instead: this many folders of whole shards"
    parser.add_argument("--pieces", type=int, default=0, metavar="N", help=help)
    _copied(parser)


def _of_mix(parser: argparse.ArgumentParser) -> None:
    help = "a corpus, or what holds its train/ and valid/, and its weight in tokens"
    parser.add_argument("corpora", nargs="+", metavar="DIR[=NUMBER]", help=help)
    parser.add_argument("--epochs", action="store_true", help="the numbers are epochs")
    help = "no numbers: shares as size^(1/T); 1: as they are, more: more of the small ones"
    parser.add_argument("--temperature", type=float, metavar="T", help=help)
    help = "to train on, for the table; default: until one corpus is used up"
    parser.add_argument("--tokens", type=float, default=0.0, metavar="N", help=help)
    parser.add_argument("--unit", choices=("pieces", "windows"), default="pieces", help="data.unit")
    parser.add_argument("--length", type=int, default=512, help="data.length (%(default)s)")
    parser.add_argument("-o", dest="out", default="", metavar="FILE", help="write the lines")


def _of_convert(parser: argparse.ArgumentParser) -> None:
    from januslm.registry import names

    formats = names("data_tools.token_formats")
    help = "a corpus; or token files, folders of some, patterns"
    parser.add_argument("places", nargs="+", metavar="PLACE ... OUT", help=help)
    parser.add_argument("--from", dest="source", choices=formats, help="read token files")
    parser.add_argument("--to", choices=formats, help="write token files")
    parser.add_argument("--tokenizer", default="", metavar="FILE", help="what the ids mean")
    _copied(parser)


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
