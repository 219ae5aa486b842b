"""A folder with a small valid input of every command, made by the commands themselves."""

import gzip
import importlib
import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import torch
import zstandard

from januslm.data.tokenizer import Tokenizer, train_tokenizer
from januslm.interop import native
from januslm.model.config import configure
from januslm.model.transformer import Seq2Seq

ROOT = Path(__file__).resolve().parents[1]
GERMAN = [f"satz {n} ist {'sehr ' * (n % 3)}kurz ." for n in range(7)]
ENGLISH = [f"sentence {n} is {'very ' * (n % 3)}short ." for n in range(7)]
TINY = {
    "width": 16,
    "ffn": 32,
    "heads": 2,
    "encoder_layers": 1,
    "decoder_layers": 1,
    "max_length": 32,
    "max_positions": 64,
}
# Every key, so that every key is mutated.
CORPUS = """
out = "corpus"
root = "text"
tokenizer = "tokenizer.json"
vocabulary = 300
tokenizer_megabytes = 1.0
processes = 1
part_megabytes = 0.001
shard_megabytes = 0.002
deduplicate = ["paragraph", "exact", "minhash"]
deduplicate_megabytes = 1.0
validation = 0.3
validation_groups = ["rows.jsonl.gz"]
[sources.text]
files = ["*.txt", "*.zip"]
split = "line"
encoding = "latin-1"
minimum_words = 1
undo_bpe = true
invalid = "drop"
[sources.rows]
kind = "jsonl"
files = ["*.jsonl*"]
field = "text"
invalid = "replace"
[sources.parquet]
files = ["*.parquet"]
field = "text"
[sources.table]
files = ["*.csv"]
field = "body"
url_field = "link"
id_field = "id"
header = []
invalid = "replace"
[sources.warc]
files = ["*.warc.gz"]
extractor = "resiliparse"
main_content = true
invalid = "replace"
[sources.wet]
files = ["*.wet.gz"]
invalid = "drop"
[sources.wikipedia]
files = ["*.xml.bz2"]
namespaces = [0, 1]
[filters.max_bytes]
limit = 4000
[filters.max_tokens]
limit = 500
"""
SHARED = """
ds = "cpu_fp32"
[objective]
name = "janus"
read = "past"
query_position = "input"
[noise]
name = "{noise}"
ratio = 0.3
mean = 3.0
[loss]
weights = {{ "ce/ar" = 1.0, "ce/nar" = 1.0, "ce/aux" = 0.5, "kl/ar~aux" = 0.1 }}
smoothing = 0.1
normalize = "term"
detach = "none"
rise = [1, 2]
chunk = 0
[optimizer]
name = "adamw"
lr = 5e-4
betas = [0.9, 0.98]
eps = 1e-8
weight_decay = 0.01
[schedule]
name = "inverse_sqrt"
warmup = 1
start = 1e-7
end = 0.0
power = 1.0
[packing]
encoder_passes = 1
row = 0
valid_micro = 8
samples = 1
[train]
batch = 4
accumulate = 1
clip = 1.0
seed = 1
log_every = 1
validate_every = 2
save_every = 1
keep = 2
export = "end"
exports = 0
workers = 0
bad_steps = 10
peak_flops = 1e12
"""
PRETRAIN = (
    'out = "pre"\ntokenizer = "tokenizer.json"\nstart = ""\n'
    + SHARED.format(noise="dual_spans")
    + """steps = 2
[data]
train = [{ corpus = "corpus/train", weight = 2 }, { corpus = "corpus/valid" }]
valid = [{ corpus = "corpus/valid" }]
length = 24
unit = "pieces"
verify = "full"
valid_samples = 8
[model]
preset = "tiny"
width = 16
ffn = 32
heads = 2
encoder_layers = 1
decoder_layers = 1
dropout = 0.1
attention_dropout = 0.0
activation = "gelu"
norm = "pre"
positions = "rotary"
position_bias = ""
embedding_norm = true
embedding_scale = false
tied = true
max_positions = 64
max_length = 32
init = "xavier"
activation_checkpointing = false
"""
)
FINETUNE = (
    'out = "tuned"\ntask = "iwslt14"\npublished = false\nstart = "model"\n'
    + SHARED.format(noise="words").replace("mean = 3.0\n", "").replace("ratio = 0.3\n", "")
    + """steps = 2
epochs = 1.0
[data]
root = "data"
max_source = 40
max_target = 20
longer = "cut"
valid_samples = 4
[model]
dropout = 0.1
attention_dropout = 0.0
activation_checkpointing = false
"""
)
TABLES = {"corpus.toml": CORPUS, "pre.toml": PRETRAIN, "tune.toml": FINETUNE}
SPREAD = {
    "zero_optimization": {
        "stage": 1,
        "overlap_comm": False,
        "contiguous_gradients": True,
        "reduce_bucket_size": 5000000,
        "allgather_bucket_size": 5000000,
        "round_robin_gradients": False,
    },
    "bf16": {"enabled": False},
    "data_types": {"grad_accum_dtype": "fp32"},
    "communication_data_type": "fp32",
    "prescale_gradients": False,
    "gradient_predivide_factor": 1.0,
    "disable_allgather": False,
    "wall_clock_breakdown": False,
    "memory_breakdown": False,
    "dump_state": False,
    "comms_logger": {"enabled": False, "verbose": False},
    "flops_profiler": {"enabled": False, "profile_step": 1},
    "tensorboard": {"enabled": False, "output_path": "board", "job_name": "x"},
    "csv_monitor": {"enabled": False, "output_path": "csv", "job_name": "x"},
    "zero_allow_untested_optimizer": True,
    "log_level": "critical",
}


