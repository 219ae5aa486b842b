"""Histograms in a terminal: every count is in one bar, whose length is its share, in 80 columns."""

import os
import subprocess
import sys
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_tools.build import build
from data_tools.counts import DROP, LANGUAGE, table, total
from data_tools.histograms import BLOCK, bars, lengths
from data_tools.inspect_corpus import inspect
from data_tools.recipe import read
from januslm.data.shards import open_corpus
from tests.test_data_tools import ROOT, lines, recipe, sentences, tokenizer

__all__ = ["tokenizer"]  # a fixture


@given(st.lists(st.tuples(st.text("abc ü", max_size=40), st.integers(0, 10**12)), max_size=9))
def test_bars_fit_80_columns_and_the_longest_is_the_most(rows):
    found = list(bars(rows))
    assert len(found) == len(rows)
    assert all(len(line) <= 80 for line in found)
    for line, (_, count) in zip(found, rows, strict=True):
        assert f"  {count:,}  " in line
        assert bool(set(line) & set("▏▎▍▌▋▊▉█")) == bool(count)
    most = max((count for _, count in rows), default=0)
    full = [
        line.count(BLOCK) for line, (_, count) in zip(found, rows, strict=True) if count == most
    ]
    assert not most or min(full) == max(line.count(BLOCK) for line in found) > 0


@given(st.lists(st.integers(0, 2**31), max_size=60))
def test_every_length_is_in_the_bar_whose_bounds_hold_it(values):
    rows = lengths(np.array(values, np.int32 if max(values, default=0) < 2**31 else np.int64))
    assert sum(count for _, count in rows) == len(values)
    for label, count in rows:
        low, _, high = label.replace(",", "").partition(" to ")
        assert count == sum(int(low) <= value <= int(high or low) for value in values)
    assert not values or (rows[0][1] and rows[-1][1])


@pytest.mark.slow
def test_inspect_draws_lengths_and_sources(tmp_path, tokenizer):
    (tmp_path / "a.jsonl").write_bytes(lines(sentences(90, 1)))
    (tmp_path / "b.txt").write_text("\n\n".join(sentences(30, 2)))
    sources = '[sources.web]\nkind = "jsonl"\nfiles = ["*.jsonl"]\n'
    path = recipe(
        tmp_path, tokenizer, f'{sources}[sources.books]\nkind = "text"\nfiles = ["*.txt"]'
    )
    build(read(str(path)), lambda _: None)
    said: list[str] = []
    inspect(str(tmp_path / "out"), 0, "", said.append)
    [drawn] = [text for text in said if text.startswith("documents by their tokens:\n")]
    sizes = open_corpus(tmp_path / "out" / "train").lengths()
    assert f"  {((sizes >= 16) & (sizes < 32)).sum()}  " in next(
        line for line in drawn.splitlines() if "16 to 31" in line
    )
    [drawn] = [text for text in said if text.startswith("documents by their source, in train:\n")]
    web, books = drawn.splitlines()[1:]
    assert web.startswith("  web  ██████")
    assert web.endswith("90   75.0 %")
    assert books.endswith("30   25.0 %")
    assert web.count(BLOCK) == pytest.approx(3 * books.count(BLOCK), abs=3)


def test_languages_are_counted_where_a_filter_finds_them_out():
    counts = {"read": 5, "repaired": 0, "train": 3, "valid": 1, f"{DROP}empty": 1}
    counts |= {f"{LANGUAGE}en": 3, f"{LANGUAGE}de": 1}
    report = total(Counter(counts))
    assert report["languages"] == {"de": 1, "en": 3}
    assert report["dropped"] == {"empty": 1}
    assert "kept for train" in table({"web": report})


@pytest.mark.slow
def test_a_terminal_without_blocks_shows_the_numbers(tmp_path, tokenizer):
    (tmp_path / "a.jsonl").write_bytes(lines(sentences(20, 1)))
    path = recipe(tmp_path, tokenizer, '[sources.jsonl]\nfiles = ["*.jsonl"]')
    build(read(str(path)), lambda _: None)
    done = subprocess.run(
        [sys.executable, "-P", "-m", "data_tools", "inspect", str(tmp_path / "out"), "0"],
        env=os.environ | {"PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "ascii"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert "?????" in done.stdout
