"""A build takes nothing for its own that is not, deletes nothing else, and survives its machine."""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from data_tools.build import build
from data_tools.journal import Journal
from data_tools.recipe import read
from januslm.config import Refused
from januslm.data import sealed
from tests import launching
from tests.launching import wait_until
from tests.test_data_tools import ROOT, lines, many, recipe, run, sentences, shard_bytes, tokenizer

__all__ = ["many", "tokenizer"]  # fixtures


@pytest.fixture
def built(tmp_path, tokenizer) -> Path:
    """A corpus file beside the corpus that was built from it, out/."""
    (tmp_path / "a.jsonl").write_bytes(lines(sentences(40, 1)))
    path = recipe(tmp_path, tokenizer, '[sources.jsonl]\nfiles = ["*.jsonl"]', "validation = 0.2")
    build(read(str(path)), lambda _: None)
    return path


def again(path: Path, *changes: str, fresh: bool = False) -> list[str]:
    said: list[str] = []
    build(read(str(path), changes), said.append, fresh)
    return said


# --- what is already built


def test_without_its_journal_a_corpus_is_already_built_for_its_own_recipe_alone(built, tmp_path):
    whole = shard_bytes(tmp_path / "out")
    (tmp_path / "out" / "journal.jsonl").unlink()
    with pytest.raises(Refused, match=r"differs in validation \(0\.2 then, 0\.3 now\); --fresh"):
        again(built, "validation=0.3")
    assert not (tmp_path / "out" / "journal.jsonl").exists()
    with pytest.raises(Refused, match=r"differs in filters\.max_bytes\.limit"):
        again(built, "filters.max_bytes.limit=50")
    (tmp_path / "b.jsonl").write_bytes(lines(["one more"]))
    with pytest.raises(Refused, match="differs in inputs; --fresh"):
        again(built)
    (tmp_path / "b.jsonl").unlink()
    assert all(": already built, " in line for line in again(built))
    assert shard_bytes(tmp_path / "out") == whole


@pytest.mark.slow
def test_a_journal_of_another_recipe_beside_a_finished_corpus_is_not_believed(built, tmp_path):
    again(built, "validation=0.3", f'out="{tmp_path / "other"}"')
    os.replace(tmp_path / "other" / "journal.jsonl", tmp_path / "out" / "journal.jsonl")
    with pytest.raises(Refused, match=r"differs in validation \(0\.2 then, 0\.3 now\)"):
        again(built, "validation=0.3")


def test_a_corpus_that_no_build_has_made_is_not_already_built(built, tmp_path):
    for split in ("train", "valid"):
        manifest = sealed.read(tmp_path / "out" / split / "manifest.json")
        del manifest["recipe"], manifest["made_from"]  # as merge and convert write it
        text = json.dumps(sealed.sealed(manifest))
        (tmp_path / "out" / split / "manifest.json").write_text(text)
    (tmp_path / "out" / "journal.jsonl").unlink()
    with pytest.raises(Refused, match="or of no build: it does not note its recipe's keys"):
        again(built)
    whole = shard_bytes(tmp_path / "out")
    with pytest.raises(Refused, match=r"manifest\.json: nothing proves that a build has written"):
        again(built, fresh=True)
    assert shard_bytes(tmp_path / "out") == whole


BEFORE = [["web", "a.jsonl", "1", 10], ["web", "b.jsonl", "2", 10]]
CHANGED = [
    ([["web", "a.jsonl", "1", 10], ["web", "b.jsonl", "3", 10]], "b.jsonl has changed"),
    ([["web", "a.jsonl", "9", 10], ["web", "b.jsonl", "3", 10]], "a.jsonl has changed, and 1 more"),
    ([*BEFORE, ["books", "a.jsonl", "1", 10]], "a.jsonl is new"),
    (BEFORE[1:], "a.jsonl is gone"),
    ([BEFORE[0], *BEFORE[1:] * 2], "b.jsonl has changed"),  # a large file is several inputs
    (BEFORE[::-1], "in another order"),
]


@pytest.mark.parametrize(("now", "what"), CHANGED, ids=[what for _, what in CHANGED])
def test_an_input_that_changed_is_named_even_at_equal_size(tmp_path, now, what):
    Journal(tmp_path, {"inputs": BEFORE}, print).close()
    with pytest.raises(Refused, match=rf"differs in inputs \({what}\); --fresh"):
        Journal(tmp_path, {"inputs": now}, print)


