"""Whatever can be refused is refused before torch or DeepSpeed are imported, for every verb."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from januslm.data import sealed
from tests.conftest import ROOT
from tests.test_distill import ENGLISH, GERMAN, teach
from tests.test_translation import lay

pytestmark = pytest.mark.slow  # each starts two or three processes
# In every process, by PYTHONPATH: notes the imports that a refusal must not wait for.
OBSERVER = """
import os, sys

def note(event, arguments):
    if event == "import" and arguments[0] in ("torch", "deepspeed", "transformers", "datasets"):
        with open(os.environ["IMPORTS_SEEN"], "a") as file:
            file.write(arguments[0] + "\\n")

sys.addaudithook(note)
"""
PRETRAIN = """
out = "{base}/pre"
tokenizer = "{base}/tokenizer.json"
[data]
train = [{{ corpus = "{base}/corpus/train" }}]
valid = [{{ corpus = "{base}/corpus/valid" }}]
length = 24
[model]
width = 16
ffn = 32
heads = 2
positions = "learned"
[train]
steps = 4
batch = 4
[schedule]
warmup = 1
"""
FINETUNE = """
out = "{base}/tuned"
task = "iwslt14"
start = "{base}/iwslt14-janus"
[data]
root = "{base}/data"
max_source = 40
max_target = 20
[train]
steps = 4
batch = 4
[schedule]
warmup = 1
"""
CORPUS = """
out = "{base}/corpus"
root = "{base}"
vocabulary = 300
validation = 0.3
tokenizer = "{base}/tokenizer.json"
[sources.text]
files = ["*.txt"]
split = "line"
"""


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """A corpus, a task's data, a trained model with exports, and good files that use them."""
    place = tmp_path_factory.mktemp("refusals")
    for split in ("train", "valid", "test"):
        lay(place / "data", split, {"de": GERMAN, "en": ENGLISH})
    run = teach(place / "data")
    shutil.copytree(run / "export", run / "exports" / "step-00000001")
    (place / "plain.txt").write_text("\n".join([*GERMAN, *ENGLISH] * 9))
    texts = {"pre.toml": PRETRAIN, "tune.toml": FINETUNE, "corpus.toml": CORPUS}
    for name, text in texts.items():
        (place / name).write_text(text.format(base=place))
    (place / "observer").mkdir()
    (place / "observer" / "sitecustomize.py").write_text(OBSERVER)
    (place / "ds.json").write_text(json.dumps({"zero_optimization": {"stage": 1}, "fp16": {}}))
    (place / "broken.json").write_text("{")
    (place / "bart").mkdir()
    (place / "bart" / "config.json").write_text('{"model_type": "t5"}')
    (place / "theirs").mkdir()
    (place / "theirs" / "config.json").write_text('{"model": {"width": 8}}')
    said = launched(place, "data", "build", place / "corpus.toml")
    assert said.returncode == 0, said.stderr
    return place


def launched(base: Path, *words, cwd: Path | None = None) -> subprocess.CompletedProcess:
    """The launcher as launch.sh starts it, with the observer in all its processes."""
    environment = {
        **os.environ,
        "JANUSLM_DATA": str(base / "nowhere"),
        "IMPORTS_SEEN": str(base / "seen"),
        "PYTHONPATH": os.pathsep.join([str(ROOT), str(base / "observer")]),
    }
    (base / "seen").unlink(missing_ok=True)
    return subprocess.run(
        [
            sys.executable,
            "-P",
            "-m",
            "januslm.launch",
            *(str(word).replace("BASE", str(base)) for word in words),
        ],
        cwd=cwd or base,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
    )


