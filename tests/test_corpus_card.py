"""The card of a corpus says what its manifests say, the same for any build, and how to build it."""

import re
import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_tools import corpus_card
from data_tools.build import build
from data_tools.recipe import read
from januslm.config import Refused
from tests.test_data_tools import lines, recipe, sentences, shard_bytes, tokenizer

__all__ = ["tokenizer"]  # a fixture
SOURCES = """
[sources.web]
kind = "jsonl"
license = "CC BY 4.0 | as its authors say"
files = ["*.jsonl"]
[sources."old books"]
kind = "text"
files = ["*.txt"]
[filters.max_tokens]
limit = 100
"""


@pytest.fixture
def built(tmp_path, tokenizer) -> Path:
    """The corpus file of a corpus with two sources, built in out/."""
    texts = [*sentences(60, 1), *sentences(20, 1), "", "word " * 300]
    (tmp_path / "a.jsonl").write_bytes(lines(texts))
    (tmp_path / "b.txt").write_text("\n\n".join(sentences(40, 2)))
    path = recipe(tmp_path, tokenizer, SOURCES, "validation = 0.2\npart_megabytes = 0.01")
    build(read(str(path)), lambda _: None)
    return path


def test_the_card_names_sources_licences_counts_filters_duplicates_and_hashes(built, tmp_path):
    card = (tmp_path / "out" / "README.md").read_text()
    for line in (
        r"\| web \| jsonl \| CC BY 4\.0 \\\| as its authors say \| `files = .*`field = .*\|",
        r"\| old books \| text \| not given \| .*`split = \"blank\"`.*\|",
        r"\| all sources \| max_tokens \| `limit = 100` \|",
        r"\| duplicate[ ()a-z]* \| 20 \| 16\.67% \|",
        r" *dropped: empty +1",
        r" *dropped: longer than 100 tokens +1",
        r"\| tokenizers \| [\d.]+ \|",
        r"\| (train|valid)/shard-00000\.bin \| \d+ \| [\d,]+ \| `[0-9a-f]{32}` \|",
    ):
        assert re.search(f"^{line}$", card, re.M), line
    assert str(tmp_path) not in card


@pytest.mark.slow
def test_what_the_card_says_builds_the_same_bytes_and_the_same_card(built, tmp_path):
    card = (tmp_path / "out" / "README.md").read_text()
    [text] = re.findall(r"^```toml\n(.*?)^```$", card, re.M | re.S)
    other = tmp_path / "corpus2.toml"
    other.write_text(text.replace("[sources]", f'out = "x"\nroot = "{tmp_path}"\n[sources]', 1))
    changes = [f'out="{tmp_path / "again"}"', f'tokenizer="{tmp_path / "out" / "tokenizer.json"}"']
    build(read(str(other), changes), lambda _: None)
    assert shard_bytes(tmp_path / "again") == shard_bytes(tmp_path / "out")
    assert (tmp_path / "again" / "README.md").read_text() == card


def test_a_licence_that_is_given_later_needs_no_new_build(built, tmp_path):
    before = shard_bytes(tmp_path / "out")
    said: list[str] = []
    build(read(str(built), ['sources."old books".license="public domain"']), said.append)
    assert all("already built" in line for line in said)
    assert "| old books | text | public domain |" in (tmp_path / "out" / "README.md").read_text()
    assert shard_bytes(tmp_path / "out") == before
    with pytest.raises(Refused, match=r"sources\.web: license must be a text, got 3"):
        read(str(built), ["sources.web.license=3"])


def test_a_readme_of_somebody_else_stays_as_it_is(built, tmp_path):
    (tmp_path / "out" / "README.md").write_text("# Mine\n")
    said: list[str] = []
    build(read(str(built)), said.append)
    assert said[-1] == f"{tmp_path}/out/README.md: is not a corpus card of ours, so none is written"
    assert (tmp_path / "out" / "README.md").read_text() == "# Mine\n"


VALUE = st.recursive(
    st.booleans()
    | st.integers(-(2**62), 2**62)
    | st.floats(allow_nan=False)
    | st.text(st.characters(codec="utf-8")),
    st.lists,
)
TABLES = st.recursive(
    st.dictionaries(st.text(max_size=5), VALUE, max_size=4),
    lambda inner: st.dictionaries(st.text(max_size=5), VALUE | inner, max_size=4),
    max_leaves=5,
)


@pytest.mark.slow
@given(TABLES)
def test_tables_are_read_as_they_were_written(tables):
    assert tomllib.loads("\n".join(corpus_card.toml(tables))) == tables