def test_a_file_that_changed_at_equal_size_and_time_is_not_already_built(built, tmp_path):
    file = tmp_path / "a.jsonl"
    raw, times = file.read_bytes(), file.stat()
    file.write_bytes(raw[:-10] + b"X" + raw[-9:])
    os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))
    with pytest.raises(Refused, match=r"differs in inputs \(a\.jsonl has changed\); --fresh"):
        again(built)
    (tmp_path / "out" / "journal.jsonl").unlink()
    with pytest.raises(Refused, match="differs in inputs; --fresh"):
        again(built)
    file.write_bytes(raw)
    assert all(": already built, " in line for line in again(built))


# --- what --fresh deletes


@pytest.mark.slow
def test_fresh_leaves_what_is_not_a_builds(built, tmp_path):
    strangers = ["train/shard-00000.tar", "train/notes.txt", "valid/mine/x", "mine"]
    for name in strangers:
        (tmp_path / "out" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "out" / name).write_text("mine")
    again(built, fresh=True)
    assert all((tmp_path / "out" / name).read_text() == "mine" for name in strangers)


@pytest.mark.parametrize("name", ["manifest.json", "shard-00000.bin"])
def test_fresh_refuses_what_nothing_proves_to_be_a_builds(built, tmp_path, name):
    place = tmp_path / "theirs" / "train" / name
    place.parent.mkdir(parents=True)
    place.write_text('{"shards": [], "version": 2}')
    with pytest.raises(Refused, match=rf"train/{name}: nothing proves that a build has written it"):
        again(built, f'out="{tmp_path / "theirs"}"', fresh=True)
    assert place.read_text() == '{"shards": [], "version": 2}'


@pytest.mark.slow
def test_fresh_deletes_a_build_whose_manifest_is_damaged(built, tmp_path):
    whole = shard_bytes(tmp_path / "out")
    (tmp_path / "out" / "train" / "manifest.json").write_text('{"for')
    with pytest.raises(Refused, match=r"manifest\.json: not a JSON file.*; --fresh deletes"):
        again(built)
    again(built, fresh=True)
    assert shard_bytes(tmp_path / "out") == whole


# --- the machine


@pytest.fixture
def small(tmp_path):
    """A real file system of 400 kB."""
    with launching.small_disk(tmp_path, 400, lazy=True) as disk:
        yield disk


@pytest.mark.slow
def test_a_full_disk_is_one_line_and_the_same_command_goes_on(many, small):
    words = ("build", many / "corpus.toml", f"out={small}", "processes=2")
    done = run(*words)
    assert done.returncode == 2
    [line] = [line for line in done.stderr.splitlines() if not line.startswith("build: ")]
    assert line.startswith(f"error: {small}")
    assert line.endswith("No space left on device; what is finished is kept")
    finished = (small / "journal.jsonl").read_bytes().count(b'"part"')
    assert finished
    subprocess.run(["mount", "-o", "remount,size=40m", str(small)], check=True)
    done = run(*words)
    assert done.returncode == 0, done.stderr
    assert f": {finished} of " in done.stdout
    assert shard_bytes(small) == shard_bytes(many / "out")


@pytest.mark.slow
def test_a_killed_worker_ends_the_build_with_one_line_and_the_same_command_goes_on(many, tmp_path):
    words = ("build", many / "corpus.toml", f"out={tmp_path}", "processes=2")
    child = subprocess.Popen(
        [sys.executable, "-m", "data_tools", *map(str, words)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    journal = tmp_path / "journal.jsonl"
    wait_until(lambda: journal.exists() and journal.read_bytes().count(b"\n") >= 2)
    children = psutil.Process(child.pid).children()
    worker = next(one for one in children if "spawn_main" in " ".join(one.cmdline()))
    worker.send_signal(signal.SIGKILL)
    _, said = child.communicate(timeout=60)
    assert child.returncode == 1
    [line] = [line for line in said.splitlines() if not line.startswith("build: ")]
    assert line.startswith("error: a worker process was killed (out of memory?)")
    done = run(*words)
    assert done.returncode == 0, done.stderr
    assert shard_bytes(tmp_path) == shard_bytes(many / "out")


def test_a_copied_corpus_is_already_built_where_it_lies(built, tmp_path):
    shutil.copytree(tmp_path / "out", tmp_path / "copy")
    assert all(": already built, " in line for line in again(built, f'out="{tmp_path / "copy"}"'))
