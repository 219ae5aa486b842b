"""What a plan says from a sample is what the build then finds, and nothing is written."""

import gzip
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import zstandard

from data_tools.build import build
from data_tools.plan import plan
from data_tools.recipe import read
from januslm.config import Refused
from januslm.data.shards import open_corpus
from tests.test_data_tools import ROOT, lines, recipe, sentences, tokenizer

__all__ = ["tokenizer"]  # a fixture
PACK = {"": bytes, ".gz": gzip.compress, ".zst": zstandard.compress}


def said(path: Path, seconds: float = 0.5) -> str:
    found: list[str] = []
    plan(read(str(path)), found.append, seconds)
    return "\n".join(found)


def row(text: str, source: str) -> list[int]:
    """(documents, kept, tokens) of one source."""
    line = next(line for line in text.splitlines() if line.startswith(f"{source} "))
    return [int(number.replace(",", "")) for number in line.split()[-3:]]


@pytest.mark.slow
@pytest.mark.parametrize("suffix", PACK)
def test_documents_and_tokens_are_estimated_from_parts_of_some_files(tmp_path, tokenizer, suffix):
    for number in range(6):
        texts = [*sentences(6000, number), *["", " "] * 300]
        (tmp_path / f"{number}.jsonl{suffix}").write_bytes(PACK[suffix](lines(texts)))
    path = recipe(tmp_path, tokenizer, '[sources.web]\nkind = "jsonl"\nfiles = ["*.jsonl*"]')
    before = sorted(tmp_path.rglob("*"))
    text = said(path)
    assert sorted(tmp_path.rglob("*")) == before
    build(read(str(path)), lambda _: None)
    corpus = open_corpus(tmp_path / "out" / "train")
    counters = corpus.manifest["counters"]["web"]
    assert set(counters["dropped"]) == {"empty"}
    documents, kept, tokens = row(text, "web")
    assert documents == pytest.approx(counters["read"], rel=0.12)
    assert kept == pytest.approx(counters["train"], rel=0.12)
    assert tokens == pytest.approx(corpus.tokens, rel=0.12)


def test_a_plan_names_sources_drops_time_memory_and_disk(tmp_path, tokenizer):
    (tmp_path / "a.jsonl").write_bytes(lines([*sentences(30, 1), *[""] * 10]))
    (tmp_path / "b.txt").write_text("\n\n".join(sentences(60, 2)))
    sources = (
        '[sources.web]\nkind = "jsonl"\nfiles = ["*.jsonl"]\n[sources.text]\nfiles = ["*.txt"]'
    )
    path = recipe(tmp_path, "", sources, "vocabulary = 300")
    text = said(path)
    assert row(text, "web")[:2] == [40, 30]  # read whole, so nothing is estimated
    assert row(text, "text")[:2] == [60, 60]
    assert "tokenizer.json: not there yet; tokens are counted by one of a sample's" in text
    assert "dropped, of all documents: empty 10.00%" in text
    for pattern in (
        r"^time: \d+ s by 1 process; there are 2 parts to share$",
        r"^memory: [\d.]+ [MG]B: [\d.]+ [MG]B in each of processes = 1 and ",
        r"^disk: [\d.]+ kB until it is built \(parts .*\), [\d.]+ kB after; .* are free$",
    ):
        assert re.search(pattern, text, re.M), (pattern, text)
    assert not (tmp_path / "out").exists()


def test_a_sample_without_any_text_is_refused_with_the_reasons(tmp_path, tokenizer):
    (tmp_path / "a.jsonl").write_bytes(lines(["", " "]) + b"{\n")
    path = recipe(tmp_path, tokenizer, '[sources.web]\nkind = "jsonl"\nfiles = ["*.jsonl"]')
    with pytest.raises(Refused, match=r"of the sample is kept; empty 66\.67%, not JSON"):
        said(path)


@pytest.mark.slow
def test_the_command_plans_what_a_build_then_does(tmp_path, tokenizer):
    (tmp_path / "a.jsonl").write_bytes(lines(sentences(300, 1)))
    path = recipe(tmp_path, tokenizer, '[sources.web]\nkind = "jsonl"\nfiles = ["*.jsonl"]')
    command = [sys.executable, "-P", "-m", "data_tools", "plan", str(path), "--seconds"]
    for seconds, code in (("0.2", 0), ("0", 2)):
        done = subprocess.run(
            [*command, seconds],
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
        )
        assert done.returncode == code, done.stderr
    assert done.stderr == "error: --seconds must be more than 0, less than 3600, got 0.0\n"
    assert not (tmp_path / "out").exists()
