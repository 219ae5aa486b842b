"""Spoiled inputs end in success or in one line: a few here, benchmarks/fuzz.py by the thousand."""

import json
import re
import subprocess
import sys
import tomllib
from random import Random

import pytest

from benchmarks import fuzz, fuzz_inputs, fuzz_mutations, fuzz_sources
from januslm.data import sealed
from januslm.registry import names
from tests.conftest import ROOT

TRACEBACK = f"""Traceback (most recent call last):
  File "{fuzz.ROOT}/januslm/config.py", line 7, in build
    x
  File "/usr/lib/python3/json.py", line 9, in loads
    y
ValueError: no such thing
"""


@pytest.mark.parametrize(
    ("code", "said", "wanted"),
    [
        (0, "", ""),
        (2, "error: run.toml: steps is missing\n", ""),
        (2, "build: 3/12 parts tokenized | eta 3 s\nerror: disk full\n", ""),
        (1, "", "code 1: "),
        (2, "", "code 2 and not one line: "),
        (2, "error: a\nerror: b\n", "code 2 and not one line: error: a | error: b"),
        (2, "warning: a\n", "code 2 and not one line: warning: a"),
        (0, "UserWarning: x\n", "code 0 and said: UserWarning: x"),
        (1, TRACEBACK, "ValueError at januslm/config.py:7 build"),
        (2, TRACEBACK, "ValueError at januslm/config.py:7 build"),
        (-9, "", "hang: it ran past its time"),
        (-11, "", "code -11: "),
    ],
)
def test_success_and_one_line_are_accepted_and_nothing_else(code, said, wanted):
    assert fuzz.failure(code, said, (0,)) == wanted


@pytest.mark.parametrize("name", fuzz_inputs.TABLES)
def test_tables_are_written_as_they_were_read(name):
    table = tomllib.loads(fuzz_inputs.TABLES[name])
    assert tomllib.loads(fuzz_mutations.toml(table)) == table


def test_a_seed_gives_the_same_spoiled_tables_and_others_give_others():
    table = tomllib.loads(fuzz_inputs.PRETRAIN)
    made = [repr(fuzz_mutations.spoiled(table, Random(seed))) for seed in range(200)]
    assert made == [repr(fuzz_mutations.spoiled(table, Random(seed))) for seed in range(200)]
    assert len(set(made)) > 190
    assert table == tomllib.loads(fuzz_inputs.PRETRAIN)


def test_a_changed_state_file_is_sealed_again_so_that_its_shape_is_looked_at():
    table = json.loads(sealed.line({"step": 1}))
    table["step"] = [2]
    assert not sealed.is_whole(table)
    assert sealed.is_whole(fuzz_mutations.resealed(table))


@pytest.mark.long
@pytest.mark.slow
def test_no_command_ends_in_a_traceback_on_spoiled_inputs():
    words = ("--cases", "80", "--seed", "7", "--real", "40")
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.fuzz", *words],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"^all +80 .* 0$", done.stdout, re.M), done.stdout


@pytest.mark.slow
def test_no_spoiled_file_ends_in_a_traceback_or_reads_otherwise_in_pieces():
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.fuzz_sources", "--cases", "150", "--seed", "7"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"^all +150 .* 0$", done.stdout, re.M), done.stdout


def test_every_kind_of_source_that_reads_files_is_fuzzed(tmp_path):
    made = list(fuzz_sources.sound_files(tmp_path))
    assert {one.kind for one in made} | set(fuzz_sources.OWN) == set(names("data_tools.sources"))
    assert all(one.texts for one in made)
