"""What would break: another best than the best, an early end too soon, another one after a kill."""

import json
import signal

import pytest
import torch
from safetensors.torch import load_file

from januslm.config import Refused
from januslm.data import sealed
from januslm.training.goals import Best, Goals, check
from januslm.training.settings import TrainSettings
from tests.launching import finish, start, wait_until
from tests.test_resume import asked, learnt, lines, train


def goals(**keys) -> Goals:
    return Goals.of(TrainSettings(steps=9, **keys))


def test_a_loss_is_best_when_low_a_score_when_high_and_a_name_may_say_otherwise():
    ends = ("loss", "ce/ar", "kl/ar~aux", "bleu", "rouge-l", "ter:lower", "loss:higher")
    found = [Best.of(text, "key") for text in ends]
    assert [best.lower for best in found] == [True, True, True, False, False, True, False]
    assert found[-2].name == "ter"
    with pytest.raises(Refused, match=r"^train\.keep_best must be NAME, .*, got 'bleu:up'$"):
        Best.of("bleu:up", "train.keep_best")


def test_the_best_is_the_first_of_equals_and_never_what_is_not_finite():
    best = Best.of("bleu", "key")
    values = [{}, {"bleu": float("nan")}, {"bleu": 3.0}, {"bleu": 3.0}, {"bleu": 2.0}, {"bleu": 4}]
    assert [best.met(step, one) for step, one in enumerate(values)] == [
        False, False, True, False, False, True
    ]  # fmt: skip
    assert (best.value, best.step, best.since) == (4, 5, 0)


def test_a_run_ends_after_as_many_validations_without_a_better_one_as_it_has_patience():
    found = goals(patience=2, keep_best="bleu", stop_by="loss")
    for step, (loss, bleu) in enumerate([(3.0, 1.0), (2.0, 0.5), (2.5, 7.0), (2.1, 8.0)]):
        assert not found.over
        found.met(step, {"loss": loss, "bleu": bleu})
        assert found.better == (step != 1)
    assert found.over == "loss has not been better for 2 validations, 2.0000 at step 1"


def test_what_a_checkpoint_keeps_goes_on_unless_another_name_is_asked_for():
    found = goals(patience=2)
    found.met(1, {"loss": 2.0})
    found.met(2, {"loss": 3.0})
    state = json.loads(json.dumps(found.state))
    again = Goals.of(TrainSettings(steps=9, patience=2), state)
    assert again.state == found.state
    again.met(3, {"loss": 2.0})
    assert again.over
    other = Goals.of(TrainSettings(steps=9, patience=2, stop_by="ce/ar"), state)
    assert other.stop.value is None


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"keep_best": "blue"}, "train.keep_best: no 'blue' is validated; there are bleu, ce/ar, "
         "loss. Did you mean 'bleu'?"),
        ({"patience": 2, "stop_by": "rouge"}, "train.stop_by: no 'rouge' is validated"),
        ({"stop_by": "loss"}, "train.stop_by needs train.patience"),
    ],
)  # fmt: skip
def test_a_goal_that_no_validation_has_is_refused_with_those_it_has(keys, message):
    check(TrainSettings(steps=1, keep_best="bleu:higher", patience=1), ["ce/ar", "bleu"], "run")
    with pytest.raises(Refused) as refused:
        check(TrainSettings(steps=1, **keys), ["ce/ar", "bleu"], "run.toml")
    assert str(refused.value).startswith(f"run.toml: {message}")


GOALS = {"keep_best": "right", "patience": 9, "stop_by": "loss", "validate_every": 2}


def goals_of(folder, step: int) -> dict:
    return sealed.read(folder / "checkpoints" / f"step-{step:08d}" / "manifest.json")["goals"]


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.parametrize("config", ["cpu_fp32.json", "zero3_bf16.json"])
def test_after_a_kill_the_best_weights_their_score_and_the_patience_are_the_same(tmp_path, config):
    whole, folder = tmp_path / "whole", tmp_path / "run"
    codes, said = train(whole, config, work={"scorable": 3}, **GOALS)
    assert codes == [0, 0], said
    order = asked(folder, config, {"scorable": 3, "pause": 0.3}, **GOALS)
    group = start("tiny_worker.py", order)
    wait_until(lambda: len(lines(folder)) >= 7 and (folder / "checkpoints/step-00000006").exists())
    group[1].send_signal(signal.SIGKILL)
    codes, said = finish(group, 120)
    assert codes[1] == -signal.SIGKILL
    codes, said = train(folder, config, work={"scorable": 3}, **GOALS)
    assert codes == [0, 0], said
    assert "going on from step-0000000" in said
    rows = lines(folder, "valid")
    assert [row.get("right") for row in rows] == [r.get("right") for r in lines(whole, "valid")]
    assert learnt(folder) == learnt(whole)
    assert goals_of(folder, 10) == goals_of(whole, 10)
    best = sealed.read(folder / "best" / "validation.json")
    scores = {row["step"]: row["right"] for row in rows if "right" in row}
    assert scores.keys() == {2, 4, 6, 8, 10}
    assert best["value"] == max(scores.values()) == scores[best["step"]]
    mine, theirs = (load_file(f / "best/export/model.safetensors") for f in (folder, whole))
    assert all(torch.equal(mine[name], theirs[name]) for name in theirs)


@pytest.mark.slow
def test_a_run_that_ends_early_is_done_until_its_patience_is_raised(tmp_path):
    folder = tmp_path / "run"
    # The loss falls from the first validation on, so that none is "better" after it.
    asks = {"stop_by": "loss:higher", "validate_every": 2, "processes": 1, "save_every": 5}
    codes, said = train(folder, patience=2, **asks)
    assert codes == [0], said
    first = lines(folder, "valid")[0]["loss"]
    why = f"loss has not been better for 2 validations, {first:.4f} at step 0"
    assert f"ends early: {why}\ndone: step 4, " in said
    assert [line["step"] for line in lines(folder)] == [1, 2, 3, 4]
    assert (folder / "checkpoints" / "step-00000004").is_dir()
    codes, said = train(folder, patience=2, **asks)
    assert codes == [0]
    assert "is done: step 4" in said
    (folder / "done").unlink()  # as if it was killed before it could say so
    codes, said = train(folder, patience=2, **asks)
    assert codes == [0]
    assert "done: step 4, " in said
    codes, said = train(folder, patience=3, **asks)
    assert codes == [0], said
    assert f"ends early: {why.replace('2 val', '3 val')}\ndone: step 6, " in said
    assert [line["step"] for line in lines(folder)] == [1, 2, 3, 4, 5, 6]
