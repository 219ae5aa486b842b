"""README.md of an exported folder: the model card, in the form that the hub reads."""

from pathlib import Path

from januslm.config import Refused
from januslm.data import sealed
from januslm.hub.classes import Exported
from januslm.inference import request
from januslm.interop.export_folder import ExportFacts
from januslm.runs import compare, data_card
from januslm.runs.story import story_of

LOADED = """\
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained("{place}"{trust})
model = AutoModelForSeq2SeqLM.from_pretrained("{place}"{trust})
batch = tokenizer(["{text}"], return_tensors="pt", padding=True)
"""
OWN = """import januslm

model = januslm.load("{place}")  # a torch module
"""
OWN_WAYS = {  # of januslm/decoding, with its options in the example and what it does
    "greedy": ("", "word by word"),
    "mask_predict": (", iterations=4", "all at once, in four passes"),
    "one_pass": ("", "all at once, without a model of the length"),
    "any_order": ("", "in the order of what is most certain"),
    "speculative": ("", "greedy's words, in fewer passes"),
    "draft": ("", "greedy's words, in fewer passes"),
    "blockwise": ("", "block by block, unchecked"),
}
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
    """run: where its logs, data and scores may lie; place: the folder's name in the example."""
    run = run.parent if run.name == "export" else run
    ways = " and ".join(_ways(facts, exported)) or "nothing yet, and is there to be fine-tuned"
    code = _own_code(facts, place) if exported.form == "januslm" else _code(exported, place)
    lines = [
        "---",
        f"library_name: {'januslm' if exported.form == 'januslm' else 'transformers'}",
        "license: unknown",
        "tags:",
        "- januslm",
        "- seq2seq",
        "---",
        "",
        f"# {_title(facts)}",
        "",
        f"A sequence-to-sequence model that writes {ways}, trained with januslm.",
        "",
        *_table(facts, exported, run),
        "",
        *_scores(run),
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


def _code(exported: Exported, place: str) -> str:
    """How transformers writes with it."""
    trust = "" if exported.form == "bart" else ", trust_remote_code=True"
    code = LOADED.format(place=place, trust=trust, text="A text of yours.")
    code += AR if exported.read else ""
    known = exported.config if exported.form == "class" else {}
    for key, snippet in (("template", NAR), ("row", ROW), ("block", DRAFT + BLOCKS)):
        code += snippet if known.get(key) else ""
    return code


def _own_code(facts: ExportFacts, place: str) -> str:
    """How this project writes with it."""
    calls = [
        f'print(model.generate(["A text of yours."], algorithm="{name}"{given}))  # {what}'
        for name, (given, what) in OWN_WAYS.items()
        if name in request.taught(facts, OWN_WAYS)
    ]
    return OWN.format(place=place) + "\n".join(calls)


def _ways(facts: ExportFacts, exported: Exported) -> list[str]:
    taught = request.taught(facts, OWN_WAYS)
    at_once = exported.form != "bart" and ("mask_predict" in taught or "one_pass" in taught)
    return [
        *(["word by word (AR)"] if "greedy" in taught else []),
        *(["all at once (NAR)"] if at_once else []),
        *(["in any order"] if exported.form == "januslm" and "any_order" in taught else []),
    ]


def _title(facts: ExportFacts) -> str:
    task = facts.about.get("task")
    return f"{facts.objective} for {task}" if task else f"{facts.objective}, pretrained"


def _table(facts: ExportFacts, exported: Exported, run: Path) -> list[str]:
    config, about = facts.config, facts.about
    forms = {
        "bart": "BART (`BartForConditionalGeneration`)",
        "class": "its own modelling file",
        "januslm": "this project's own, weights in bf16",
    }
    rows = {
        "task": about.get("task") or "pretraining: no task",
        "data": _data(run) or _data_name(about),
        "objective": " ".join(
            [facts.objective, *(f"{key}={value}" for key, value in facts.options.items())]
        ),
        "sizes": f"width {config.width}, {config.encoder_layers} + {config.decoder_layers} layers, "
        f"{config.vocabulary:,} tokens",
        "form" if exported.form == "januslm" else "class": forms[exported.form],
    }
    if isinstance(train := about.get("train"), dict):
        keys = ("steps", "epochs", "batch", "seed")
        rows["training"] = ", ".join(f"{key} {train[key]}" for key in keys if train.get(key))
    rows["validation"] = _validation(run) or "not known"
    return ["| | |", "|---|---|", *(f"| {key} | {_cell(value)} |" for key, value in rows.items())]


def _scores(run: Path) -> list[str]:
    """What `evaluate` has left in the run's folder."""
    found = compare.scored(run)
    if not found:
        return ["Test scores: not known to the export; `januslm evaluate` leaves them for it.", ""]
    rows = [f"| {_cell(name)} | {_cell(score)} |" for name, score in found.items()]
    return ["| test scores, by way of writing | |", "|---|---|", *rows, ""]


def _data(run: Path) -> str:
    """Names of files, pairs and tokens, as the manifests of a run's folder have them."""
    try:
        known = [card for card in data_card.cards(story_of(run)) if card.manifest]
    except Refused:
        return ""
    return "; ".join(f"{card.split}: {_files(card)}{card.size}" for card in known)


def _files(card: data_card.Card) -> str:
    files = card.manifest.get("files") or []
    names = [Path(str(file[0])).name for file in files if isinstance(file, list) and file]
    return f"{' + '.join(names)}, " if names else ""


def _data_name(about: dict) -> str:
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
    path = run / "valid.jsonl"
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