def make(folder: Path) -> None:
    """Write all of it into a new folder; paths in it are meant from the folder itself."""
    folder.mkdir(parents=True)
    _texts(folder / "text")
    words = train_tokenizer([*GERMAN, *ENGLISH] * 3, 300, folder / "tokenizer.json")
    for name, text in TABLES.items():
        (folder / name).write_text(text)
    (folder / "ds.json").write_text(json.dumps(SPREAD))
    (folder / "hosts").write_text("one slots=1\ntwo slots=2\n")
    for split in ("train", "valid", "test"):
        _lines(folder / "data" / f"{split}.de", GERMAN)
        _lines(folder / "data" / f"{split}.en", ENGLISH)
    _model(folder / "model", folder, words, "janus", {"read": "past", "query_position": "input"})
    for step in (1, 2, 3):
        shutil.copytree(folder / "model/export", folder / f"model/exports/step-{step:08d}")
    rows = [{"step": step, "loss": 3.0 - step / 10, "ce/ar": 2.0} for step in (1, 2, 3)]
    _lines(folder / "model" / "valid.jsonl", [json.dumps(row) for row in rows])
    _model(folder / "ar", folder, words, "ar", AR)
    _bart(folder)
    _glge(folder / "glge.zip", folder / "glge")
    called(folder, "data_tools", "build", "corpus.toml")
    _half_built(folder)
    for way in (("greedy",), ("beam", "beam=2"), ("mask_predict", "iterations=2")):
        called(folder, "finetune.generate", "model", "--algorithm", *way, "--threads", "1")


def called(folder: Path, module: str, *words: str, codes: tuple[int, ...] = (0,)) -> None:
    """Run a command there as a process of its own; it must end with one of the codes."""
    done = subprocess.run(
        [sys.executable, "-P", "-m", module, *words],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode in codes, done.stderr


def _lines(path: Path, texts: list[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{text}\n" for text in texts))


def _texts(folder: Path) -> None:
    """One file of each kind that a source reads."""
    import pyarrow
    import pyarrow.parquet

    _lines(folder / "plain.txt", [*GERMAN, *ENGLISH])
    rows = "".join(json.dumps({"text": f"row {n} {text}"}) + "\n" for n, text in enumerate(ENGLISH))
    (folder / "rows.jsonl").write_text(rows)
    (folder / "rows.jsonl.gz").write_bytes(gzip.compress(rows.replace("row", "line").encode()))
    (folder / "more.jsonl.zst").write_bytes(zstandard.compress(rows.replace("row", "z").encode()))
    with zipfile.ZipFile(folder / "box.zip", "w", zipfile.ZIP_DEFLATED) as box:
        box.writestr("a.txt", "\n".join(f"boxed {text}" for text in GERMAN))
    for name in ("table.csv", "warc.warc.gz", "wet.warc.wet.gz", "wikipedia.xml.bz2"):
        shutil.copy(ROOT / "tests" / "fixtures" / "sources" / name, folder / name)
    table = pyarrow.table({"text": [f"cell {text}" for text in GERMAN]})
    pyarrow.parquet.write_table(table, folder / "cells.parquet")


AR = {"read": "past", "query_position": "target"}  # as BART has it


def _model(run: Path, base: Path, words: Tokenizer, objective: str, options: dict) -> None:
    """A model with random weights, exported."""
    torch.manual_seed(3)
    style = {} if objective == "janus" else {"positions": "learned", "norm": "post"}
    model = Seq2Seq(configure(TINY | style, words.size, "fuzz"))
    for p in model.parameters():
        torch.nn.init.normal_(p, std=0.5)  # so that it does not write the same for every source
    about = {"task": "iwslt14", "data": {"root": "data", "max_source": 40, "max_target": 20}}
    native.write(run / "export", model, base / "tokenizer.json", objective, options, about)


def _bart(folder: Path) -> None:
    """The model of `ar` as Hugging Face saves a BART."""
    called(folder, "januslm.hub", "export", "ar", "bart", "--to", "bart")


def _glge(archive: Path, runs: Path) -> None:
    """GLGE's archive in small, and predictions for two of its tasks."""
    tasks = importlib.import_module("finetune.glge.prepare").TASKS
    with zipfile.ZipFile(archive, "w") as box:
        for task in tasks:
            for name in ("train.src", "train.tgt", "dev.src", "dev.tgt", "test.src", "test.tgt"):
                texts = ENGLISH if name.endswith("src") else GERMAN
                box.writestr(f"easy/{task}_data/org_data/{name}", "\n".join(texts) + "\n")
    for task in ("xsum", "squadqg"):
        rows = [
            {"id": f"{task}-test-{n}", "source": s, "prediction": t, "references": [t]}
            for n, (s, t) in enumerate(zip(ENGLISH, GERMAN, strict=True), 1)
        ]
        _lines(runs / f"{task}.jsonl", [json.dumps(row) for row in rows])
        facts = {"task": task, "algorithm": "greedy", "version": "easy"}
        (runs / f"{task}.json").write_text(json.dumps(facts))


def _half_built(folder: Path) -> None:
    """half/: a build that has tokenized its parts and could not write its first shard."""
    obstacle = folder / "half" / "train" / "shard-00000.bin.new"
    obstacle.mkdir(parents=True)
    called(folder, "data_tools", "build", "corpus.toml", "out=half", codes=(2,))
    obstacle.rmdir()
    assert (folder / "half" / "journal.jsonl").read_text().count('"part"') > 2
