"""A model to be given away: for Hugging Face's transformers or this project, and on to a hub.

PROGRAM export RUN OUT --to hf     -> a folder that transformers loads as it is
PROGRAM export RUN OUT --to januslm  -> our own folder in half the size, with a model card
PROGRAM push OUT REPO              -> that folder as a repository of the hub: NAME/MODEL
"""

import sys
from pathlib import Path

from januslm.cli.command import Parser, answered, parser
from januslm.config import Refused
from januslm.hub.classes import TARGETS
from januslm.hub.export import export
from januslm.hub.push import push

EXPORT = """A run's model as a folder to give away, with a model card.

  PROGRAM export runs/demo/restore out --to hf   BART's class where the model is one, else a class
                                                 of its own: AR by generate(), NAR by mask_predict()
  PROGRAM export runs/demo/restore out --to bart BART's class, AR alone; refused where it is none
  PROGRAM export runs/demo/restore out --to januslm   this project's own folder in bf16, half the
                                                 size, without paths of this machine
"""
PUSH = """The folder that `export` wrote, pushed to a hub as a repository.

  PROGRAM push out name/model

The token is huggingface_hub's own: $HF_TOKEN, or what `hf auth login` has stored.
"""


def main() -> int:
    verb, *words = sys.argv[1:] or [""]
    verbs = {"export": _export, "push": _push}
    if verb not in verbs:
        return answered(lambda: _unknown(verb))
    return verbs[verb](words)


def _unknown(verb: str) -> None:
    raise Refused(f"no command {verb!r}; there are export, push")


def _export(words: list[str]) -> int:
    known = parser("export", EXPORT)
    known.add_argument("run", type=Path, metavar="RUN", help="a run's folder, or its export/")
    known.add_argument("out", type=Path, metavar="OUT", help="the folder to write")
    known.add_argument("--to", default="hf", help=f"{', '.join(TARGETS)} (default: hf)")
    options = known.parse_args(words)
    return answered(lambda: print(export(options.run, options.out, options.to)))


def _push(words: list[str]) -> int:
    known: Parser = parser("push", PUSH)
    known.add_argument("out", type=Path, metavar="OUT", help="what `export` wrote")
    known.add_argument("repo", metavar="REPO", help="NAME/MODEL")
    known.add_argument("--private", action="store_true", help="a new repository is private")
    options = known.parse_args(words)
    return answered(lambda: print(push(options.out, options.repo, options.private)))


if __name__ == "__main__":
    sys.exit(main())
