"""The mean of exports is exact, is of one model, and a run keeps the exports it is made of."""

import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from finetune.average import average, best, newest
from januslm.config import Refused
from januslm.data import sealed, tokenizer
from januslm.interop import native
from januslm.model.config import configure
from januslm.model.transformer import Seq2Seq
from januslm.training.log import Log
from januslm.training.run_dir import exported
from tests.conftest import ROOT
from tests.launching import finish, start

TABLE = {
    "width": 16,
    "ffn": 32,
    "heads": 2,
    "encoder_layers": 1,
    "decoder_layers": 1,
    "max_length": 16,
    "max_positions": 32,
}


@pytest.fixture
def words(tmp_path):
    tokenizer.train_tokenizer(["a few words of text"], 270, tmp_path / "tokenizer.json")
    return tmp_path / "tokenizer.json"


def export(run, step: int, words, objective: str = "janus", **changes) -> Seq2Seq:
    """A random model in run/exports/step-..."""
    torch.manual_seed(step)
    size = tokenizer.Tokenizer.load(words).size
    model = Seq2Seq(configure(TABLE | changes, size, "test"))
    about = {"task": "multi30k", "data": {"root": "x"}}
    place = run / "exports" / f"step-{step:08d}"
    native.write(place, model, words, objective, {"read": "next"}, about)
    return model


def test_weights_are_the_mean_of_the_last_exports(tmp_path, words):
    models = [export(tmp_path, step, words) for step in (5, 10, 15, 20)]
    assert average(tmp_path, newest(tmp_path, 3), tmp_path / "mean") == [
        "step-00000010",
        "step-00000015",
        "step-00000020",
    ]
    saved = native.read(tmp_path / "mean")
    states = [model.state_dict() for model in models[1:]]
    for name, value in saved.model.state_dict().items():
        wanted = torch.stack([state[name].double() for state in states]).mean(0)
        assert torch.equal(value, wanted.float()), name
    assert (saved.objective, saved.options) == ("janus", {"read": "next"})
    assert saved.about["task"] == "multi30k"
    assert len(saved.about["averaged"]) == 3


def test_the_mean_of_equal_weights_is_bit_for_bit_these_weights(tmp_path, words):
    for step in (1, 2, 3):
        model = export(tmp_path, 7, words)
        (tmp_path / "exports" / "step-00000007").rename(
            tmp_path / "exports" / f"step-0000000{step}"
        )
    average(tmp_path, newest(tmp_path, 3), tmp_path / "mean")
    for name, value in native.read(tmp_path / "mean").model.state_dict().items():
        assert torch.equal(value, model.state_dict()[name]), name


def test_too_few_exports_are_refused_with_the_way_to_more(tmp_path, words):
    export(tmp_path, 5, words)
    with pytest.raises(Refused, match=r"exports: 1 exports there, --last 4 .* train.exports=4"):
        newest(tmp_path, 4)
    with pytest.raises(Refused, match="--last must be at least 1, got 0"):
        newest(tmp_path, 0)
    with pytest.raises(Refused, match="nowhere: no such folder; a run's folder is its `out`"):
        newest(tmp_path / "nowhere", 1)


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({"ffn": 64}, "config.model.ffn = 32, here 64"),
        ({"objective": "ar"}, "config.objective.name = 'janus', here 'ar'"),
    ],
)
def test_exports_of_another_model_are_refused(tmp_path, words, other, message):
    export(tmp_path, 5, words)
    export(tmp_path, 6, words, **other)
    with pytest.raises(Refused, match=message):
        average(tmp_path, newest(tmp_path, 2), tmp_path / "mean")
    assert not (tmp_path / "mean").exists()


def test_nothing_is_written_over(tmp_path, words):
    export(tmp_path, 5, words)
    with pytest.raises(Refused, match="step-00000005: is not empty"):
        average(tmp_path, newest(tmp_path, 1), tmp_path / "exports" / "step-00000005")


def validated(run, **columns: dict[int, float]) -> None:
    """Write run/valid.jsonl from {name: {step: value}}."""
    steps = sorted(next(iter(columns.values())))
    rows = [{"step": s, **{name: column[s] for name, column in columns.items()}} for s in steps]
    (run / "valid.jsonl").write_text("".join(sealed.line(row) for row in rows))


