"""Every benchmark starts: a number whose command does not run is no number."""

import subprocess
import sys

import pytest

from tests.conftest import ROOT

FILES = sorted(path for path in ROOT.glob("benchmarks/*.py") if path.stem != "__init__")
COMMANDS = [path.stem for path in FILES if "__main__" in path.read_text(encoding="utf-8")]


@pytest.mark.slow
def test_every_file_finds_what_it_imports():
    code = "".join(f"import benchmarks.{path.stem}\n" for path in FILES)
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help(name):
    command = [sys.executable, "-m", f"benchmarks.{name}", "--help"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("usage: ")
