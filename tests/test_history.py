"""A run's history tells every start and stop, whatever happened to its file in between."""

import pytest

from januslm.training import history


def test_events_are_read_in_their_order_and_with_their_facts(tmp_path):
    assert history.read(tmp_path) == []
    history.add(tmp_path, "start", step=0, world=2)
    history.add(tmp_path, "stop", step=7, code=85, reason="SIGTERM")
    first, last = history.read(tmp_path)
    assert first.pop("time") <= last.pop("time")
    assert first == {"event": "start", "step": 0, "world": 2}
    assert last == {"event": "stop", "step": 7, "code": 85, "reason": "SIGTERM"}


def test_a_half_line_of_a_killed_process_costs_no_other_line(tmp_path):
    history.add(tmp_path, "start", step=0)
    path = tmp_path / "history.jsonl"
    path.write_bytes(path.read_bytes() + b'{"time": "2026-')
    history.add(tmp_path, "start", step=3)
    assert [event["step"] for event in history.read(tmp_path)] == [0, 3]
    assert history.damaged(tmp_path) == [2]


@pytest.mark.slow
def test_no_bit_of_a_history_can_be_changed_unseen(tmp_path):
    history.add(tmp_path, "start", step=1)
    history.add(tmp_path, "stop", step=2, code=0, reason="done")
    path = tmp_path / "history.jsonl"
    whole, events = path.read_bytes(), history.read(tmp_path)
    for place in range(len(whole) * 8):
        flipped = bytearray(whole)
        flipped[place // 8] ^= 1 << place % 8
        path.write_bytes(flipped)
        found = history.read(tmp_path)
        assert all(event in events for event in found), place
        assert found == events or history.damaged(tmp_path), place


def test_a_folder_that_is_not_there_is_told_to_the_caller(tmp_path):
    with pytest.raises(FileNotFoundError):
        history.add(tmp_path / "gone", "start")
