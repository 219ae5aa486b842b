"""Text of test sets is found in documents, whatever its case, marks and place; nothing else is."""

import gzip
import json
import re
from pathlib import Path

import numpy as np
import pytest

from data_tools.build import build
from data_tools.documents import Document, Dropped
from data_tools.filtering import PACKAGE
from data_tools.filters import decontaminate
from data_tools.recipe import read
from data_tools.rejected import rows
from data_tools.words import plain_words
from januslm.config import Refused
from januslm.data.shards import open_corpus
from januslm.registry import find, options
from tests.test_data_tools import lines, recipe, sentences, tokenizer

__all__ = ["tokenizer"]  # a fixture
assert find(PACKAGE, "decontaminate") is decontaminate


def ready(root: Path, folder: Path, **given):
    return decontaminate.prepared(
        root, folder, **options(decontaminate.prepared, given, "filters.decontaminate")
    )


def verdict(ask, text: str) -> tuple[str, int, str] | None:
    found = ask(Document(text, "g"))
    if isinstance(found, Document):
        return None
    name = found.reason.removeprefix("decontaminate: holds text of the test set ")
    return name, int(found.number), found.words


def by_definition(text: str, tests: dict[str, list[str]], n: int, least: int):
    """What `verdict` is, of texts and not of hashes, by looking at every place."""
    wanted: dict[tuple[str, ...], str] = {}
    for name, several in tests.items():
        for one in several:
            found = plain_words(one)
            length = min(n, len(found))
            if length >= least:
                for at in range(len(found) - length + 1):
                    wanted.setdefault(tuple(found[at : at + length]), name)
    found = plain_words(text)
    hits = [
        (at, length, wanted[gram])
        for at in range(len(found))
        for length in range(1, n + 1)
        if at + length <= len(found) and (gram := tuple(found[at : at + length])) in wanted
    ]
    if not hits:
        return None
    at, length, name = hits[0]
    return name, len(hits), " ".join(found[at : at + length])


