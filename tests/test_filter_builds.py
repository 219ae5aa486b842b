"""Filters in a build: of one source alone, what they change, drop and keep for people to see."""

import json
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from data_tools import filtering, inspect_rejected
from data_tools.build import build
from data_tools.recipe import bundles, read
from data_tools.rejected import file_of, rows
from januslm.config import Refused
from januslm.data.shards import open_corpus
from januslm.data.tokenizer import Tokenizer
from tests.conftest import ROOT
from tests.test_data_tools import lines, recipe, sentences, tokenizer

__all__ = ["tokenizer"]  # a fixture
SOURCES = """
[sources.web]
kind = "jsonl"
files = ["web*.jsonl"]
[sources.books]
kind = "jsonl"
files = ["books.jsonl"]
"""
MAIL = "write to a@b.org or c@d.org"
WEB = [*sentences(40, 1), "short", "tiny text", "a bad word is here", MAIL, "long " * 300]
BOOKS = [*sentences(20, 2), "brief", "another bad word is here", "x " * 90]


def laid(folder: Path, web: list[str] = WEB, books: list[str] = BOOKS) -> Path:
    for number, some in enumerate((web[:20], web[20:40], web[40:])):
        (folder / f"web{number}.jsonl").write_bytes(lines(some))
    (folder / "books.jsonl").write_bytes(lines(books))
    return folder


FILTERS = """
[sources.web.filters.length]
least_words = 3
[filters.words]
words = ["bad"]
[filters.personal_data]
[filters.max_tokens]
limit = 250
"""


def built(folder: Path, tokenizer: Path, filters: str = FILTERS, *changes: str) -> dict[str, dict]:
    path = recipe(folder, tokenizer, SOURCES + filters, "part_megabytes = 0.001\nrejected = true")
    build(read(str(path), changes), lambda _: None)
    out = Path(dict(one.split("=") for one in changes).get("out", folder / "out"))
    return open_corpus(out / "train").manifest["counters"]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory, tokenizer) -> Path:
    """A corpus of two sources, built, with what its filters dropped."""
    folder = laid(tmp_path_factory.mktemp("corpus"))
    built(folder, tokenizer)
    return folder


def counters(corpus: Path) -> dict[str, dict]:
    return open_corpus(corpus / "out" / "train").manifest["counters"]


# --- filters of one source


@pytest.mark.slow
def test_a_source_has_filters_of_its_own_beside_those_of_all(corpus):
    web, books = counters(corpus)["web"], counters(corpus)["books"]
    assert web["dropped"] == {
        "length: fewer than 3 words": 2,
        "longer than 250 tokens": 1,
        "words: has listed words": 1,
    }
    assert books["dropped"] == {"words: has listed words": 1}
    assert (web["read"], web["train"], books["read"], books["train"]) == (45, 41, 23, 22)


def test_they_come_first_and_replace_those_of_all_of_the_same_name(tmp_path, tokenizer):
    own = "fineweb = {}\nwords = {words = ['x']}\nmax_bytes = {limit = 9}\n"
    own = f"{SOURCES}[sources.web.filters]\n{own}"
    path = recipe(laid(tmp_path), tokenizer, f"{own}[filters.length]\n[filters.words]\nmost = 3\n")
    chains = {bundle.source: bundle.rules for bundle in bundles(read(str(path)))}
    assert [rule.name for rule in chains["web"]] == [
        "empty", "max_bytes", "fineweb", "words", "length"
    ]  # fmt: skip
    assert [rule.name for rule in chains["books"]] == ["empty", "max_bytes", "length", "words"]
    of_web = {rule.name: rule.options for rule in chains["web"]}
    assert of_web["words"] == {"words": ["x"], "files": [], "most": 0}
    assert of_web["max_bytes"] == {"limit": 9}
    assert chains["books"][1].options == {"limit": 10_000_000}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("filters.length.least_word = 3", r"sources.web: filters.length: unknown key 'least_word'"),
        ("filters.lenght.x = 3", r"no 'lenght' in filters/.*Did you mean 'length'"),
        ("filters = 3", r"sources.web: filters must be a table, got 3"),
        ("filters.length = 3", r"sources.web: filters.length must be a table, got 3"),
        ("filters.words.files = ['none']", r"filters.words: files: no file matches 'none'"),
        ("filters.language.languages = ['xx']", r"filters.language: languages: no 'xx'"),
    ],
)
def test_their_mistakes_are_refused_by_their_place(tmp_path, tokenizer, table, message):
    sources = SOURCES.replace("[sources.books]", f"{table}\n[sources.books]")
    path = recipe(laid(tmp_path), tokenizer, sources)
    with pytest.raises(Refused, match=message):
        bundles(read(str(path)))


