"""Convert weights: BART's in, as Hugging Face has them, and a model of ours out as a BART.

PROGRAM interop bart FROM TO         -> a folder that `start` of a run file names
PROGRAM interop bart-out RUN TO      -> model.safetensors for BartForConditionalGeneration
"""

import json
import sys
import tempfile
from pathlib import Path

from januslm.cli.command import answered, parser
from januslm.config import Refused
from januslm.interop.bart_config import read_config
from januslm.interop.export_folder import read_facts


def main() -> int:
    known = parser("interop", __doc__)
    known.add_argument("kind", choices=("bart", "bart-out"))
    known.add_argument("source", type=Path, help="Hugging Face's folder; for bart-out a run")
    known.add_argument("target", type=Path, help="the folder to write")
    options = known.parse_args()

    def command() -> None:
        check(options.kind, options.source)
        if options.target.exists() and (
            not options.target.is_dir() or any(options.target.iterdir())
        ):
            raise Refused(f"{options.target}: is not empty; name a new folder")
        convert(options.kind, options.source, options.target)
        print(f"wrote {options.target}")

    return answered(command)


def check(kind: str, source: Path) -> None:
    """Refuse, before torch is there, what is no BART and what cannot become one."""
    if kind == "bart":
        read_config(source)
        return
    facts = read_facts(source)
    if facts.options.get("query_position") != "target" or facts.options.get("read") != "past":
        raise Refused(
            f"{facts.folder}: BART reads AR from past slots with an EOS in front; this model has "
            f"{facts.options}: train it with objective.read = 'past', query_position = 'target'"
        )


def convert(kind: str, source: Path, target: Path) -> None:
    """Raises Refused, naming the file, for weights that do not fit."""
    from safetensors.torch import save_file

    from januslm.interop import bart, native

    if kind == "bart":
        model, words = bart.load(source)
        with tempfile.TemporaryDirectory() as aside:
            file = Path(aside) / "tokenizer.json"
            file.write_text(json.dumps(words, ensure_ascii=False), encoding="utf-8")
            native.write(target, model, file, "ar", bart.OPTIONS, {"from": str(source)})
        return
    saved = native.read(source)
    target.mkdir(parents=True, exist_ok=True)
    save_file(bart.save(saved.model), target / "model.safetensors", metadata={"format": "pt"})


if __name__ == "__main__":
    sys.exit(main())
