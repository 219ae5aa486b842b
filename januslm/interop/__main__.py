"""Convert weights: `python -m januslm.interop bart FROM TO`, `... bart-out RUN TO`."""

import argparse
import json
import sys
import tempfile
from pathlib import Path

from safetensors.torch import save_file

from januslm.config import Refused
from januslm.interop import bart, native


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m januslm.interop", description=__doc__)
    parser.add_argument("kind", choices=("bart", "bart-out"))
    parser.add_argument("source", type=Path, help="Hugging Face's folder; for bart-out a run")
    parser.add_argument("target", type=Path, help="the folder to write")
    options = parser.parse_args()
    try:
        convert(options.kind, options.source, options.target)
    except Refused as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"wrote {options.target}")
    return 0


def convert(kind: str, source: Path, target: Path) -> None:
    """Raises Refused, naming the file, for what does not fit."""
    if kind == "bart":
        model, words = bart.load(source)
        with tempfile.TemporaryDirectory() as aside:
            file = Path(aside) / "tokenizer.json"
            file.write_text(json.dumps(words, ensure_ascii=False), encoding="utf-8")
            native.write(target, model, file, "ar", bart.OPTIONS, {"from": str(source)})
        return
    saved = native.read(source)
    if saved.options.get("query_position") != "target" or saved.options.get("read") != "past":
        raise Refused(
            f"{saved.folder}: BART reads AR from past slots with an EOS in front; this model has "
            f"{saved.options}: train it with objective.read = 'past', query_position = 'target'"
        )
    target.mkdir(parents=True, exist_ok=True)
    save_file(bart.save(saved.model), target / "model.safetensors", metadata={"format": "pt"})


if __name__ == "__main__":
    sys.exit(main())