@pytest.mark.parametrize("seed", range(20))
def test_the_best_are_those_that_nothing_left_out_beats(tmp_path, seed):
    rng = np.random.default_rng(seed)
    steps = sorted(int(step) for step in rng.choice(500, rng.integers(1, 12), replace=False))
    for step in steps:
        (tmp_path / "exports" / f"step-{step:08d}").mkdir(parents=True)
    # The log also has steps whose export is gone; whole numbers, so that there are equals.
    losses = {step: float(rng.integers(5)) for step in {*steps, 500, 501}}
    broken = dict.fromkeys(rng.permutation(steps)[:2].tolist(), float("nan"))
    log = Log(tmp_path, first=True)
    for step, loss in sorted((losses | broken).items()):
        log.record("valid", step=step, loss=loss)
    losses |= dict.fromkeys(broken, np.inf)
    count = int(rng.integers(1, len(steps) + 1))
    chosen = [int(place.name[5:]) for place in best(tmp_path, count, "loss")]
    rest = set(steps) - set(chosen)
    assert (len(chosen), chosen) == (count, sorted(set(chosen)))
    assert all((losses[c], -c) < (losses[r], -r) for c in chosen for r in rest)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (sealed.line({"step": 2, "loss": 1.5})[:-3], r"valid.jsonl:2: damaged: its content"),
        (sealed.line({"step": 2, "loss": 1.5}).replace("1.5", "1.4"), r"valid.jsonl:2: damaged"),
        (sealed.line({"step": 2, "loss": "low"}), r":2: 'loss' must be a number, got 'low'"),
    ],
)
def test_a_damaged_log_is_refused_with_its_line(tmp_path, line, message):
    (tmp_path / "exports" / "step-00000001").mkdir(parents=True)
    (tmp_path / "exports" / "step-old").mkdir()  # somebody's own; not counted
    validated(tmp_path, loss={1: 1.0})
    assert [one.name for one in best(tmp_path, 1, "loss")] == ["step-00000001"]
    with (tmp_path / "valid.jsonl").open("a") as file:
        file.write(line)
    with pytest.raises(Refused, match=message):
        best(tmp_path, 1, "loss")


def test_the_best_by_another_number_are_others(tmp_path):
    for step in (1, 2):
        (tmp_path / "exports" / f"step-{step:08d}").mkdir(parents=True)
    validated(tmp_path, **{"ce/ar": {1: 1.0, 2: 2.0}, "ce/nar": {1: 2.0, 2: 1.0}})
    assert [best(tmp_path, 1, by)[0].name[-1] for by in ("ce/ar", "ce/nar")] == ["1", "2"]
    with pytest.raises(Refused, match=r"no number 'ce/aar'; there are ce/ar, ce/nar\. Did"):
        best(tmp_path, 1, "ce/aar")


def test_an_export_that_was_never_validated_is_not_guessed_at(tmp_path):
    for step in (10, 15):
        (tmp_path / "exports" / f"step-{step:08d}").mkdir(parents=True)
    with pytest.raises(Refused, match=r"valid.jsonl: no such file, so the run has not validated"):
        best(tmp_path, 1, "loss")
    validated(tmp_path, loss={10: 1.0})
    with pytest.raises(Refused, match=r"no validation at step 15.*multiple of train\.validate"):
        best(tmp_path, 1, "loss")


def test_a_run_keeps_its_last_exports_and_drops_those_of_a_future_that_was_undone(tmp_path):
    def export_of(step):
        return lambda module, folder: (folder / "model").write_text(str(step))

    for step in (10, 20, 30, 40, 20):  # at 40 it went on from the checkpoint of 10
        exported(tmp_path, step, 2, None, export_of(step))
    assert sorted(path.name for path in (tmp_path / "exports").iterdir()) == ["step-00000020"]
    exported(tmp_path, 30, 2, None, export_of(30))
    there = {path.parent.name: path.read_text() for path in tmp_path.glob("exports/*/model")}
    assert there == {"step-00000020": "20", "step-00000030": "30"}
    assert (tmp_path / "export" / "model").read_text() == "30"


def test_without_train_exports_there_is_one_export(tmp_path):
    exported(tmp_path, 1, 0, None, lambda module, folder: (folder / "model").write_text("1"))
    assert {path.name for path in tmp_path.iterdir()} == {"export", "exported"}


@pytest.mark.slow
def test_a_real_run_leaves_the_exports_of_its_last_saves(tmp_path):
    train = {"steps": 4, "batch": 4, "save_every": 1, "exports": 2, "validate_every": 4}
    asked = {"folder": str(tmp_path), "ds": str(ROOT / "ds_configs/cpu_fp32.json"), "train": train}
    codes, said = finish(start("tiny_worker.py", json.dumps(asked), processes=1))
    assert codes == [0], said
    found = sorted((tmp_path / "exports").iterdir())
    assert [path.name for path in found] == ["step-00000003", "step-00000004"]
    before, last, final = (
        load_file(place / "model.safetensors") for place in (*found, tmp_path / "export")
    )
    assert all(torch.equal(last[name], final[name]) for name in final)
    assert not all(torch.equal(before[name], last[name]) for name in final)
