"""Convert weights of other projects to a folder of ours, which a run starts from and that writes.

PROGRAM interop KIND FROM TO                 FROM: Hugging Face's folder
PROGRAM interop KIND FROM TO --tokenizer T   FROM: a checkpoint of ProphetNet's or BANG's own code
  KIND bang, bart, bert, mpnet, prophetnet

`start = "hf:FROM"` in a run file does without for a folder; `export` is the way out.
"""

import os
import shutil
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from januslm import registry
from januslm.cli.command import answered, parser
from januslm.config import Refused
from januslm.data.tokenizer import Tokenizer
from januslm.interop.export_folder import HF, ExportFacts, read_start
from januslm.interop.hf_folder import ARCHITECTURES

if TYPE_CHECKING:
    from januslm.model.transformer import Seq2Seq

CHECKPOINTS = ("bang", "prophetnet")  # whose own code is fairseq's


def main() -> int:
    known = parser("interop", __doc__)
    known.add_argument("kind", choices=registry.names(ARCHITECTURES))
    known.add_argument("source", type=Path, help="Hugging Face's folder, or a checkpoint")
    known.add_argument("target", type=Path, help="the folder to write")
    known.add_argument("--tokenizer", type=Path, help="tokenizer.json of a checkpoint")
    known.add_argument(
        "--decoder",
        choices=("random", "encoder"),
        default="random",
        help="of an encoder alone (bert, mpnet): where the decoder's weights come from",
    )
    options = known.parse_args()

    def command() -> None:
        target = options.target
        if target.exists() and (not target.is_dir() or any(target.iterdir())):
            raise Refused(f"{target}: is not empty; name a new folder")
        if options.source.is_file():
            facts, model = _checkpoint(options.source, options.kind, options.tokenizer)
            words = options.tokenizer
        else:
            facts, model = _folder(options)
            words = facts.tokenizer_file
        _write(facts, model, target, words)
        print(f"wrote {target}")

    return answered(command)


def _folder(options) -> "tuple[ExportFacts, Seq2Seq]":
    """Facts and model of Hugging Face's folder; Refused before torch is there, if it can be."""
    facts = read_start(f"{HF}{options.source}", options.decoder)
    assert facts.foreign is not None, "HF is before it"
    if (kind := facts.foreign.architecture) != options.kind:
        raise Refused(f"{facts.foreign.where}: model_type is {kind!r}, not {options.kind!r}")
    if options.tokenizer:
        raise Refused("--tokenizer: is of a checkpoint; a folder has its own")
    from januslm.interop import start

    return facts, start.created(facts.config, facts)


def _checkpoint(path: Path, kind: str, words: Path | None) -> "tuple[ExportFacts, Seq2Seq]":
    """The same of a file of fairseq's; its sizes are read off the tensors."""
    if kind not in CHECKPOINTS:
        able = ", ".join(CHECKPOINTS)
        raise Refused(f"{path}: of {kind!r} a folder is read; of {able} a checkpoint as well")
    if not words:
        raise Refused(f"{path}: --tokenizer is missing: a checkpoint brings no words")
    tokenizer = Tokenizer.load(words)
    from januslm.interop import fairseq, weights  # torch from here on

    tensors, foreign = fairseq.read(path, kind, tokenizer.special)
    config = foreign.sizes
    foreign.check_ids(tokenizer)
    name, options = foreign.taught(tokenizer.special)
    model = weights.filled(tensors, foreign, config, str(path))
    about = {"from": str(path)}
    return ExportFacts(words.parent, config, tokenizer, name, options, about, foreign), model


def _write(facts: ExportFacts, model: "Seq2Seq", target: Path, words: Path) -> None:
    """All of the folder or nothing."""
    from januslm.interop import native

    target.parent.mkdir(parents=True, exist_ok=True)
    aside = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    try:
        made = aside / "made"  # of the rights that a new folder has
        native.write(made, model, words, facts.objective, facts.options, facts.about)
        os.replace(made, target)
    finally:
        shutil.rmtree(aside)


if __name__ == "__main__":
    sys.exit(main())
