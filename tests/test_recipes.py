"""The recipes for the web and for Wikipedia and books, whole, on a little of what they read."""

import shutil
from pathlib import Path

import pytest

from data_tools.build import build
from data_tools.inspect_rejected import inspect
from data_tools.recipe import read
from januslm.data.shards import open_corpus
from januslm.data.tokenizer import Tokenizer

ROOT = Path(__file__).resolve().parents[1]
CORPORA = ROOT / "data_tools" / "corpora"
SHARED = ROOT.parent / "shared" / "data"
SOURCES = ROOT / "tests" / "fixtures" / "sources"
SMALL = ("vocabulary=300", "processes=1", "validation=0.3")


def made(recipe: str, out: Path, *changes: str) -> tuple[dict, str]:
    """Counters of the recipe's sources, and all text of the corpus."""
    build(read(str(CORPORA / f"{recipe}.toml"), [f"out={out}", *SMALL, *changes]), lambda _: None)
    tokenizer, text = Tokenizer.load(out / "tokenizer.json"), ""
    for split in ("train", "valid"):
        corpus = open_corpus(out / split, verify="full")
        text += "\n".join(tokenizer.decode(corpus.document(i)) for i in range(corpus.documents))
    return corpus.manifest["counters"], text


@pytest.mark.slow
@pytest.mark.skipif(not SHARED.is_dir(), reason="needs ../shared/data, a real crawl and test sets")
def test_a_crawl_becomes_shards_by_the_rules_of_fineweb(tmp_path, monkeypatch):
    monkeypatch.setenv("JANUSLM_DATA", str(SHARED))
    files = 'sources.crawl.files=["dolma*.warc.gz","whirl*.warc.gz"]'
    counters, text = made("fineweb", tmp_path / "out", f"root={SHARED / 'web'}", files)
    crawl = counters["crawl"]
    pages = crawl["read"] - sum(
        n for why, n in crawl["dropped"].items() if why.startswith("no page")
    )
    assert pages == 23
    assert crawl["train"] + crawl["valid"] >= 15
    rules = {why.partition(":")[0] for why in crawl["dropped"]} - {"no page"}
    assert {"fineweb", "gopher_quality", "gopher_repetition", "language"} <= rules
    assert "email@example.com" in text  # an address that was there stands there no more
    said: list[str] = []
    inspect(str(tmp_path / "out"), "", 1, said.append)
    assert any("gopher_quality: words with a letter below 0.8" in line for line in said)


@pytest.mark.slow
def test_a_dump_and_books_become_one_corpus(tmp_path):
    shutil.copy(SOURCES / "wikipedia.xml.bz2", tmp_path / "enwiki-pages-articles.xml.bz2")
    (tmp_path / "books").mkdir()
    night = "It was a dark and stormy night, and the rain fell in torrents on the {0} of the {0}s. "
    for name in ("house", "castle", "village", "harbour", "market", "school", "garden", "tower"):
        (tmp_path / "books" / f"{name}.txt").write_text(night.format(name) * 5)
    (tmp_path / "books" / "zz.txt").write_text(night.format("house") * 5 + "It ends otherwise.")
    (tmp_path / "books" / "short.txt").write_text("Short.")
    counters, text = made("wikibooks", tmp_path / "out", f"root={tmp_path}")
    books = counters["books"]
    assert books["read"] == 10
    assert books["dropped"] == {"length: fewer than 30 words": 1, "duplicate (minhash)": 1}
    assert "stormy night" in text
    assert counters["wikipedia"]["read"] > 0