@pytest.mark.slow
@pytest.mark.parametrize(("n", "least"), [(13, 8), (5, 5), (4, 2), (1, 1)])
def test_it_finds_what_its_definition_finds_on_random_texts(tmp_path, n, least):
    rng = np.random.default_rng(n)
    words = ["tea", "On", "\u00fcber", "\u8336\u5177", "it's", "\u0634\u0627\u064a", "x,", "y."]
    words += [f"w{i}" for i in range(12)]

    def drawn(most: int) -> str:
        return " ".join(rng.choice(words, rng.integers(0, most)))

    tests = {name: [drawn(25) for _ in range(6)] for name in ("one", "two")}
    for name, several in tests.items():
        (tmp_path / f"{name}.txt").write_text("\n".join(several), encoding="utf-8")
    asked = ready(tmp_path, tmp_path, tasks=[], n=n, least=least,
                  tests={name: [f"{name}.txt"] for name in tests})  # fmt: skip
    found = []
    for number in range(200):
        text = drawn(60)
        if number % 2:
            part = tests["one" if number % 4 == 1 else "two"][number % 6].upper().split()
            start = int(rng.integers(0, 1 + len(part) // 2))
            text = f"{text}\n{'; '.join(part[start:])} {drawn(20)}"
        assert verdict(asked.ask, text) == by_definition(text, tests, n, least)
        found.append(verdict(asked.ask, text))
    assert None in found
    assert {one[0] for one in found if one} == {"one", "two"}


SENTENCE = (
    "We study the problem of building models that disentangle independent factors of variation "
    "in data."
)


def test_case_marks_breaks_and_what_cannot_be_seen_do_not_hide_it(tmp_path):
    (tmp_path / "t.txt").write_text(SENTENCE, encoding="utf-8")
    asked = ready(tmp_path, tmp_path, tasks=[], tests={"mine": ["t.txt"]})
    assert verdict(asked.ask, SENTENCE) == ("mine", 3, " ".join(plain_words(SENTENCE)[:13]))
    for hidden in (
        SENTENCE.upper(),
        SENTENCE.replace(" ", "\n\n"),
        SENTENCE.replace(" ", ", "),
        SENTENCE.replace("models", "\u201cmo\u00addels\u200b\u201d"),
        f"Before it: {SENTENCE} After it.",
    ):
        assert verdict(asked.ask, hidden)[:2] == ("mine", 3)
    thirteen = " ".join(SENTENCE.split()[:13])
    assert verdict(asked.ask, thirteen)[:2] == ("mine", 1)
    for other in (" ".join(SENTENCE.split()[:12]), SENTENCE.replace("models", "tools"), "", "We"):
        assert verdict(asked.ask, other) is None


def test_a_short_test_text_is_looked_for_as_a_whole_if_it_is_not_too_short(tmp_path):
    eight, seven = "one two three four five six seven eight", "ein zwei drei vier acht sechs sieben"
    (tmp_path / "t.txt").write_text(f"{eight}\n{seven}\n\n", encoding="utf-8")
    asked = ready(tmp_path, tmp_path, tasks=[], tests={"mine": ["t.txt"]})
    assert verdict(asked.ask, f"zero {eight} nine") == ("mine", 1, eight)
    assert verdict(asked.ask, seven) is None
    assert verdict(asked.ask, eight.replace("one ", "")) is None


def test_chinese_is_compared_letter_by_letter(tmp_path):
    text = (
        "\u6211\u4eec\u7814\u7a76\u5982\u4f55\u5efa\u7acb\u53ef\u4ee5\u5206\u79bb\u56e0\u7d20\u7684"
    )
    text += "\u6a21\u578b\u3002"
    (tmp_path / "t.txt").write_text(text, encoding="utf-8")
    asked = ready(tmp_path, tmp_path, tasks=[], tests={"mine": ["t.txt"]})
    assert verdict(asked.ask, f"\u5728\u8fd9\u91cc{text}")[:2] == ("mine", 5)
    assert verdict(asked.ask, text[:12]) is None


def test_own_test_sets_are_jsonl_or_lines_packed_or_not(tmp_path):
    inside = "and nine words that stand in a list inside"
    row = {"id": 3, "question": SENTENCE, "answers": [{"text": inside}]}
    with gzip.open(tmp_path / "t.jsonl.gz", "wt") as file:
        file.write(json.dumps(row) + "\n\n")
    asked = ready(tmp_path, tmp_path, tasks=[], tests={"mine": ["*.gz"]})
    assert verdict(asked.ask, SENTENCE)
    assert verdict(asked.ask, "And nine words that stand in a list: inside!")
    (tmp_path / "bad.jsonl").write_text('{"a": "b"}\n{')
    with pytest.raises(Refused, match=r"bad\.jsonl:2: "):
        ready(tmp_path, tmp_path, tasks=[], tests={"mine": ["bad.jsonl"]})
    with pytest.raises(Refused, match="no file matches 'none'"):
        ready(tmp_path, tmp_path, tasks=[], tests={"mine": ["none"]})


# --- tasks


@pytest.mark.slow
def test_the_test_sets_of_all_tasks_that_are_there_are_read_as_the_tasks_read_them(data, tmp_path):
    asked = ready(data, tmp_path)
    assert "scitldr" in asked.files
    [note] = asked.notes
    assert re.search(r"scitldr [\d,]+", note)
    assert re.search("not there: .*cnndm", note)
    with gzip.open(data / "scitldr" / "dev.jsonl.gz", "rt") as file:
        row = json.loads(next(file))
    for text in ("\n".join(row["source"]), row["target"][0]):
        assert verdict(asked.ask, f"Before. {text} After.")[0] == "scitldr", text
    targets = ready(data, tmp_path, tasks=["scitldr"], side="target")
    assert verdict(targets.ask, row["target"][0])
    assert verdict(targets.ask, " ".join(row["source"])) is None


def test_test_sets_are_looked_for_where_the_tasks_lie(data, tmp_path, monkeypatch):
    monkeypatch.delenv("JANUSLM_DATA", raising=False)
    with pytest.raises(Refused, match="no data of task 'scitldr' there"):
        ready(tmp_path, tmp_path, tasks=["scitldr"])  # in the recipe's root
    monkeypatch.setenv("JANUSLM_DATA", str(data))
    found = ready(tmp_path, tmp_path, tasks=["scitldr"]).files
    assert ready(tmp_path, tmp_path, tasks=["scitldr"], data=["none", str(data)]).files == found
    with pytest.raises(Refused, match="none: no data of task 'scitldr' there"):
        ready(tmp_path, tmp_path, tasks=["scitldr"], data=["none"])


def test_a_task_that_is_named_must_be_there_and_whole(data, tmp_path, monkeypatch):
    monkeypatch.delenv("JANUSLM_DATA", raising=False)  # where the command has test sets
    with pytest.raises(Refused, match=r"tasks: multi30k: .*no data of task 'multi30k' there"):
        ready(tmp_path, tmp_path, tasks=["multi30k"])
    with pytest.raises(Refused, match=r"no 'multi30' in tasks/.*Did you mean 'multi30k'"):
        ready(data, tmp_path, tasks=["multi30"])
    with pytest.raises(Refused, match="no text of a test set with 8 words: looked for tasks all"):
        ready(tmp_path, tmp_path)
    (tmp_path / "scitldr").mkdir()
    (tmp_path / "scitldr" / "dev.jsonl").write_text("{")
    with pytest.raises(Refused, match=r"dev\.jsonl:1: not JSON"):  # there, and damaged
        ready(tmp_path, tmp_path)
    with pytest.raises(Refused, match="least must be at most n, 5, got 8"):
        ready(data, tmp_path, n=5)


# --- builds


@pytest.mark.slow
def test_a_build_drops_them_names_the_test_set_and_is_another_if_it_changes(tmp_path, tokenizer):
    (tmp_path / "t.txt").write_text(SENTENCE)
    texts = [*sentences(30, 1), f"so: {SENTENCE.lower()}", SENTENCE[:40]]
    (tmp_path / "a.jsonl").write_bytes(lines(texts))
    path = recipe(
        tmp_path,
        tokenizer,
        "[sources.jsonl]\nfiles = ['a.jsonl']\n"
        "[filters.decontaminate]\ntasks = []\ntests = {mine = ['t.txt']}\n",
        "rejected = true",
    )
    said: list[str] = []
    build(read(str(path)), said.append)
    assert "decontaminate: n-grams of test sets: mine 3" in said
    report = open_corpus(tmp_path / "out/train").manifest["counters"]["jsonl"]
    assert report["dropped"] == {"decontaminate: holds text of the test set mine": 1}
    [row] = rows(tmp_path / "out")
    assert (row["rule"], row["number"], row["text"]) == ("decontaminate", 3, texts[30])
    assert row["words"] == " ".join(plain_words(SENTENCE)[:13])
    assert not (tmp_path / "out" / "prepared").exists()  # a finished build needs no hashes
    build(read(str(path)), said.append)
    assert any("already built" in line for line in said)
    (tmp_path / "t.txt").write_text(f"{SENTENCE} And more of it.")
    with pytest.raises(Refused, match=r"differs in filter_files.jsonl.decontaminate.mine"):
        build(read(str(path)), said.append)


def test_processes_share_the_hashes_on_disk(tmp_path):
    (tmp_path / "t.txt").write_text("\n".join(sentences(3000, 4)))
    asked = ready(tmp_path, tmp_path / "made", tasks=[], tests={"mine": ["t.txt"]}, n=8)
    [file] = (tmp_path / "made").iterdir()
    hashes, owners = mapped = decontaminate._mapped(str(file))
    assert isinstance(mapped, np.memmap)
    assert (hashes[1:] > hashes[:-1]).all()
    assert set(owners.tolist()) == {0}
    assert isinstance(asked.ask(Document(sentences(3000, 4)[17] + " " + "w " * 9, "g")), Dropped)
