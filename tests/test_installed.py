"""`pip install .` for real: the command januslm, from an empty folder, without the clone."""

import json
import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from tests.conftest import ROOT

pytestmark = pytest.mark.slow
BUILD = (
    "sources.docstrings.include=['stdlib']",
    "sources.docstrings.package_megabytes=0.1",
    "validation_groups=[]",
    "validation=0.2",
    "vocabulary=300",
    "out=mine/corpus",
)
RUN = (
    "tokenizer=mine/corpus/tokenizer.json",
    "data.train=[{corpus='mine/corpus/train'}]",
    "data.valid=[{corpus='mine/corpus/valid'}]",
    "data.valid_samples=4",
    "train.steps=3",
    "train.batch=4",
    "schedule.warmup=1",
    "packing.samples=0",
    "out=mine/run",
)


@pytest.fixture(scope="module")
def installed(tmp_path_factory) -> Path:
    """An environment with januslm, installed from a copy of the clone that is gone then."""
    base = tmp_path_factory.mktemp("installed")
    (base / "clone").mkdir()
    for name in ("januslm", "pretrain", "finetune", "data_tools", "ds_configs"):
        shutil.copytree(ROOT / name, base / "clone" / name)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, base / "clone")
    python = base / "env" / "bin" / "python"
    _run([sys.executable, "-m", "venv", "--without-pip", base / "env"])
    [site] = (base / "env" / "lib").glob("python*/site-packages")
    # A .pth inside a folder that a .pth names is not read: an editable januslm stays out.
    (site / "packages.pth").write_text(sysconfig.get_path("purelib") + "\n")
    pip = [sys.executable, "-m", "pip", "--python", python, "--disable-pip-version-check"]
    _run([*pip, "install", "-q", "--no-deps", "--no-build-isolation", base / "clone"])
    shutil.rmtree(base / "clone")
    return base / "env" / "bin" / "januslm"


def _run(words, cwd=None, code=0) -> subprocess.CompletedProcess:
    """A command with nothing of the clone in its environment; its exit code is checked."""
    hidden = {"PYTHONPATH", "JANUSLM_DATA", "JANUSLM_PROGRAM"}
    environment = {k: v for k, v in os.environ.items() if k not in hidden}
    done = subprocess.run(
        [str(word) for word in words],
        cwd=cwd,
        env=environment | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == code, done.stdout + done.stderr
    return done


def test_the_packages_that_are_run_are_the_installed_ones(installed, tmp_path):
    code = "import januslm, pretrain, data_tools; print(januslm.__file__, pretrain.__file__)"
    said = _run([installed.with_name("python"), "-c", code], tmp_path).stdout
    assert said.count(str(installed.parents[1])) == 2


def test_it_is_imported_with_its_types(installed, tmp_path):
    code = (
        "import sys, januslm; from pathlib import Path\n"
        "print((Path(januslm.__file__).parent / 'py.typed').is_file(), 'torch' in sys.modules)\n"
        "print(januslm.load.__name__, 'deepspeed' in sys.modules)"
    )
    said = _run([installed.with_name("python"), "-c", code], tmp_path).stdout
    assert said == "True False\nload False\n"


def test_help_names_the_command_and_verbs(installed, tmp_path):
    assert _run([installed], tmp_path).stdout.startswith("Usage: januslm VERB")
    assert "usage: januslm finetune" in _run([installed, "finetune", "--help"], tmp_path).stdout


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["test"], "this verb is for a clone of the project"),
        (["pretrain", "tiny"], "corpora/docstrings/tokenizer.json: cannot be read"),
        (["finetune", "scitldr"], "runs/tiny/pretrain: no model.safetensors"),
        (["pretrain", "tiny", "--ds", "zero9"], "there are cpu_fp32, cpu_zero3_fp32, zero0_fp32"),
        (["data", "build", "docstring"], "Did you mean 'docstrings'?"),
    ],
)
def test_a_mistake_is_one_line_there_too(installed, tmp_path, words, message):
    error = _run([installed, *words], tmp_path, code=2).stderr
    assert message in error
    assert error.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_a_file_of_the_users_comes_before_one_of_the_same_name(installed, tmp_path):
    (tmp_path / "tiny").write_text("out = 3\n")
    error = _run([installed, "pretrain", "tiny"], tmp_path, code=2).stderr
    assert error == "error: tiny: out must be a text, got 3\n"


def test_from_text_to_a_trained_model_in_an_empty_folder(installed, tmp_path):
    """Shipped files by name, a folder in the way that is called like one of ours, outputs here."""
    (tmp_path / "pretrain").mkdir()
    (tmp_path / "pretrain" / "__main__.py").write_text("raise SystemExit('not this one')\n")
    _run([installed, "data", "build", "docstrings", *BUILD], tmp_path)
    words = [installed, "pretrain", "tiny", "--gpus", "1", "--ds", "cpu_fp32", *RUN]
    dry = _run([*words, "--dry-run"], tmp_path).stdout
    assert "--module pretrain tiny" in dry
    assert not (tmp_path / "mine" / "run").exists()
    assert "done: step 3" in _run(words, tmp_path).stdout
    assert json.loads((tmp_path / "mine" / "run" / "done").read_text())["step"] == 3
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mine", "pretrain"]
    assert "is done: step 3" in _run(words, tmp_path).stdout
