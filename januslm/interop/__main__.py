"""Convert weights that Hugging Face has: BART's folder -> a folder of ours.

PROGRAM interop bart FROM TO         -> a folder that `start` of a run file names, and that writes

`start = "hf:FROM"` in a run file does without; `export` is the way out.
"""

import os
import shutil
import sys
import tempfile
from pathlib import Path

from januslm.cli.command import answered, parser
from januslm.config import Refused
from januslm.interop.export_folder import HF, ExportFacts, read_start


def main() -> int:
    known = parser("interop", __doc__)
    known.add_argument("kind", choices=("bart",))
    known.add_argument("source", type=Path, help="Hugging Face's folder")
    known.add_argument("target", type=Path, help="the folder to write")
    options = known.parse_args()

    def command() -> None:
        target = options.target
        facts = read_start(f"{HF}{options.source}")
        if target.exists() and (not target.is_dir() or any(target.iterdir())):
            raise Refused(f"{target}: is not empty; name a new folder")
        convert(facts, target)
        print(f"wrote {target}")

    return answered(command)


def convert(facts: ExportFacts, target: Path) -> None:
    """All of the folder or nothing.  Raises Refused, naming the file, for weights that do not fit.

    facts: of a BART folder.
    """
    from januslm.interop import bart, native

    model = bart.load(facts.folder, facts.config)
    target.parent.mkdir(parents=True, exist_ok=True)
    aside = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    try:
        made = aside / "made"  # of the rights that a new folder has
        native.write(made, model, facts.tokenizer_file, facts.objective, facts.options, facts.about)
        os.replace(made, target)
    finally:
        shutil.rmtree(aside)


if __name__ == "__main__":
    sys.exit(main())
