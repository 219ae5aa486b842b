"""What a path means: what is there where the user stands, else the file that comes with januslm."""

from pathlib import Path

from januslm.config import Refused, suggest

ROOT = Path(__file__).resolve().parents[2]  # the clone, or where pip has put the packages
RUNS = {"pretrain": "pretrain/runs", "finetune": "finetune/runs"}
CORPORA, SPREADS = "data_tools/corpora", "ds_configs"


def shipped(given: str, folder: str) -> str:
    """`tiny`, `tiny.toml` and `pretrain/runs/tiny.toml` are one file, wherever the user stands.

    folder: whose files may be meant by name.  A file that exists where the user stands comes
    first.  Raises Refused with the names there are.
    """
    if Path(given).is_file():
        return given
    there = sorted(p for p in (ROOT / folder).iterdir() if p.suffix in (".toml", ".json"))
    for path in there:
        if given in (path.stem, path.name, f"{folder}/{path.name}"):
            return str(path)
    names = suggest(Path(given).stem, (path.stem for path in there))
    raise Refused(f"{given}: no such file, and none of {folder}/ is called so{names}")
