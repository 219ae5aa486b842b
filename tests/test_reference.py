"""`januslm config`: every key with its sentence, from the code; docs/reference.md is its page."""

import dataclasses
import json
import os
import subprocess
import sys
from functools import cache

import pytest

from januslm import registry
from januslm.cli import reference
from januslm.config import Refused
from januslm.training.ds_keys import ALLOWED, OWNED, REFUSED
from tests.conftest import ROOT

TABLES = list(reference.tables_of_files())
PLUGINS = [(kind, name) for kind, at in reference.KINDS.items() for name in registry.names(at[0])]


def said(name: str) -> str:
    return "\n".join(reference.part(name))


@cache
def plugins(kind: str) -> list[reference.Table]:
    return list(reference.plugins(kind))


@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.name)
def test_every_key_has_a_sentence(table):
    assert not [key.name for key in table.keys if not key.sentence]
    assert all(key.kind for key in table.keys)


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "name"), PLUGINS)
def test_every_option_of_ours_has_a_sentence(kind, name):
    if str(ROOT) in registry.find(reference.KINDS[kind][0], name).__file__:
        [table] = [one for one in plugins(kind) if one.name == f"{kind}.{name}"]
        assert table.about
        assert not [key.name for key in table.keys if not key.sentence]


def test_the_keys_are_those_of_the_files():
    """Each field of each dataclass, and each key of DeepSpeed's that is let through."""
    from data_tools.recipe import Recipe
    from finetune.settings import FinetuneRun
    from pretrain.settings import PretrainRun

    names = {table.name: {key.name for key in table.keys} for table in TABLES}
    for name, kind in (("pretrain", PretrainRun), ("finetune", FinetuneRun), ("corpus", Recipe)):
        assert names[name] == {field.name for field in dataclasses.fields(kind)}
    assert names["ds"] == ALLOWED
    assert names["ds.refused"] == OWNED.keys() | REFUSED.keys()
    assert "preset" in names["finetune.model"]
    assert "vocabulary" not in names["finetune.model"]  # a run file may not say it


@pytest.mark.slow
def test_the_page_in_docs_is_what_the_command_prints():
    """januslm config > docs/reference.md"""
    page = (ROOT / "docs" / "reference.md").read_text(encoding="utf-8")
    assert page == "\n".join(reference.page()) + "\n"


def test_a_default_can_be_written_as_it_is_shown():
    import tomllib

    for table in TABLES[:-1]:
        for key in table.keys:
            if key.default not in ("", "-"):
                tomllib.loads(f"x = {key.default}")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "lines"),
    [
        ("finetune.train.batch", ["batch = 256                       whole number, at least 1"]),
        ("objective.janus", ["## objective.janus", "query_position = ", "input | target"]),
        ("objective.janus.read", ['read = "next"                     next | past']),
        (
            "finetune.train",
            ["## finetune.train", "epochs = 0.0 ", "    0: as many as `epochs` make"],
        ),
        ("pretrain.data.train", ["corpus, required                  text"]),
        ("noise", ["## noise.spans", "ratio = 0.7", "number, more than 0 and at most 1"]),
        ("task.pairs", ["valid_share = 0.05", "number, at least 0 and less than 1"]),
        ("ds.fp16", ["belongs to nobody: the losses need the range"]),
        ("corpus", ["vocabulary = 16384                whole number, at least 261"]),
        ("filter.max_tokens", ["limit, required                   whole number, at least 1"]),
    ],
)
def test_a_part_can_be_asked_for(name, lines):
    for line in lines:
        assert line in said(name)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("finetune.trian", r"no key 'trian' in finetune; there are .*Did you mean 'train'\?"),
        ("finetune.train.btach", r"no key 'btach' in finetune.train; .*Did you mean 'batch'\?"),
        ("finetne", r"no key 'finetne'; there are corpus, .*Did you mean 'finetune'\?"),
        ("objective.jnus", r"no 'jnus' in objectives/; .*Did you mean 'janus'\?"),
        ("objective.janus.raed", r"no key 'raed' in objective.janus; .*Did you mean 'read'\?"),
        ("clip", "no key 'clip' by itself; there is finetune.train.clip, pretrain.train.clip"),
        ("finetune.objective.janus", "finetune.objective has no keys here; plug-ins have: obje"),
    ],
)
def test_a_near_miss_is_suggested(name, message):
    with pytest.raises(Refused, match=message):
        reference.part(name)


@pytest.mark.slow
def test_the_command_needs_no_torch_and_no_deepspeed_and_less_than_a_second(tmp_path):
    """Of this process' CPU time: other tests run beside it."""
    script = (
        "import runpy, sys, resource, json\n"
        "sys.argv = ['config', 'objective.mine', '--plugins', 'my']\n"
        "try: runpy.run_module('januslm.cli.reference', run_name='__main__')\n"
        "except SystemExit as end: assert not end.code, end.code\n"
        "there = [n for n in ('torch', 'deepspeed', 'datasets') if n in sys.modules]\n"
        "spent = resource.getrusage(resource.RUSAGE_SELF)\n"
        "print(json.dumps([there, spent.ru_utime + spent.ru_stime]))\n"
    )
    (tmp_path / "my/objectives").mkdir(parents=True)
    (tmp_path / "my/objectives/mine.py").write_text(
        '"""Mine."""\nimport torch\n\n'
        'def layout(target, hidden, special, rng, *, how: int = 3):\n    """How: how: a way."""\n'
    )
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    *page, last = done.stdout.splitlines()
    assert page[:2] == ["## objective.mine", "Mine."]
    there, seconds = json.loads(last)
    assert there == []
    assert seconds < 1.0


@pytest.mark.slow
def test_the_verb_prints_the_page():
    command = [sys.executable, "-m", "januslm.launch", "config"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == (ROOT / "docs" / "reference.md").read_text(encoding="utf-8")