@pytest.mark.slow
def test_another_order_of_filters_or_another_list_is_another_corpus(tmp_path, tokenizer):
    (tmp_path / "list.txt").write_text("bad\n")
    filters = "[filters.words]\nfiles = ['list.txt']\n[filters.personal_data]\n"
    built(laid(tmp_path), tokenizer, filters)
    built(tmp_path, tokenizer, filters)  # is recognised
    with pytest.raises(Refused, match=r"another recipe, which differs in filter_order.books"):
        built(tmp_path, tokenizer, "[filters.personal_data]\n" + filters.partition("[filters.p")[0])
    (tmp_path / "list.txt").write_text("bad\nworse\n")
    sys.modules["data_tools.filters._lists"]._entries.cache_clear()  # as a new process has it
    with pytest.raises(Refused, match=r"another recipe, which differs in filter_files.books.words"):
        built(tmp_path, tokenizer, filters)


# --- what filters change and drop


def test_changed_documents_and_what_was_done_to_them_are_counted(corpus, tokenizer):
    web, books = counters(corpus)["web"], counters(corpus)["books"]
    assert web["changed"] == {"personal_data": 1}
    assert web["edited"] == {"personal_data": {"e-mail addresses": 2}}
    assert "changed" not in books
    words = Tokenizer.load(tokenizer)
    trained = open_corpus(corpus / "out" / "train")
    texts = [words.decode(trained.document(i)) for i in range(trained.documents)]
    assert MAIL not in texts
    assert "write to email@example.com or email@example.com" in texts


def test_rejected_documents_are_those_that_filters_dropped_with_rule_and_number(corpus):
    found = [*rows(corpus / "out")]
    assert Counter((row["source"], row["reason"]) for row in found) == Counter(
        {
            (source, reason): count
            for source, report in counters(corpus).items()
            for reason, count in report["dropped"].items()
        }
    )
    assert {(row["rule"], row["text"][:20], row["number"], row["words"]) for row in found} == {
        ("length", "short", 1, ""),
        ("length", "tiny text", 2, ""),
        ("words", "a bad word is here", 1, "bad"),
        ("words", "another bad word is ", 1, "bad"),
        ("max_tokens", "long long long long ", 901, ""),
    }  # fmt: skip
    assert {row["input"] for row in found} == {"web2.jsonl", "books.jsonl"}
    parts = bundles(read(str(corpus / "corpus.toml")))
    assert len({*(corpus / "out/rejected").iterdir()}) == len(parts) >= 4  # empty ones, too


@pytest.mark.slow
def test_they_are_the_same_for_any_number_of_processes_and_after_any_stop(
    corpus, tmp_path, tokenizer
):
    whole = {p.name: p.read_bytes() for p in (corpus / "out/rejected").iterdir()}
    laid(tmp_path)
    obstacle = tmp_path / "out" / "train" / "shard-00000.bin.new"
    obstacle.mkdir(parents=True)
    with pytest.raises(IsADirectoryError):
        built(tmp_path, tokenizer, FILTERS, "processes=3")
    obstacle.rmdir()
    file_of(
        tmp_path / "out", len(whole) - 2
    ).unlink()  # as if it had been killed before it was there
    said: list[str] = []
    path = recipe(tmp_path, tokenizer, SOURCES + FILTERS, "part_megabytes = 0.001\nrejected = true")
    build(read(str(path), ["processes=2"]), said.append)
    there = f"{len(whole) - 1} of {len(whole)} parts are there already"
    assert f"{tmp_path / 'out'}: {there}" in said
    assert {p.name: p.read_bytes() for p in (tmp_path / "out/rejected").iterdir()} == whole


