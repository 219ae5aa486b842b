"""README.md of an exported folder: the model card, in the form that the hub reads."""

from pathlib import Path

from januslm.data import sealed
from januslm.hub.classes import Exported
from januslm.inference import request
from januslm.interop.export_folder import ExportFacts

LOADED = """\
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained("{place}"{trust})
model = AutoModelForSeq2SeqLM.from_pretrained("{place}"{trust})
batch = tokenizer(["{text}"], return_tensors="pt", padding=True)
"""
AR = """
written = model.generate(**batch)  # word by word
print(tokenizer.batch_decode(written, skip_special_tokens=True))
"""
NAR = """
written = model.mask_predict(**batch, iterations=10, length_beam=3)  # all at once
print(tokenizer.batch_decode(written, skip_special_tokens=True))
"""
DRAFT = """
written = model.draft(**batch)  # greedy's words in fewer passes, for one text after another
print(tokenizer.batch_decode(written, skip_special_tokens=True))
"""
ROW = """
written = model.one_pass(**batch)  # all at once, without a model of the length
print(tokenizer.batch_decode(written, skip_special_tokens=True))
"""
BLOCKS = """
written = model.blockwise(**batch)  # a block in each pass, unchecked
print(tokenizer.batch_decode(written, skip_special_tokens=True))
"""


def model_card(facts: ExportFacts, exported: Exported, run: Path, place: str) -> str:
    """run: where valid.jsonl may lie; place: what the folder is called in the example."""
    trust = "" if exported.bart else ", trust_remote_code=True"
    code = LOADED.format(place=place, trust=trust, text="A text of yours.")
    code += AR if exported.read else ""
    known = {} if exported.bart else exported.config
    for key, snippet in (("template", NAR), ("row", ROW), ("block", DRAFT + BLOCKS)):
        code += snippet if known.get(key) else ""
    what = "BART (`BartForConditionalGeneration`)" if exported.bart else "its own modelling file"
    ways = [
        *(["word by word (AR)"] if exported.read else []),
        *(["all at once (NAR)"] if known.get("template") or known.get("row") else []),
    ]
    lines = [
        "---",
        "library_name: transformers",
        "license: unknown",
        "tags:",
        "- januslm",
        "- seq2seq",
        "---",
        "",
        f"# {_title(facts)}",
        "",
        f"A sequence-to-sequence model that writes {' and '.join(ways)}, trained with januslm.",
        "",
        *_table(facts, what, run),
        "",
        "## Use",
        "",
        "```python",
        *code.splitlines(),
        "```",
        "",
    ]
    if "mask_predict" in code and not request.knows_lengths(facts):
        lines += ["It has not been taught how long texts are: fine-tune it before NAR.", ""]
    if exported.left:
        lines += [f"Left out, since the class has no place for it: {exported.left}.", ""]
    lines += ["## Licence", "", "Not known: it was not stated when the model was exported.", ""]
    return "\n".join(lines)


def _title(facts: ExportFacts) -> str:
    task = facts.about.get("task")
    return f"{facts.objective} for {task}" if task else f"{facts.objective}, pretrained"


def _table(facts: ExportFacts, what: str, run: Path) -> list[str]:
    config, about = facts.config, facts.about
    rows = {
        "task": about.get("task") or "pretraining: no task",
        "data": _data(about),
        "objective": " ".join(
            [facts.objective, *(f"{key}={value}" for key, value in facts.options.items())]
        ),
        "sizes": f"width {config.width}, {config.encoder_layers} + {config.decoder_layers} layers, "
        f"{config.vocabulary:,} tokens",
        "class": what,
    }
    if isinstance(train := about.get("train"), dict):
        keys = ("steps", "epochs", "batch", "seed")
        rows["training"] = ", ".join(f"{key} {train[key]}" for key in keys if train.get(key))
    rows["validation"] = _validation(run) or "not known"
    rows["test scores"] = "not known to the export: `januslm evaluate` prints them"
    return ["| | |", "|---|---|", *(f"| {key} | {_cell(value)} |" for key, value in rows.items())]


def _data(about: dict) -> str:
    """The name of what was read, without the place where it lay on the machine."""
    data = about.get("data")
    data = data if isinstance(data, dict) else {}
    if data.get("root"):
        return Path(str(data["root"])).name
    shares = data.get("train")
    corpora = [one.get("corpus") for one in shares or [] if isinstance(one, dict)]
    return ", ".join("/".join(Path(str(one)).parts[-2:]) for one in corpora) or "not known"


def _validation(run: Path) -> str:
    """The numbers of the last line of valid.jsonl."""
    path = (run.parent if run.name == "export" else run) / "valid.jsonl"
    found = [table for _, table in sealed.lines(path) if table] if path.is_file() else []
    if not found or "step" not in found[-1]:
        return ""
    numbers = [
        f"{key} {value:.3f}"
        for key, value in found[-1].items()
        if key != "step" and isinstance(value, float)
    ]
    return f"{', '.join(numbers)} (nats a word) at update {found[-1]['step']}"


def _cell(value) -> str:
    return " ".join(str(value).split()).replace("|", "\\|")
