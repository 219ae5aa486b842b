"""A student's training set: the teacher's own words, line by line, also after an interruption."""

import argparse
import json
import subprocess
import sys
from collections import Counter
from functools import partial

import pytest
import torch

from finetune.distill import distill
from finetune.tasks import iwslt14, iwslt14_en_de, xsum
from januslm.config import Refused
from januslm.data import tokenizer
from januslm.data.token_pairs import Limits, prepare, sources
from januslm.decoding import beam
from januslm.inference import generator
from januslm.inference.incremental import IncrementalDecoder
from januslm.interop import native
from januslm.model.config import configure
from januslm.model.transformer import Seq2Seq
from januslm.objective import LossSettings, resolve_objective
from tests.conftest import ROOT
from tests.launching import wait_until
from tests.test_translation import lay

GERMAN = tuple(f"satz {n} ist {'sehr ' * (n % 3)}kurz ." for n in range(7))
ENGLISH = tuple(f"sentence {n} is {'very ' * (n % 3)}short ." for n in range(7))
BEAM = {"beam": 3, "max_length": 8}


@pytest.fixture
def root(tmp_path):
    """A data root with a training set of seven pairs."""
    for split in ("train", "valid", "test"):
        lay(tmp_path / "data", split, {"de": GERMAN, "en": ENGLISH})
    return tmp_path / "data"


def teach(root, task: str = "iwslt14", objective: str = "janus"):
    """A teacher with random weights; returns the folder of its run."""
    run = root.parent / f"{task}-{objective}"
    words = tokenizer.train_tokenizer([*GERMAN, *ENGLISH], 300, root.parent / "tokenizer.json")
    torch.manual_seed(3)
    table = {
        "width": 16,
        "ffn": 32,
        "heads": 2,
        "encoder_layers": 1,
        "decoder_layers": 1,
        "max_length": 32,
        "max_positions": 64,
    }
    model = Seq2Seq(configure(table, words.size, "test"))
    for p in model.parameters():
        torch.nn.init.normal_(p, std=0.5)  # so that it does not write the same for every source
    about = {"task": task, "data": {"root": str(root), "max_source": 40, "max_target": 20}}
    native.write(run / "export", model, root.parent / "tokenizer.json", objective, {}, about)
    return run


def asked(run, out, *options: str, **others) -> argparse.Namespace:
    settings = [f"{key}={value}" for key, value in BEAM.items()]
    usual = {"batch": 4, "portion": 3, "limit": None, "data": None, "task": None, "threads": 1}
    return argparse.Namespace(run=run, out=out, options=[*settings, *options], **usual | others)


def texts(out) -> list[tuple[str, str]]:
    return [(pair.source, pair.targets[0]) for pair in iwslt14.read(out, "train")]


def test_the_task_reads_the_teachers_words_beside_its_own_sources(root, tmp_path):
    run = teach(root)
    counts = distill(asked(run, tmp_path / "out"))
    saved = native.read(run)
    objective = resolve_objective(
        {"name": "janus"}, {}, LossSettings(), "nmt", saved.tokenizer.special, "t"
    )
    arrays, _ = sources(list(GERMAN), saved.tokenizer, 40)
    decoder = IncrementalDecoder(saved.model, objective, packed=True)
    way = partial(beam.decode, **BEAM)
    found = generator.write(decoder, {"beam": way}, arrays, saved.tokenizer.special, 7)["beam"]
    made = [generator.text(saved.tokenizer, output) for output in found.outputs]
    wanted = [(source, text) for source, text in zip(GERMAN, made, strict=True) if text]
    assert texts(tmp_path / "out") == wanted
    assert len(set(wanted)) > 1
    assert (counts["sentences"], counts["written"]) == (7, len(wanted))
    assert counts["written"] + counts.get("empty translation left out", 0) == 7


def test_validation_and_test_set_stay_what_they_are(root, tmp_path):
    distill(asked(teach(root), tmp_path / "out"))
    for split in ("valid", "test"):
        assert list(iwslt14.read(tmp_path / "out", split)) == list(iwslt14.read(root, split))


@pytest.mark.slow
def test_after_a_failing_disk_it_goes_on_and_ends_the_same(root, tmp_path):
    run = teach(root)
    distill(asked(run, tmp_path / "whole"))
    seen = []
    for number in (1, 2):  # a folder where portion 1, then 2, should be written
        in_the_way = tmp_path / "out" / ".portions" / f"{number:06d}.jsonl"
        in_the_way.mkdir(parents=True)
        with pytest.raises(OSError, match=in_the_way.name):
            distill(asked(run, tmp_path / "out"))
        seen.append(in_the_way.with_name("000000.jsonl").stat().st_mtime_ns)
        in_the_way.rmdir()
    assert seen[0] == seen[1]  # the first portion was not made again
    distill(asked(run, tmp_path / "out"))
    assert texts(tmp_path / "out") == texts(tmp_path / "whole")
    assert not (tmp_path / "out" / ".portions").exists()


@pytest.mark.slow
def test_killed_in_the_middle_it_goes_on_and_ends_the_same(root, tmp_path):
    """A process of its own, killed as nothing can catch, with half a portion not yet saved."""
    run = teach(root)
    german = tuple(f"satz {n} ist kurz ." for n in range(400))
    lay(root, "train", {"de": german, "en": tuple(f"sentence {n} ." for n in range(400))})
    distill(asked(run, tmp_path / "whole", portion=20))
    command = [
        sys.executable,
        "-m",
        "finetune.distill",
        str(run),
        str(tmp_path / "out"),
        "--batch",
        "4",
        "--portion",
        "20",
        "--threads",
        "1",
        *(f"{key}={value}" for key, value in BEAM.items()),
    ]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL)
    done = tmp_path / "out" / ".portions" / "000000.jsonl"
    wait_until(lambda: done.is_file() or process.poll() is not None)
    process.kill()
    assert process.wait() == -9, "it was faster than the kill"
    with pytest.raises(Refused, match=r"train.de: no such file"):
        list(iwslt14.read(tmp_path / "out", "train"))
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    assert texts(tmp_path / "out") == texts(tmp_path / "whole")
    facts = [
        json.loads((tmp_path / name / "distill.json").read_text()) for name in ("out", "whole")
    ]
    for one in facts:
        del one["counts"]["seconds"]
    assert facts[0]["counts"] == facts[1]["counts"]


