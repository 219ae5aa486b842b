"""An export of ours -> a folder that transformers loads as it is, or a smaller one of ours."""

import json
import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path

from xxhash import xxh3_128

from januslm.config import Refused, json_table, suggest
from januslm.hub.classes import TARGETS, Exported, choose
from januslm.hub.generation import generation_config
from januslm.hub.model_card import model_card
from januslm.hub.tokenizer_files import tokenizer_files
from januslm.inference import request
from januslm.interop.export_folder import FILES, ExportFacts, read_facts

WEIGHTS, CONFIG = FILES[:2]
MARK = "januslm_export"  # the key of config.json that tells one export from another
CLASS_FILES = Path(__file__).parent / "own_class"
CODE = ("configuration_januslm.py", "modeling_januslm.py")


def export(run: Path, out: Path, to: str) -> str:
    """Write the folder; returns what is to be said of it.  Raises Refused, before torch is there.

    An `out` that this very export has written before is left as it is.
    """
    if to not in TARGETS:
        raise Refused(f"no format {to!r} to export to{suggest(to, TARGETS)}")
    facts = read_facts(run)
    exported = choose(facts, to)
    texts = _texts(facts, exported, run, out)
    left = f"; left behind: {exported.left}" if exported.left else ""
    if not _free(out, texts):
        return f"{out}: is this export already ({exported.kind}){left}"
    _write(facts, exported, texts, out)
    return f"wrote {out} ({exported.kind}){left}"


def _texts(facts: ExportFacts, exported: Exported, run: Path, out: Path) -> dict[str, str]:
    """All files but the weights, by name."""
    config = exported.config | {MARK: _mark(facts, exported.config)}
    card = {"README.md": model_card(facts, exported, run, out.name)}
    if exported.form == "januslm":
        return {CONFIG: _json(config), FILES[2]: facts.tokenizer.text} | card
    most, special = facts.config.max_positions, facts.tokenizer.special
    limits, usual = request.limits(facts), request.usual(facts)
    files = {CONFIG: _json(config)} | tokenizer_files(facts.tokenizer, limits.source)
    if exported.read:
        generation = generation_config(special, exported.prefix, most, limits.source, usual)
        files["generation_config.json"] = _json(generation)
    if exported.form == "class":
        files |= {name: (CLASS_FILES / name).read_text(encoding="utf-8") for name in CODE}
    return files | card


def _json(table: Mapping) -> str:
    return json.dumps(table, indent=1) + "\n"


def _mark(facts: ExportFacts, config: dict) -> str:
    digest = xxh3_128(_json(config).encode())
    with open(facts.folder / WEIGHTS, "rb") as file:
        while piece := file.read(1 << 24):
            digest.update(piece)
    return digest.hexdigest()


def _free(out: Path, texts: Mapping[str, str]) -> bool:
    """Whether the folder may be written; False where it is this export.  Refused for another."""
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return True
    names = [*texts, WEIGHTS]
    if out.is_dir() and all((out / name).is_file() for name in names):
        mark = json.loads(texts[CONFIG])[MARK]
        if json_table(out / CONFIG).get(MARK) == mark:
            return False
    raise Refused(f"{out}: is not empty, and not this export; name a new folder")


def _write(facts: ExportFacts, exported: Exported, texts: Mapping[str, str], out: Path) -> None:
    """All of it, or nothing: written aside, then renamed."""
    from safetensors.torch import save_file  # torch from here on

    from januslm.interop import start, weights

    out.parent.mkdir(parents=True, exist_ok=True)
    aside = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
    try:
        for name, text in texts.items():
            (aside / name).write_text(text, encoding="utf-8")
        model = start.created(facts.config, facts)
        if exported.form == "januslm":
            model = model.bfloat16()
        state = weights.save(model, "bart") if exported.form == "bart" else model.state_dict()
        save_file(state, aside / WEIGHTS, metadata={"format": "pt"})
        mask = _umask()
        aside.chmod(0o777 & ~mask)
        (aside / WEIGHTS).chmod(0o666 & ~mask)
        os.replace(aside, out)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _umask() -> int:
    """What mkdtemp and safetensors do not heed."""
    mask = os.umask(0)
    os.umask(mask)
    return mask
