"""Every objective in every way: drawn, pretrained, fine-tuned and decoded from the command line."""

import inspect
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from januslm.config import Refused
from januslm.inference.request import check_ways
from januslm.registry import constant, find
from tests.conftest import ROOT
from tests.decoders import DECODERS
from tests.samples import case_name, every_layout, resolved
from tests.test_pipeline import CORPUS, sentences

pytestmark = pytest.mark.slow

# Positions and sizes of test_pipeline's, smaller yet; a weight for lengths where they are needed.
RUN = """
out = "{base}/{case}/pre"
tokenizer = "{base}/corpus/tokenizer.json"
[data]
length = 24
valid_samples = 4
train = [{{ corpus = "{base}/corpus/train" }}]
valid = [{{ corpus = "{base}/corpus/valid" }}]
[model]
width = 16
ffn = 32
heads = 2
encoder_layers = 1
decoder_layers = 1
max_positions = 40
max_length = 24
positions = "learned"
length = "{length}"
[objective]
{objective}
[schedule]
warmup = 1
[train]
steps = 2
batch = 4
validate_every = 2
save_every = 2
"""
TUNE = """
out = "{base}/{case}/tuned"
task = "docsum"
start = "{base}/{case}/pre"
[data]
root = "{base}/docsum"
max_source = 24
max_target = 16
[objective]
{objective}
[loss]
normalize = "{normalize}"
[train]
steps = 2
batch = 4
validate_every = 2
[schedule]
warmup = 1
"""
MORE = {"blockwise": ["steps=2", "threshold=0.5"]}  # where a checkpoint has learnt it


class Commands:
    """Commands of the project, each in a fork of one process that has loaded what they need."""

    def __init__(self):
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "DS_ACCELERATOR": "cpu"}
        self.worker = subprocess.Popen(
            [sys.executable, "-P", "-m", "tests.commands_worker"],
            cwd=ROOT,
            env=environment | {"PYTHONPATH": str(ROOT)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __call__(self, folder: Path, module: str, *words, code: int = 0) -> str:
        """stderr of `python -m MODULE WORDS`, whose exit code is checked."""
        self.worker.stdin.write(json.dumps([str(folder), module, list(map(str, words))]) + "\n")
        self.worker.stdin.flush()
        got, said = json.loads(self.worker.stdout.readline())
        assert got == code, (module, words, said)
        assert "Traceback" not in said, said
        return said


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """A corpus, pairs, and the commands."""
    folder = tmp_path_factory.mktemp("every")
    run = Commands()
    lines = sentences()[:120]
    (folder / "plain.txt").write_text("\n".join(lines))
    (folder / "corpus.toml").write_text(CORPUS.format(out=folder / "corpus"))
    for step in ("tokenizer", "build"):
        run(folder, "data_tools", step, folder / "corpus.toml", f"root={folder}")
    (folder / "docsum").mkdir()
    for split, part in (("train", lines[:12]), ("valid", lines[12:16]), ("test", lines[16:19])):
        rows = [
            {"id": f"{split}-{i}", "package": split, "source": line[:40], "target": line[:20]}
            for i, line in enumerate(part)
        ]
        text = "".join(json.dumps(row) + "\n" for row in rows)
        (folder / "docsum" / f"{split}.jsonl").write_text(text)
    yield folder, run
    run.worker.stdin.close()
    run.worker.wait()


def table(name: str, given: dict) -> str:
    """The table [objective] of a run file."""
    values = {"name": name} | given
    return "\n".join(f"{key} = {json.dumps(value)}" for key, value in values.items())


def able(objective, algorithm: str, *more: str) -> bool:
    try:
        check_ways(objective, (*constant("januslm.decoding", algorithm, "NEEDS", ()), *more))
    except Refused:
        return False
    return True


def ways() -> list:
    """Every objective, and it with each of its choices and switches changed by itself.

    One of them is a matter of seconds, all are of minutes.
    """
    found = []
    for name, given in every_layout():
        known = inspect.signature(find("januslm.objectives", name).layout).parameters
        changed = [key for key, value in given.items() if value != known[key].default]
        if len(changed) < 2:
            marks = [] if (name, changed) == ("janus", ["free"]) else [pytest.mark.long]
            case = name, {key: given[key] for key in changed}
            found.append(pytest.param(case, marks=marks, id=case_name(case)))
    return found


@pytest.mark.parametrize("case", ways())
def test_it_is_drawn_pretrained_fine_tuned_and_decoded_by_whatever_fits(base, case):
    folder, run = base
    name, given = case
    objective = resolved(name, **given)
    words = [f"{key}={json.dumps(value).strip(chr(34))}" for key, value in given.items()]
    run(folder, "januslm.objectives", name, *words)
    every = dict(base=folder, case=case_name(case), objective=table(name, given))
    every["length"] = "token" if name == "cmlm" else "mean"
    every["normalize"] = "goals" if name in ("cmlm", "bang", "prophetnet") else "term"
    for module, text in (("pretrain", RUN), ("finetune", TUNE)):
        file = folder / f"{case_name(case)}.{module}.toml"
        file.write_text(text.format(**every))
        # [LEN] is a row of a weight that its own layer does not read: sharded, it must be gathered.
        run(folder, module, file, *(["--ds", "cpu_zero3_fp32"] if name == "cmlm" else []))
    tuned = folder / case_name(case) / "tuned"
    [first, last] = map(json.loads, (tuned / "valid.jsonl").read_text().splitlines())
    terms = last.keys() & objective.loss.weights.keys()  # nine words ahead may come nowhere
    assert terms
    assert all(last[term] > 0 for term in terms)
    assert first["loss"] != last["loss"]
    wrote = []
    for algorithm in DECODERS:
        fits = able(objective, algorithm)
        several = [[]]
        if fits and able(objective, algorithm, "a block in several passes"):
            several += [MORE[algorithm]] if algorithm in MORE else []
        for options in several:
            out = tuned / f"{algorithm}{len(options)}.jsonl"
            words = ("--algorithm", algorithm, "--batch", 2, "--output", out, *options)
            said = run(folder, "finetune.generate", tuned, *words, code=0 if fits else 2)
            if not fits:
                assert "cannot write" in said
                continue
            rows = [json.loads(line) for line in out.read_text().splitlines()]
            assert [row["id"] for row in rows] == ["test-0", "test-1", "test-2"]
            assert all(row["passes"] > 0 for row in rows)
            wrote.append(algorithm)
    assert wrote or name == "mlm"