def test_empty_lines_are_counted_and_move_no_test_pair(root, tmp_path, capsys):
    lay(root, "train", {"de": ("", *GERMAN[1:]), "en": ENGLISH})
    lay(root, "test", {"de": (GERMAN[0], "", *GERMAN[2:]), "en": ENGLISH})
    counts = distill(asked(teach(root), tmp_path / "out"))
    said = capsys.readouterr().out
    assert "test: 7 pairs as they are, 1 empty source kept\n" in said
    assert (counts["empty source left out"], counts["sentences"]) == (1, 6)
    assert "1 empty source left out" in said.splitlines()[-1]
    kept = [list(iwslt14.read(place, "test", Counter())) for place in (root, tmp_path / "out")]
    assert kept[0] == kept[1]
    assert len(kept[0]) == 7


def test_a_test_set_without_targets_is_passed_on_without(root, tmp_path, capsys):
    for stem in ("train", "dev"):
        lay(root / "xsum", stem, {"src": GERMAN, "tgt": ENGLISH})
    lay(root / "xsum", "test", {"src": GERMAN})
    distill(asked(teach(root, "xsum"), tmp_path / "out"))
    assert "\ntest: 7 pairs as they are, without targets\n" in capsys.readouterr().out
    kept = list(xsum.read(tmp_path / "out", "test"))
    assert kept == list(xsum.read(root, "test"))
    assert {pair.targets for pair in kept} == {()}
    assert not (tmp_path / "out" / "test.tgt").exists()


def test_a_student_of_another_task_is_refused_before_it_trains(root, tmp_path):
    """iwslt14_en_de reads files of the same names, with the languages swapped."""
    run, out = teach(root), tmp_path / "out"
    distill(asked(run, out))
    words, limits = native.read(run).tokenizer, Limits(40, 20, "cut")
    about = prepare(iwslt14, out, "train", words, limits, tmp_path / "d")
    assert about["counts"]["pairs"] == len(texts(out))
    with pytest.raises(Refused, match=r"a distillation of task 'iwslt14', not of 'iwslt14_en_de'"):
        prepare(iwslt14_en_de, out, "train", words, limits, tmp_path / "e")


def test_a_finished_one_says_so_and_decodes_nothing(root, tmp_path, capsys):
    run = teach(root)
    first = distill(asked(run, tmp_path / "out"))
    capsys.readouterr()
    assert distill(asked(run, tmp_path / "out")) == first
    said = capsys.readouterr().out
    assert said.startswith(f"{tmp_path / 'out'} is done: 7 sentences")
    assert len(said.splitlines()) == 1


@pytest.mark.slow
def test_other_settings_do_not_mix_with_what_is_there(root, tmp_path):
    run = teach(root)
    distill(asked(run, tmp_path / "out"))
    with pytest.raises(Refused, match=r"another distillation: there settings.beam = 3, here 2"):
        distill(asked(run, tmp_path / "out", "beam=2"))


@pytest.mark.slow
def test_a_training_set_that_changed_meanwhile_is_refused(root, tmp_path):
    run = teach(root)
    (tmp_path / "out" / ".portions" / "000001.jsonl").mkdir(parents=True)
    with pytest.raises(OSError, match="000001"):
        distill(asked(run, tmp_path / "out"))
    lay(root, "train", {"de": ("neu", *GERMAN[1:]), "en": ENGLISH})
    with pytest.raises(Refused, match=r"000000.jsonl: the training set has changed"):
        distill(asked(run, tmp_path / "out"))


def test_a_folder_with_something_else_in_it_is_refused(root, tmp_path):
    with pytest.raises(Refused, match=r"data: is not empty; name a new folder"):
        distill(asked(teach(root), root))


@pytest.mark.slow
@pytest.mark.parametrize("file", ["distill.json", ".portions/begun.json"])
@pytest.mark.parametrize("text", ["{", "[]", "{}"])
def test_a_note_that_somebody_damaged_is_refused_by_name(root, tmp_path, file, text):
    note = tmp_path / "out" / file
    note.parent.mkdir(parents=True)
    note.write_text(text)
    with pytest.raises(Refused, match=rf"{note}: |out holds another distillation: there task = N"):
        distill(asked(teach(root), tmp_path / "out"))


@pytest.mark.parametrize(
    ("task", "objective", "message"),
    [
        ("scitldr", "janus", "task 'scitldr' has no `save`; tasks with it: .*iwslt14, "),
        (
            "iwslt14",
            "cmlm",
            "a checkpoint of objective 'cmlm' cannot write or rescore word by word",
        ),
    ],
)
def test_who_cannot_teach_is_refused_before_anything_is_written(root, task, objective, message):
    with pytest.raises(Refused, match=message):
        distill(asked(teach(root, task, objective), root.parent / "out"))
    assert not (root.parent / "out").exists()


def test_the_settings_lie_beside_the_data(root, tmp_path):
    distill(asked(teach(root), tmp_path / "out", limit=5))
    facts = json.loads((tmp_path / "out" / "distill.json").read_text())
    assert facts["about"]["settings"]["beam"] == 3
    assert facts["counts"]["sentences"] == 5