REFUSED = [
    ("pretend", "no verb 'pretend'"),
    ("pretrain", "which run?"),
    ("pretrain tinny", "tinny: no such file"),
    ("pretrain BASE/none.toml", "none.toml: no such file"),
    ("pretrain pre.toml train.stepz=3", "train: unknown key 'stepz'"),
    ("pretrain pre.toml train.steps=many", "steps must be a whole number"),
    ("pretrain pre.toml steps", "'steps' is not a change"),
    ("pretrain pre.toml --bogus", "unrecognized arguments: --bogus"),
    ("pretrain pre.toml objective.name=janos", "no 'janos' in objectives/"),
    ("pretrain pre.toml objective.name=ar objective.read=later", "read must be one of next, past"),
    ("pretrain pre.toml noise.name=spams", "no 'spams' in noise/"),
    ("pretrain pre.toml loss.weights={}", "loss.weights: nothing would be learnt"),
    ("pretrain pre.toml --allow train.sed", "--allow train.sed: no such key"),
    ("pretrain pre.toml noise.ratio=2", "ratio must be"),
    (
        "pretrain pre.toml noise.name=spans",
        "needs pairs; possible for plain text are blocks, dual_spans,",
    ),
    ("pretrain pre.toml model.preset=huge", "no model preset 'huge'"),
    ("pretrain pre.toml schedule.name=cosine schedule.warmup=9", "schedule.warmup must be less"),
    ("pretrain pre.toml tokenizer=none.json", "none.json: cannot be read"),
    ("pretrain pre.toml data.train[0].corpus=x", "unknown key 'train[0]'"),
    ('pretrain pre.toml data.train=[{corpus="none"}]', "none/manifest.json"),
    ("pretrain pre.toml start=none", "none: no model.safetensors"),
    ("pretrain pre.toml start=iwslt14-janus", "has model."),
    ("pretrain pre.toml start=theirs", "theirs"),
    ("pretrain pre.toml ds=none", "none: no such file"),
    ("pretrain pre.toml --ds zero9", "zero9: no such file"),
    ("pretrain pre.toml --ds ds.json", "'fp16' belongs to nobody"),
    ("pretrain pre.toml --ds broken.json", "broken.json: not a JSON file"),
    ("pretrain pre.toml --gpus 5", "train.batch = 4 is less than one example for each of 5"),
    ("pretrain pre.toml train.accumulate=5", "train.batch = 4 is less than one example"),
    ("pretrain pre.toml --gpus two", "--gpus must be a whole number from 1, got 'two'"),
    ("pretrain pre.toml --gpus 0", "--gpus must be a whole number from 1, got '0'"),
    ("pretrain pre.toml --hostfile none", "none: no such file"),
    ("pretrain pre.toml --hostfile corpus.toml", 'corpus.toml:2: must be "host slots=N"'),
    ("pretrain pre.toml out=plain.txt", "plain.txt: cannot be a run's folder"),
    ("pretrain pre.toml out=plain.txt/run", "plain.txt/run: cannot be a run's folder"),
    ("pretrain pre.toml out=other", "other holds another run"),
    ("finetune", "which run?"),
    ("finetune docsun", "docsun: no such file"),
    ("finetune tune.toml task=iwslt15", "no 'iwslt15' in tasks/"),
    ("finetune tune.toml train.stepz=3", "train: unknown key 'stepz'"),
    ("finetune tune.toml data.root=none", "none: no data of task 'iwslt14' there"),
    ("finetune tune.toml task=xsum data.root=", "nowhere: no xsum there"),
    ("finetune tune.toml start=none", "none: no model.safetensors"),
    ("finetune tune.toml start=theirs", "theirs"),
    ("finetune tune.toml noise.name=infill", "its own source from plain text; possible for pairs"),
    ("finetune tune.toml model.width=8", "model.width is given by start"),
    ("finetune tune.toml loss.weights.x=1", "no loss term 'x'"),
    ("finetune tune.toml --gpus 5", "train.batch = 4 is less than one example for each of 5"),
    ("finetune tune.toml out=other", "other holds another run"),
    ("finetune tune.toml --ds", "argument --ds: expected one argument"),
    ("write", "the following arguments are required: RUN"),
    ("write none", "none: no model.safetensors"),
    ("write theirs", "theirs"),
    ("write iwslt14-janus --iterations 0", "--iterations must be at least 1"),
    ("write iwslt14-janus --threads 5000", "--threads must be at most"),
    ("write iwslt14-janus --gpus 2", "--gpus is for pretrain, finetune and demo"),
    ("generate iwslt14-janus --input none.txt", "none.txt: cannot be read"),
    ("generate iwslt14-janus --input BASE/pre.toml --column x", "--column is for JSONL, CSV"),
    ("generate iwslt14-janus --input BASE/pre.toml --output data", "it is a folder"),
    ("generate iwslt14-janus --column x", "--column is for texts of your own"),
    ("generate iwslt14-janus --output -", "--output -: predictions of a task are a file"),
    ("generate", "the following arguments are required: RUN"),
    ("generate none", "none: no model.safetensors"),
    ("generate theirs", "theirs"),
    ("generate iwslt14-janus --algorithm bean", "no 'bean' in decoding/"),
    ("generate iwslt14-janus --algorithm beam bean=4", "beam: unknown key 'bean'"),
    ("generate iwslt14-janus --algorithm beam beam=0", "beam: beam must be at least 1"),
    ("generate iwslt14-janus --algorithm mask_predict lengths=all", "lengths must be one of topk"),
    ("generate iwslt14-janus beam", "'beam' is not a change"),
    ("generate iwslt14-janus --batch 0", "--batch must be at least 1"),
    ("generate iwslt14-janus --batch many", "argument --batch: invalid int value"),
    ("generate iwslt14-janus --threads 5000", "--threads must be at most"),
    ("generate iwslt14-janus --precision fp8", "--precision must be fp32 or bf16"),
    ("generate iwslt14-janus --split dev", "no split 'dev'"),
    ("generate iwslt14-janus --task iwslt15", "no 'iwslt15' in tasks/"),
    ("generate iwslt14-janus --data none", "none: no data of task"),
    ("generate iwslt14-janus --out plain.txt/x.jsonl", "plain.txt"),
    ("generate iwslt14-janus --verify", "--verify compares --algorithm speculative"),
    ("generate iwslt14-janus --gpus 2", "--gpus is for pretrain, finetune and demo"),
    ("evaluate", "the following arguments are required"),
    ("evaluate none", "none: no such file or folder"),
    ("evaluate iwslt14-janus --metric blue", "no 'blue' in metrics/"),
    ("evaluate iwslt14-janus --metric bleu:modus=x", "metric bleu: unknown key 'modus'"),
    ("evaluate iwslt14-janus --metric bleu:mode=x", "metric bleu: mode must be one of"),
    ("evaluate iwslt14-janus --metric rouge:level=word", "metric rouge: level must be one of"),
    ("evaluate glge none", "none: no such file or folder"),
    ("distill", "the following arguments are required: RUN, OUT"),
    ("distill none out", "none: no model.safetensors"),
    ("distill iwslt14-janus out bean=4", "beam: unknown key 'bean'"),
    ("distill iwslt14-janus out --portion 0", "--portion must be at least 1"),
    ("distill iwslt14-janus out --task scitldr", "task 'scitldr' has no `save`"),
    ("distill iwslt14-janus out --data none", "none: no data of task"),
    ("average iwslt14-janus out", "one of the arguments --last --best is required"),
    ("average none out --last 2", "none: no such folder"),
    ("average iwslt14-janus out --last 2", "1 exports there, --last 2 asked for"),
    ("average iwslt14-janus data --last 1", "data: is not empty"),
    ("interop bard a b", "invalid choice: 'bard'"),
    ("interop bart none out", "config.json: cannot be read"),
    (
        "interop bart bart out",
        "model_type is 't5'; possible are bang, bart, bert,",
    ),
    ("interop bart-out iwslt14-janus out", "invalid choice: 'bart-out'"),
    ("export iwslt14-janus", "the following arguments are required: OUT"),
    ("export none out", "none: no model.safetensors, config.json, tokenizer.json"),
    ("export data out", "data: no model.safetensors, config.json, tokenizer.json"),
    ("export iwslt14-janus out --to onnx", "no format 'onnx' to export to; there are bart, hf"),
    ("export iwslt14-janus out --to bart", "objective.read = 'next'); --to hf exports it"),
    ("export iwslt14-janus data", "data: is not empty, and not this export"),
    ("export iwslt14-janus plain.txt", "plain.txt: is not empty, and not this export"),
    ("push data someone/a-model", "data: not a folder that `export RUN OUT --to hf` wrote"),
    ("push data", "the following arguments are required: REPO"),
    ("finetune tune.toml start=hf:none", "none/config.json: cannot be read"),
    (
        "finetune tune.toml start=hf:bart",
        "model_type is 't5'; possible are bang, bart, bert,",
    ),
    ("data", "the following arguments are required: COMMAND"),
    ("data bild x", "invalid choice: 'bild'"),
    ("data build docstring", "docstring: no such file"),
    ("data build corpus.toml process=2", "unknown key 'process'"),
    ("data build corpus.toml sources.text.split=verse", "split must be one of"),
    ("data build corpus.toml sources.sql.x=1", "no 'sql' in sources/"),
    ('data build corpus.toml sources.text.files=["*.none"]', "*.none"),
    ("data tokenizer docstring", "docstring: no such file"),
    ("data verify none", "none"),
    ("data inspect none", "none"),
    ("data summaries out --most -1", "--most must be at least 0"),
    ("data summaries out --train no_such_package", "package 'no_such_package' is not installed"),
    ("data glge", "the following arguments are required: --archive"),
    ("data glge --archive none", "none: no such file or folder"),
    ("tensorboard none", "none: no such folder"),
    ("demo all", "demo takes no 'all'"),
    ("demo --say", "argument --say: expected one argument"),
    ("demo --say \x07", "--say must be text of printable letters"),
    ("demo --ds", "argument --ds: expected one argument"),
    ("test --ds x", "--ds is for pretrain, finetune and demo"),
]