@pytest.mark.slow
def test_without_the_key_nothing_is_kept_and_fresh_takes_it_away(tmp_path, tokenizer):
    built(laid(tmp_path), tokenizer)
    path = recipe(tmp_path, tokenizer, SOURCES + FILTERS)
    build(read(str(path)), lambda _: None, fresh=True)
    assert [*rows(tmp_path / "out")] == []
    assert not (tmp_path / "out" / "prepared").exists()


# --- inspect --rejected


def inspected(folder: Path, wanted: str = "", amount: int = 2) -> list[str]:
    said: list[str] = []
    inspect_rejected.inspect(str(folder), wanted, amount, said.append)
    return "\n".join(said).splitlines()


def test_inspect_shows_what_each_rule_dropped_and_by_which_number(corpus):
    page = inspected(corpus / "out")
    assert page == inspected(corpus / "out" / "train")
    table = [" ".join(line.split()) for line in page]
    assert "web length length: fewer than 3 words 2 4.44 % 1 2 2" in table
    assert "books words words: has listed words 1 4.35 % 1 1 1" in table
    assert "web max_tokens longer than 250 tokens 1 2.22 % 901 901 1" in table
    assert "web: personal_data changed: 1 documents, e-mail addresses 2" in page
    assert "--- words: has listed words: 1 (bad)" in page
    assert page[page.index("--- length: fewer than 3 words: 1") + 1] == "short"


def test_inspect_shows_one_rule_and_says_which_there_are(corpus):
    page = "\n".join(inspected(corpus / "out", "length"))
    assert "fewer than 3 words" in page
    assert "bad" not in page
    assert "longer than" not in page
    assert inspected(corpus / "out", "length: fewer") == inspected(corpus / "out", "length")
    assert sum(line.startswith("---") for line in inspected(corpus / "out", "length", 1)) == 2
    with pytest.raises(Refused, match=r"nothing was dropped by 'lenght'; there are length, .*Did"):
        inspected(corpus / "out", "lenght")


def test_inspect_has_the_counts_where_no_texts_were_kept_and_refuses_what_contradicts_them(
    corpus, tmp_path
):
    shutil.copytree(corpus / "out", tmp_path / "out")
    kept = tmp_path / "out" / "rejected"
    last = max(kept.iterdir()).name
    shutil.copy(kept / last, kept / "part-00099.jsonl.zst")
    with pytest.raises(Refused, match=r"2 documents of books were kept .* and 1 are counted"):
        inspected(tmp_path / "out")
    (kept / "part-00099.jsonl.zst").write_bytes((kept / last).read_bytes()[:-4])
    with pytest.raises(Refused, match=r"part-00099\.jsonl\.zst: damaged or cut short"):
        inspected(tmp_path / "out")
    shutil.rmtree(kept)
    page = inspected(tmp_path / "out")
    assert any("fewer than 3 words" in line for line in page)
    assert page[-1] == "no texts to show: `rejected = true` in the corpus file keeps them"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "code", "said"),
    [(["--rejected"], 0, "web: personal_data changed"), (["1", "--rejected", "words"], 0, "(bad)"),
     (["--rejected", "nothing"], 2, "nothing was dropped by 'nothing'")],
)  # fmt: skip
def test_the_command_shows_it(corpus, words, code, said):
    command = [sys.executable, "-m", "data_tools", "inspect", str(corpus / "out"), *words]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == code, done.stderr
    assert said in done.stdout + done.stderr


def test_a_manifest_says_which_filters_were_asked_with_which_options(corpus):
    about = json.loads((corpus / "out/train/manifest.json").read_text())["filters"]
    assert [*about["web"]] == [
        "empty",
        "max_bytes",
        "length",
        "words",
        "personal_data",
        "max_tokens",
    ]
    assert about["books"]["words"] == {
        "options": {"words": ["bad"], "files": [], "most": 0},
        "files": {},
    }
    assert filtering.ALWAYS == ("empty", "max_bytes")
