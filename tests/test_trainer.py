"""What would break: a run in another run's folder, batches out of order, a thread left behind."""

import multiprocessing
import os
import threading

import pytest
import torch

from januslm.config import Refused
from januslm.data import sealed
from januslm.data.prefetch import ahead
from januslm.training.log import Log
from januslm.training.machine import memory, peak_flops
from januslm.training.run_dir import mark, opened, swapped
from januslm.training.settings import TrainSettings

CONFIG = {"model": {"width": 24, "kind": {"norm": "pre"}}, "objective": "ar", "ds": "a"}


def test_a_folder_of_another_run_is_refused_by_the_key_that_differs(tmp_path):
    assert opened(tmp_path, CONFIG, 10).done is None
    moved = opened(tmp_path, CONFIG | {"ds": "b"}, 10)
    assert moved.changes == {"ds": ["a", "b"]}
    assert moved.notes == ["changed: ds: 'a' -> 'b'"]
    other = CONFIG | {"model": {"width": 24, "kind": {"norm": "post"}}, "ds": "b"}
    with pytest.raises(Refused) as error:
        opened(tmp_path, other, 10)
    assert str(error.value) == (
        f"{tmp_path} holds another run: there model.kind.norm = 'pre', here 'post' (the weights "
        "would not fit, or compute something else); choose another folder"
    )


def test_a_finished_run_is_done_until_more_steps_are_asked_for(tmp_path):
    opened(tmp_path, CONFIG, 10)
    mark(tmp_path, {"step": 10, "loss": 1.5})
    assert opened(tmp_path, CONFIG, 10).done == {"step": 10, "loss": 1.5}
    assert opened(tmp_path, CONFIG, 11).done is None
    assert not (tmp_path / "done").exists()


def test_a_mark_that_is_damaged_is_said_and_not_believed(tmp_path):
    opened(tmp_path, CONFIG, 10)
    mark(tmp_path, {"step": 10, "loss": 1.5})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["config.json", "done"]
    (tmp_path / "done").write_text('{"mod')
    found = opened(tmp_path, CONFIG, 10)
    assert found.done is None
    [note] = found.notes
    assert note.startswith(f"{tmp_path / 'done'}: not a JSON file: ")
    assert not (tmp_path / "done").exists()


def test_a_mark_without_a_step_is_of_no_finished_run(tmp_path):
    opened(tmp_path, CONFIG, 10)
    mark(tmp_path, {})
    assert opened(tmp_path, CONFIG, 10).done is None
    assert not (tmp_path / "done").exists()


def test_an_export_takes_the_place_of_the_former_one_or_leaves_it(tmp_path):
    def export(text):
        return lambda module, folder: (folder / "model").write_text(text)

    swapped(tmp_path / "export", None, export("one"))
    swapped(tmp_path / "export", None, export("two"))
    with pytest.raises(ZeroDivisionError):
        swapped(tmp_path / "export", None, lambda module, folder: 1 / 0)
    assert (tmp_path / "export" / "model").read_text() == "two"


def refusing_20(key: int) -> torch.Tensor:
    if key == 20:
        raise Refused("no more")
    return torch.full((key,), key)


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 1, 2])
def test_items_made_ahead_keep_their_order_and_their_errors(workers):
    random = torch.get_rng_state()
    with ahead(refusing_20, iter(range(30)), workers) as taken:
        assert [next(taken).tolist() for _ in range(20)] == [[key] * key for key in range(20)]
        with pytest.raises(Refused, match=r"^no more$"):
            next(taken)
    with ahead(refusing_20, iter(range(20)), workers) as taken:
        assert [len(next(taken)) for _ in range(5)] == list(range(5))
    assert not [thread for thread in threading.enumerate() if thread.name == "ahead"]
    assert not multiprocessing.active_children()
    with ahead(refusing_20, range(20), workers) as taken:
        assert [len(item) for item in taken] == list(range(20))
    assert torch.equal(torch.get_rng_state(), random), "the run's random numbers are its own"


@pytest.mark.slow
def test_a_packing_process_that_dies_is_reported():
    def dies(key: int) -> int:
        if key == 3:
            os._exit(7)
        return key

    with ahead(dies, range(9), 1) as taken, pytest.raises(RuntimeError, match="exited"):
        list(taken)


def test_a_resumed_log_has_every_step_once(tmp_path):
    log = Log(tmp_path)
    for step in range(1, 6):
        log.record("train", step=step, loss=float("nan") if step == 2 else 1.0)
    with open(tmp_path / "train.jsonl", "a") as file:
        file.write('{"step": 6, "lo')  # a killed process
    assert log.rewind("train", 3) == (2, 1)
    assert list(sealed.lines(tmp_path / "train.jsonl")) == [
        (1, {"step": 1, "loss": 1.0}),
        (2, {"step": 2, "loss": None}),
        (3, {"step": 3, "loss": 1.0}),
    ]
    Log(tmp_path / "other", first=False).record("train", step=1)
    assert not (tmp_path / "other").exists()


@pytest.mark.slow
def test_the_machine_is_measured_in_plausible_numbers():
    cpu = torch.device("cpu")
    assert 1e9 < peak_flops(cpu, "fp32") < 1e15
    assert 0.05 < memory(cpu) < 100


def test_a_run_without_steps_is_refused():
    from januslm.config import build

    with pytest.raises(Refused, match=r"run\.toml: train: steps is missing"):
        build(TrainSettings, {}, "run.toml: train")
