"""Corpus, run and texts with tokenizers whose special tokens stand elsewhere than ours."""

import json
import shutil

import numpy as np
import pytest

import januslm
from data_tools.build import build
from data_tools.recipe import read
from data_tools.train_tokenizer import learn
from januslm.config import Refused
from januslm.data.shards import open_corpus, read_manifest
from januslm.data.tokenizer import Tokenizer
from tests.test_others_tokenizers import TEXTS, files, theirs  # noqa: F401
from tests.test_pipeline import RUN, launch

pytestmark = pytest.mark.slow
CORPUS = """
out = "{out}"
root = "{root}"
tokenizer = "{tokenizer}"
validation = 0.2
deduplicate = ""
processes = 1
[sources.text]
files = ["*.txt"]
split = "line"
"""


@pytest.mark.long
@pytest.mark.parametrize("kind", ["gpt2", "t5", "bert", "unigram"])
def test_a_foreign_tokenizer_goes_from_text_to_a_model_that_writes(files, kind, tmp_path):  # noqa: F811
    texts = [f"{text} {i}" for i in range(12) for text in (TEXTS[0], *TEXTS[2:])]
    (tmp_path / "a.txt").write_text("\n".join(texts))
    foreign = tmp_path / f"foreign{files[kind].suffix}"
    shutil.copy(files[kind], foreign)
    out = tmp_path / "corpus"
    text = CORPUS.format(out=out, root=tmp_path, tokenizer=foreign)
    (tmp_path / "corpus.toml").write_text(text)
    said = launch("data", "build", tmp_path / "corpus.toml")
    mine = Tokenizer.load(foreign)
    assert f"{foreign}: {mine.note}" in said

    kept = Tokenizer.load(out / "tokenizer.json")
    assert kept.sha256 == mine.sha256 == read_manifest(out / "train")["tokenizer"]
    known = {" ".join(map(str, theirs(foreign)(text))) for text in texts}
    corpus = open_corpus(out / "train", kept.sha256, "full")
    assert corpus.eos == kept.special.eos
    for i in range(corpus.documents):
        assert " ".join(map(str, corpus.document(i))) in known

    foreign.unlink()  # all that comes after needs what was kept
    run = RUN.format(out=tmp_path / "run", corpus=out)
    (tmp_path / "run.toml").write_text(run)
    launch("pretrain", tmp_path / "run.toml", "data.length=24", "train.validate_every=4")
    log = [json.loads(line) for line in (tmp_path / "run" / "train.jsonl").read_text().splitlines()]
    assert all(np.isfinite(line["loss"]) for line in log)
    model = januslm.load(tmp_path / "run")
    assert model.tokenizer.special == kept.special
    [written] = model.generate(["the dog sleeps."], algorithm="greedy", max_length=6)
    assert not any(name in written for name in kept.names)


def test_a_file_that_was_not_learnt_here_is_not_learnt_over(files, tmp_path):  # noqa: F811
    (tmp_path / "a.txt").write_text("\n".join(TEXTS))
    foreign = tmp_path / "foreign.json"
    shutil.copy(files["bert"], foreign)
    text = CORPUS.format(out=tmp_path / "out", root=tmp_path, tokenizer=foreign)
    (tmp_path / "corpus.toml").write_text(text)
    recipe, said = read(str(tmp_path / "corpus.toml")), []
    learn(recipe, said.append)
    assert "already there" in said[0]
    with pytest.raises(Refused, match=r"foreign\.json: was not learnt here; name another file"):
        learn(recipe, said.append, fresh=True)
    assert foreign.read_bytes() == files["bert"].read_bytes()


def test_another_tokenizer_beside_the_shards_is_not_written_over(files, tmp_path):  # noqa: F811
    (tmp_path / "a.txt").write_text("\n".join(f"{text} {i}" for i in range(12) for text in TEXTS))
    (tmp_path / "out").mkdir()
    kept = tmp_path / "out" / "tokenizer.json"
    shutil.copy(files["gpt2"], kept)
    text = CORPUS.format(out=tmp_path / "out", root=tmp_path, tokenizer=files["bert"])
    (tmp_path / "corpus.toml").write_text(text)
    recipe = read(str(tmp_path / "corpus.toml"))
    with pytest.raises(Refused, match=r"out/tokenizer\.json: is another tokenizer than .*--fresh"):
        build(recipe, print)
    build(recipe, print, fresh=True)
    assert Tokenizer.load(kept).sha256 == Tokenizer.load(files["bert"]).sha256
