"""A run that reads its corpus from an address learns what it learns from a folder."""

import json

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from januslm.runs.data_card import FAR, cards
from januslm.runs.story import story_of
from tests.range_server import serving
from tests.test_pipeline import CORPUS, RUN, launch, sentences

pytestmark = [pytest.mark.slow, pytest.mark.long]


def losses(folder) -> list[tuple]:
    lines = [json.loads(line) for line in (folder / "train.jsonl").read_text().splitlines()]
    assert all(0 <= line["data_wait"] <= 1 for line in lines)
    return [(line["step"], line["samples"], line["loss"], line["grad_norm"]) for line in lines]


def test_a_run_goes_on_from_an_address_as_from_a_folder(tmp_path):
    (tmp_path / "plain.txt").write_text("\n".join(sentences()))
    (tmp_path / "corpus.toml").write_text(CORPUS.format(out=tmp_path / "corpus"))
    launch("data", "build", tmp_path / "corpus.toml", f"root={tmp_path}")
    usual = ("data.shuffle_blocks=2", "train.log_every=1", "objective.name=ar")
    with serving(tmp_path) as server:
        found = {}
        for name, corpus in (("near", tmp_path), ("far", server.address)):
            run = RUN.format(out=tmp_path / name, corpus=f"{corpus}/corpus")
            run = run.replace(f"{server.address}/corpus/tok", f"{tmp_path}/corpus/tok")
            (tmp_path / f"{name}.toml").write_text(run)
            cache = f"data.cache={tmp_path / 'cache'}"
            launch("pretrain", tmp_path / f"{name}.toml", *usual, cache, "train.workers=1")
            found[name] = losses(tmp_path / name)
        assert found["near"] == found["far"]
        assert len(found["near"]) == 4
    notes = {card.split: card.note for card in cards(story_of(tmp_path / "far"))}
    assert notes == {"train": FAR, "valid": FAR}
    # its server is gone, the manifest with it; the folder is the same corpus
    far = ("pretrain", tmp_path / "near.toml", *usual, f"out={tmp_path / 'far'}", "train.steps=6")
    launch(*far)
    launch("pretrain", tmp_path / "near.toml", *usual, "train.steps=6")
    assert losses(tmp_path / "near") == losses(tmp_path / "far")
    board = EventAccumulator(str(tmp_path / "far" / "board")).Reload()
    waits = [tag for tag in board.Tags()["scalars"] if tag.endswith("data_wait")]
    assert waits
    assert len(board.Scalars(waits[0])) == 6