@pytest.mark.parametrize(("words", "message"), REFUSED, ids=[words for words, _ in REFUSED])
def test_a_mistake_is_one_line_and_code_2_before_torch(base, words, message):
    (base / "other").mkdir(exist_ok=True)
    theirs = sealed.sealed({"model": {"width": 7}})
    (base / "other" / "config.json").write_text(json.dumps(theirs))
    done = launched(base, *words.split())
    assert (done.returncode, done.stdout) == (2, ""), done.stdout + done.stderr
    assert done.stderr.startswith("error: "), done.stderr
    assert message in done.stderr
    assert done.stderr.count("\n") == 1, done.stderr
    assert not (base / "seen").exists(), f"imported: {(base / 'seen').read_text()}"


def test_the_observer_sees_what_is_imported(base):
    """Else the test above would hold whatever happened."""
    done = launched(base, "generate", "iwslt14-janus", "--limit", 1, "max_length=4")
    assert done.returncode == 0, done.stderr
    assert "torch\n" in (base / "seen").read_text()


def test_a_run_without_mistakes_passes_the_check_without_torch(base):
    """What a launcher asks before it starts DeepSpeed."""
    for module, file in (("pretrain", "pre.toml"), ("finetune", "tune.toml")):
        code = f"import sys, runpy; sys.argv[1:] = ['{base / file}', '--check', '2']\n"
        code += f"try: runpy.run_module('{module}', run_name='__main__', alter_sys=True)\n"
        code += "except SystemExit as end: print(end.code, 'torch' in sys.modules)"
        done = subprocess.run(
            [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60
        )
        checked, ended = done.stdout.splitlines()
        assert ended == "0 False", done.stderr
        assert json.loads(checked)["fingerprint"]["run"]["train"]["seed"] == 1
    assert not (base / "pre").exists()
    assert not (base / "tuned").exists()
