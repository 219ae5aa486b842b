"""A poisoned batch is skipped, recorded with its samples, and can be looked at again."""

import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from januslm.data import sealed
from januslm.training import history
from tests.launching import finish
from tests.ranks import laid, started

pytestmark = pytest.mark.slow
POISONED = 20  # a place in the text: only what is longer has a loss that is not finite


@pytest.fixture(scope="module")
def poisoned(tmp_path_factory):
    """A run of two ranks from weights whose vector for one place is infinite."""
    base = laid(tmp_path_factory.mktemp("poisoned"))
    codes, said = finish(started(base, "out=clean", "train.steps=1", processes=1))
    assert codes == [0], said
    shutil.copytree(base / "clean" / "export", base / "start")
    path = base / "start" / "model.safetensors"
    weights = load_file(path)
    [name] = [name for name in weights if "position" in name and weights[name].dim() == 2][:1]
    weights[name][POISONED:] = torch.inf
    save_file(weights, path)
    words = ("start=start", "out=run", "train.steps=8", "train.bad_steps=9", "train.save_every=4")
    codes, said = finish(started(base, *words))
    return base, codes, said


def test_a_skipped_update_is_recorded_with_the_samples_of_each_rank(poisoned):
    base, _, said = poisoned
    events = [event for event in history.read(base / "run") if event["event"] == "skipped"]
    log = [table for _, table in sealed.lines(base / "run" / "train.jsonl")]
    assert len(events) == log[-1]["skipped"] >= 1, said
    for event in events:
        first, step = event["samples"][0], event["step"]
        assert event["samples"] == [4 * (step - 1), 4 * step - 1]
        assert event["ranks"] == [[[first, first + 1]], [[first + 2, first + 3]]]
        assert event["terms"]


def test_replay_names_the_very_examples_whose_loss_is_not_finite(poisoned):
    base, *_ = poisoned
    step = next(e["step"] for e in history.read(base / "run") if e["event"] == "skipped")
    [replay] = started(base, processes=1, verb="januslm.launch", given=("replay", "run", str(step)))
    codes, said = finish([replay])
    assert codes == [0], said
    lines = [line for line in said.splitlines() if line.startswith("sample ")]
    assert [int(line.split()[1]) for line in lines] == list(range(4 * step - 4, 4 * step))
    wrong = [line for line in lines if "NOT FINITE: ce/" in line]
    assert 1 <= len(wrong) <= 4
    assert f"{len(wrong)} of 4 examples have terms that are not finite" in said
    for line in lines:
        assert (" nan " in line or " inf " in line) == (line in wrong)


def test_a_run_whose_last_updates_were_skipped_is_not_done(tmp_path):
    base = laid(tmp_path)
    words = ("out=run", "train.steps=6", "train.save_every=2", "train.keep=1", "optimizer.lr=1e30")
    codes, said = finish(started(base, *words, processes=1))
    assert codes == [2], said
    [line] = [line for line in said.splitlines() if line.startswith("error: ")]
    assert "times in a row, up to step 6: lower optimizer.lr" in line
    assert "a run does not end as done with them" in line
    assert "checked now and whole" in line
    assert not (base / "run" / "done").exists()
    assert not (base / "run" / "export").exists()
    good = line.split("the newest checkpoint from before that is ")[1].split(",")[0]
    assert (base / good).is_dir()
    codes, again = finish(started(base, *words, processes=1))
    assert codes == [2], again
    assert "a run does not end as done with them" in again
    assert (base / good).is_dir(), "nothing made room for a checkpoint of skipped updates"
