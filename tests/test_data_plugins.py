"""Sources, filters and ways to find duplicates: each is one file, found by looking there."""

import inspect
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from data_tools import filtering
from data_tools.documents import Document, Dropped
from data_tools.filters import empty, max_bytes, max_tokens
from januslm.config import Refused
from januslm.data.shards import open_corpus
from januslm.registry import find, names, options

ROOT = Path(__file__).resolve().parents[1]
SOURCES, FILTERS = "data_tools.sources", filtering.PACKAGE


def optional(function, name: str) -> None:
    """Options are what can be set in a corpus file: typed, or refused by name where they miss."""
    needed = [
        key
        for key, one in inspect.signature(function).parameters.items()
        if one.kind is one.KEYWORD_ONLY and one.default is one.empty
    ]
    if needed:
        with pytest.raises(Refused, match=f"{name}: {needed[0]} is missing"):
            options(function, {}, name)
    else:
        options(function, {}, name)
    with pytest.raises(Refused, match=f"{name}: unknown key 'no such option'"):
        options(function, {"no such option": 1}, name)


@pytest.mark.parametrize("name", names(SOURCES))
def test_a_source_gives_inputs_below_a_root(name):
    function = find(SOURCES, name).inputs
    first, *others = inspect.signature(function).parameters.values()
    assert first.name == "root"
    assert all(one.kind is one.KEYWORD_ONLY for one in others)
    optional(function, name)


@pytest.mark.parametrize("name", names(FILTERS))
def test_a_filter_is_asked_once_before_or_after_the_tokenizer(name):
    module = find(FILTERS, name)
    there = [k for k in (filtering.BEFORE, filtering.AFTER) if hasattr(module, k)]
    assert len(there) == 1 or (not there and hasattr(module, filtering.READY))
    function = getattr(module, (*there, filtering.READY)[0])
    _, *others = inspect.signature(function).parameters.values()
    assert all(one.kind is one.KEYWORD_ONLY for one in others[not there :])
    optional(function, name)


def test_filters_drop_beyond_their_limit_and_not_at_it():
    text = Document("\u00fc" * 5, "g")
    assert max_bytes.of_text(text, limit=10) is text
    assert max_bytes.of_text(text, limit=9) == Dropped("longer than 9 bytes", 10)
    assert max_tokens.of_tokens(np.arange(5), limit=5) is None
    assert max_tokens.of_tokens(np.arange(5), limit=4) == Dropped("longer than 4 tokens", 5)
    assert empty.of_text(Document(" \n\u2003", "g")) == Dropped("empty")


def test_filters_are_asked_in_order_and_the_first_that_drops_names_the_reason():
    tables = filtering.checked({"max_tokens": {"limit": 3}, "max_bytes": {"limit": 2}}, "f")
    assert list(tables) == ["empty", "max_bytes", "max_tokens"]
    rules = [filtering.prepared(name, tables[name], Path(), Path()) for name in tables]
    assert [rule.kind for rule in rules] == [filtering.BEFORE, filtering.BEFORE, filtering.AFTER]
    blank, long, short = (Document(text, "g") for text in ("   ", "abc", "ab"))
    rejected = filtering.text_passed(blank, rules)
    assert rejected == filtering.Rejected(blank, "empty", Dropped("empty"))
    assert filtering.text_passed(long, rules).dropped.reason == "longer than 2 bytes"
    assert filtering.text_passed(short, rules) is short
    assert filtering.tokens_dropped(short, np.arange(3), rules) is None
    assert filtering.tokens_dropped(short, np.arange(4), rules).rule == "max_tokens"


SHOUT = '''"""Upper case; nothing that asks."""

from dataclasses import replace

from data_tools.documents import Document, Dropped


def of_text(document: Document, *, mark: str = "?") -> Document | Dropped:
    if mark in document.text:
        return Dropped(f"has {mark}")
    return replace(document, text=document.text.upper())
'''
LAST = '''"""Texts with one first letter."""

from data_tools.duplicates import Equal, Keep


def deduplicator(*, keep: Keep = "first") -> Equal:
    return Equal(lambda document: document.text[:1].encode(), keep)
'''
SPOKEN = '''"""Words given in the corpus file."""

from functools import partial
from pathlib import Path

from data_tools.documents import Document, Input


def inputs(root: Path, *, words: list[str]) -> list[Input]:
    return [Input("spoken", 1, partial(_read, words))]


def _read(words):
    return (Document(word, "spoken") for word in words)
'''
CORPUS = """
out = "out"
vocabulary = 261
processes = 1
deduplicate = "last"
[sources.spoken]
words = ["ab", "b?", "ac", "ba", "  "]
[filters.shout]
"""


@pytest.mark.slow
def test_a_new_source_filter_or_dedup_is_one_file_and_nothing_else(tmp_path):
    for folder in ("januslm", "data_tools"):
        shutil.copytree(ROOT / folder, tmp_path / folder)
    for place, text in {
        "filters/shout": SHOUT,
        "dedup/last": LAST,
        "sources/spoken": SPOKEN,
    }.items():
        (tmp_path / "data_tools" / f"{place}.py").write_text(text)
    (tmp_path / "corpus.toml").write_text(CORPUS)
    command = [sys.executable, "-m", "data_tools", "build", "corpus.toml"]
    variables = {**os.environ, "PYTHONPATH": str(tmp_path)}
    done = subprocess.run(command, cwd=tmp_path, env=variables, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    counters = json.loads((tmp_path / "out/train/manifest.json").read_text())["counters"]
    assert counters["spoken"]["dropped"] == {"duplicate (last)": 1, "empty": 1, "has ?": 1}
    assert open_corpus(tmp_path / "out" / "train").documents == 2
    refused = subprocess.run(
        [*command, "filters.shout.mark=3"],
        cwd=tmp_path,
        env=variables,
        capture_output=True,
        text=True,
    )
    assert refused.returncode == 2
    assert "corpus.toml: filters.shout: mark must be a text, got 3" in refused.stderr
