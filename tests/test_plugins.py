"""A folder of one's own, outside the clone: found by every command, refused where it must be."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from januslm import registry
from januslm.config import Refused
from januslm.data.tokenizer import train_tokenizer
from januslm.interop import native
from januslm.interop.export_folder import read_facts
from januslm.model.config import configure
from januslm.model.transformer import Seq2Seq
from januslm.training import fingerprint
from tests import test_one_file
from tests.conftest import ROOT

FILES = {
    "objectives/middle_out.py": test_one_file.OBJECTIVE,
    "noise/every_second.py": test_one_file.NOISE,
    "tasks/glosses.py": test_one_file.TASK.replace('("rouge",)', '("char_f",)'),
    "metrics/char_f.py": test_one_file.METRIC,
    "decoding/look_two.py": test_one_file.DECODER,
    "sources/mbox.py": test_one_file.mbox(),
}


@pytest.fixture(autouse=True)
def as_before():
    """What a test adds to the packages is taken out again."""
    paths = {name: list(_path(name)) for name in registry.HOMES.values()}
    yield
    for name, path in paths.items():
        _path(name)[:] = path
    registry._added.clear()
    registry._gone.clear()


def _path(package: str) -> list[str]:
    import importlib

    return importlib.import_module(package).__path__


def lay(folder: Path, files: dict[str, str] = FILES) -> Path:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")
    return folder


def test_names_options_and_constants_are_found_in_a_folder_of_ones_own(tmp_path):
    lay(tmp_path / "my", FILES | {"decoding/quick.py": 'NEEDS = ("all at once",)\n'})
    assert registry.extend(str(tmp_path / "my")) == str(tmp_path / "my")
    assert "middle_out" in registry.names("januslm.objectives")
    assert registry.find("januslm.objectives", "middle_out").STREAMS == ("word", "ask")
    hide = registry.declared("januslm.noise", "every_second", "hide")
    with pytest.raises(Refused, match="n: first must be at least 1 and at most 2, got 3"):
        registry.options(hide, {"first": 3}, "n")
    assert registry.constant("januslm.decoding", "quick", "NEEDS") == ("all at once",)
    registry.extend(str(tmp_path / "my"))  # once more changes nothing
    assert registry.extended() == (str(tmp_path / "my"),)


def test_a_plug_in_that_differs_on_another_host_is_another_code(tmp_path):
    lay(tmp_path / "my", {"noise/every_second.py": FILES["noise/every_second.py"]})
    without = fingerprint.code.__wrapped__()
    registry.extend(str(tmp_path / "my"))
    with_it = fingerprint.code.__wrapped__()
    (tmp_path / "my/noise/every_second.py").write_text("# changed\n")
    assert len({without, with_it, fingerprint.code.__wrapped__()}) == 3


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({}, "plugins = '.*my': no such folder, "),
        ({"objective/x.py": ""}, "none of its folders is one of objectives, noise, metrics"),
        (
            {"objectives/janus.py": ""},
            "objectives/janus.py has a name that januslm.objectives has already; give it another",
        ),
        ({"noise/_runs.py": ""}, "noise/_runs.py has a name that januslm.noise has already"),
    ],
)
def test_a_folder_that_cannot_be_used_is_refused(files, message, tmp_path):
    lay(tmp_path / "my", files)
    with pytest.raises(Refused, match=message):
        registry.extend(str(tmp_path / "my"))
    assert not registry.extended()


def test_two_folders_may_not_have_one_name(tmp_path):
    for name in ("one", "two"):
        lay(tmp_path / name, {"metrics/mine.py": '"""Mine."""\n'})
    registry.extend(str(tmp_path / "one"))
    with pytest.raises(Refused, match=r"two': metrics/mine.py has a name that januslm.metrics has"):
        registry.extend(str(tmp_path / "two"))


def test_a_name_that_was_in_a_folder_that_is_gone_says_so(tmp_path):
    registry.extend_again(str(tmp_path / "my"))
    with pytest.raises(Refused, match=r"no 'middle_out' in objectives/.*; plugins .*/my is not th"):
        registry.find("januslm.objectives", "middle_out")


def test_a_model_that_was_handed_on_does_not_bring_code(tmp_path):
    words = train_tokenizer(["the house"] * 9, 265, tmp_path / "tokenizer.json")
    sizes = {"width": 16, "ffn": 32, "heads": 2, "encoder_layers": 1, "decoder_layers": 1}
    model = Seq2Seq(configure(sizes, words.size, "t"))
    lay(tmp_path / "model/my", {"objectives/mine.py": "raise SystemExit('it ran')\n"})
    for plugins, message in (
        (str(tmp_path / "model/my"), "is in the model's folder: it brings no code"),
        ("model/my", "plugins = 'model/my': not as a run writes it, an absolute path"),
    ):
        about = {"plugins": plugins}
        native.write(tmp_path / "model", model, tmp_path / "tokenizer.json", "mine", {}, about)
        with pytest.raises(Refused, match=message):
            read_facts(tmp_path / "model")
        assert not registry.extended()


GLOSSES = "".join(f"word {n}\tthe number {n} and nothing else\n" for n in range(20))
RUN = """\
out = "run"
task = "glosses"
plugins = "my"
tokenizer = "tokenizer.json"
objective = {name = "ar"}
noise = {name = "every_second"}
model = {width = 16, ffn = 32, heads = 2, encoder_layers = 1, decoder_layers = 1}
data = {root = "data", max_source = 32, max_target = 32, valid_samples = 4}
schedule = {warmup = 1}
packing = {samples = 0}
train = {steps = 2, batch = 4}
"""
CORPUS = """\
out = "corpus"
plugins = "my"
validation = 0.4
vocabulary = 300
processes = 1
[sources.mbox]
files = ["*.mbox"]
"""
PRETRAIN = """\
out = "pre"
plugins = "my"
tokenizer = "corpus/tokenizer.json"
objective = {name = "middle_out"}
model = {width = 16, ffn = 32, heads = 2, encoder_layers = 1, decoder_layers = 1}
schedule = {warmup = 1}
packing = {samples = 0}
train = {steps = 2, batch = 4}
[data]
train = [{corpus = "corpus/train"}]
valid = [{corpus = "corpus/valid"}]
length = 32
valid_samples = 4
"""


def command(home: Path, *words: str, code: int = 0) -> str:
    """januslm WORDS, run in `home`; what it wrote."""
    done = subprocess.run(
        [sys.executable, "-m", "januslm.launch", *words],
        cwd=home,
        env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


def mails(count: int) -> str:
    one = "From a@example.org Mon Jan  1 00:00:00 2024\nSubject: s\n\nMail {0} of {0}.\n\n"
    return "".join(one.format(n) for n in range(count))


@pytest.mark.slow
def test_a_strangers_source_and_objective_go_from_text_to_a_model(tmp_path):
    """In worker processes, too, which start from nothing."""
    lay(tmp_path, {f"my/{name}": text for name, text in FILES.items()})
    lay(tmp_path, {"corpus.toml": CORPUS, "pre.toml": PRETRAIN, "x.mbox": mails(60)})
    command(tmp_path, "data", "tokenizer", "corpus.toml")
    command(tmp_path, "data", "build", "corpus.toml")
    command(tmp_path, "pretrain", "pre.toml")
    about = json.loads((tmp_path / "pre/export/config.json").read_text())
    assert about["objective"]["name"] == "middle_out"
    assert about["about"]["plugins"] == str(tmp_path / "my")
    (tmp_path / "my").rename(tmp_path / "elsewhere")
    said = command(tmp_path, "pretrain", "pre.toml", "train.steps=3", code=2)
    assert f"plugins = 'my': no such folder, {tmp_path / 'my'}" in said


@pytest.mark.slow
def test_a_strangers_task_noise_metric_and_algorithm_are_used_from_any_folder(tmp_path):
    lay(tmp_path, {f"my/{name}": text for name, text in FILES.items()})
    lay(tmp_path, {f"data/{split}.tsv": GLOSSES for split in ("train", "valid", "test")})
    lay(tmp_path, {"run.toml": RUN, "else/where": ""})
    train_tokenizer(GLOSSES.splitlines(), 300, tmp_path / "tokenizer.json")
    command(tmp_path, "finetune", "run.toml")
    decoding = ("--limit", "4", "--threads", "1", "max_length=5")
    run, away = str(tmp_path / "run"), tmp_path / "else"
    command(away, "generate", run, "--algorithm", "look_two", *decoding)
    table = command(away, "evaluate", f"{run}/predictions")
    assert "glosses, test: 4 sentences, ids as in" in table
    assert "char-f" in table
    command(away, "evaluate", f"{run}/predictions", "--metric", "char_f")
    (tmp_path / "my").rename(tmp_path / "gone")
    said = command(away, "generate", run, "--algorithm", "greedy", code=2)
    assert "no 'glosses' in tasks/; there are " in said
    assert f"plugins {tmp_path / 'my'} is not there any more" in said
    said = command(away, "evaluate", f"{run}/predictions", code=2)
    assert f"plugins {tmp_path / 'my'} is not there any more" in said


@pytest.mark.slow
def test_a_metric_of_ones_own_scores_what_any_model_wrote(tmp_path):
    lay(tmp_path, {"my/metrics/char_f.py": FILES["metrics/char_f.py"]})
    row = {"id": "1", "source": "a", "prediction": "one house", "references": ["one house"]}
    (tmp_path / "test.greedy.jsonl").write_text(json.dumps(row) + "\n")
    (tmp_path / "test.greedy.json").write_text('{"task": "docsum"}')
    words = ("evaluate", "test.greedy.jsonl", "--metric", "char_f")
    assert "100.00" in command(tmp_path, *words, "--plugins", "my")
    assert "no 'char_f' in metrics/" in command(tmp_path, *words, code=2)
