"""What every kind of corpus source promises: tests/fixtures/sources says what each one reads."""

import inspect
import json
import pickle
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest

from data_tools.build import build
from data_tools.documents import Document, Dropped
from data_tools.recipe import read
from januslm.config import Refused
from januslm.data.shards import open_corpus
from januslm.registry import find, names, options

FIXTURES = Path(__file__).parent / "fixtures"
SOURCES = names("data_tools.sources")
EVERY = pytest.mark.parametrize("name", SOURCES)


def inputs_of(name: str) -> Callable:
    return find("data_tools.sources", name).inputs


def facts(name: str) -> dict:
    """Options of the source's fixture, and what is known of what comes out."""
    path = FIXTURES / "sources" / f"{name}.toml"
    assert path.is_file(), f"write {path.relative_to(FIXTURES.parent)}: what {name} reads in tests"
    return tomllib.loads(path.read_text(encoding="utf-8"))


def found(inputs: list) -> list[Document | Dropped]:
    return [one for some in inputs for one in some.read()]


def opened(name: str) -> list:
    return inputs_of(name)(FIXTURES, **options(inputs_of(name), facts(name)["options"], name))


def test_every_fixture_belongs_to_a_source():
    assert {path.stem for path in (FIXTURES / "sources").glob("*.toml")} == set(SOURCES)


@EVERY
def test_a_source_is_a_function_inputs_with_options_that_are_checked(name):
    parameters = list(inspect.signature(inputs_of(name)).parameters.values())
    assert parameters[0].name == "root"
    assert all(p.kind is p.KEYWORD_ONLY for p in parameters[1:])
    with pytest.raises(Refused, match=f"sources.{name}: unknown key 'fiels'"):
        options(inputs_of(name), facts(name)["options"] | {"fiels": []}, f"sources.{name}")


@pytest.mark.slow
@EVERY
def test_a_source_gives_the_documents_of_its_fixture_and_says_what_it_dropped(name):
    known, inputs = facts(name), opened(name)
    assert len({one.name for one in inputs}) == len(inputs) > 0
    assert all(one.bytes > 0 for one in inputs)
    documents = [one for one in found(inputs) if isinstance(one, Document)]
    dropped = [one for one in found(inputs) if isinstance(one, Dropped)]
    assert len(documents) == known.get("documents", len(documents)) > 0
    assert len(dropped) == known.get("dropped", len(dropped))
    assert all(one.reason for one in dropped)
    assert documents[0].text.strip().startswith(known.get("first", ""))


@pytest.mark.slow
@EVERY
def test_another_process_reads_the_same_every_time(name):
    inputs = opened(name)
    once = found(inputs)
    assert once == found(inputs) == found(pickle.loads(pickle.dumps(inputs)))


@pytest.mark.slow
@EVERY
def test_a_corpus_file_reads_it_and_every_document_is_counted(name, tmp_path):
    path, chosen = tmp_path / "corpus.toml", facts(name)["options"]
    whole = {"out": str(tmp_path / "out"), "root": str(FIXTURES), "vocabulary": 300, "processes": 1}
    lines = [f"{key} = {json.dumps(value)}" for key, value in whole.items()]
    lines += [f"[sources.{name}]", *(f"{key} = {json.dumps(v)}" for key, v in chosen.items())]
    path.write_text("\n".join(lines), encoding="utf-8")
    build(read(str(path)), lambda _: None)
    counters = open_corpus(tmp_path / "out" / "train").manifest["counters"][name]
    assert counters["read"] == len(found(opened(name)))
    assert counters["train"] + sum(counters["dropped"].values()) == counters["read"]
    assert counters["train"] > 0
