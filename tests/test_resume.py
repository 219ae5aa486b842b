"""What would break: a run that is killed, stopped, out of disk or on other ranks than before."""

import json
import os
import re
import shutil
import signal
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from januslm.data import sealed
from januslm.training.checkpoint import newest
from tests import launching
from tests.launching import finish, start, wait_until

pytestmark = pytest.mark.slow

CONFIGS = Path(__file__).parents[1] / "ds_configs"
TRAIN = {
    "steps": 10,
    "batch": 8,
    "save_every": 3,
    "validate_every": 5,
    "log_every": 1,
    "keep": 9,
}


def asked(
    folder: Path,
    config: str = "cpu_fp32.json",
    work: dict | None = None,
    die: tuple = (None,),
    dropout: float = 0.1,
    **changes,
) -> str:
    """What tiny_worker does; changes: of [train]."""
    what = {"folder": str(folder), "ds": str(CONFIGS / config), "train": TRAIN | changes}
    return json.dumps(what | {"work": work or {}, "die": die, "dropout": dropout})


def train(*arguments, processes: int = 2, **changes) -> tuple[list[int], str]:
    order = asked(*arguments, **changes)
    return finish(start("tiny_worker.py", order, processes=processes))


def lines(folder: Path, file: str = "train") -> list[dict]:
    path = folder / f"{file}.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def learnt(folder: Path, file: str = "train") -> list[tuple]:
    """What must repeat: every number that does not depend on the clock."""
    keys = ("step", "samples", "loss", "ce/ar", "ce/nar", "lr", "grad_norm", "skipped")
    return [tuple(line.get(key) for key in keys) for line in lines(folder, file)]


def children(pid: int) -> list[int]:
    """Processes that were started by this one and are there."""
    listed = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [int(child) for child in listed]


def tensors(value) -> list[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        return [value]
    if isinstance(value, dict):
        value = [value[key] for key in sorted(value, key=str)]
    if isinstance(value, list | tuple):
        return [tensor for item in value for tensor in tensors(item)]
    return []


def same_state(a: Path, b: Path) -> bool:
    """Every tensor of two checkpoints: weights, Adam's moments, random states, of all ranks."""
    files = sorted(path.relative_to(a) for path in a.rglob("*.pt"))
    assert files, a
    for file in files:
        pairs = [tensors(torch.load(root / file, weights_only=False)) for root in (a, b)]
        if not all(map(torch.equal, *pairs)) or len(pairs[0]) != len(pairs[1]):
            return False
    return True


LAST = "rank-00001.pt"  # what stage 0 has of rank 1
STAGES = [  # 2, 3, 0, 1
    "cpu_fp32.json",
    *(
        pytest.param(name, marks=pytest.mark.long)
        for name in ("zero3_bf16.json", "zero0_fp32.json", "zero1_bf16.json")
    ),
]


@pytest.fixture(scope="module", params=STAGES)
def uninterrupted(request, tmp_path_factory) -> tuple[Path, str]:
    folder = tmp_path_factory.mktemp("whole") / "run"
    codes, said = train(folder, request.param)
    assert codes == [0, 0], said
    # Neither DeepSpeed nor gloo nor torch may print among our lines.
    known = ("validation at", "step ", "saved ", "done: ")
    assert [line for line in said.splitlines() if line and not line.startswith(known)] == []
    return folder, request.param


def test_a_run_killed_in_the_middle_ends_bit_for_bit_like_an_uninterrupted_one(
    uninterrupted, tmp_path
):
    whole, config = uninterrupted
    folder = tmp_path / "run"
    saved = folder / "checkpoints"
    group = start("tiny_worker.py", asked(folder, config, {"pause": 0.3}))
    wait_until(lambda: len(lines(folder)) >= 7 and (saved / "step-00000006").exists())
    group[1].send_signal(signal.SIGKILL)
    codes, said = finish(group, 120)
    assert codes[1] == -signal.SIGKILL
    assert codes[0] != 0, "rank 0 must not think that it finished"
    assert not (folder / "done").exists()
    # As if the kill had come while step 9 was being written: rank 1's shard is cut short.
    shutil.rmtree(saved / "step-00000009", ignore_errors=True)
    shutil.copytree(saved / "step-00000006", saved / "step-00000009")
    manifest = saved / "step-00000009" / "manifest.json"
    manifest.write_text(sealed.document(sealed.read(manifest) | {"step": 9}))
    shard = next((saved / "step-00000009").rglob("*_rank_1_*optim*"), manifest.parent / LAST)
    os.truncate(shard, shard.stat().st_size // 2)
    (saved / ".saving-step-00000012").mkdir()

    codes, said = train(folder, config)
    assert codes == [0, 0], said
    assert "skipped: .saving-step-00000012 is not complete: its writing was never finished" in said
    assert f"skipped: step-00000009 is not complete: {shard.name} has " in said
    assert "going on from step-00000006, after 48 samples" in said
    assert learnt(folder) == learnt(whole)
    assert learnt(folder, "valid") == learnt(whole, "valid")
    for name in ("step-00000009", "step-00000010"):
        assert same_state(saved / name, whole / "checkpoints" / name)
    mine, theirs = (load_file(f / "export" / "model.safetensors") for f in (folder, whole))
    assert all(torch.equal(mine[name], theirs[name]) for name in theirs)


@pytest.mark.long
@pytest.mark.parametrize("uninterrupted", ["cpu_fp32.json"], indirect=True)
def test_kills_while_a_checkpoint_is_written_beside_training_cost_nothing_but_time(
    uninterrupted, tmp_path
):
    whole, config = uninterrupted
    folder = tmp_path / "run"
    saved = folder / "checkpoints"
    for die, kept in (
        ((1, ".saving-step-00000003/rank-00001.pt"), None),  # its thread, at the first save
        ((0, ".saving-step-00000003/manifest.json"), None),  # all is written, nothing published
        ((0, "checkpoints/newest"), 3),  # renamed, the pointer not yet
        ((1, ".saving-step-00000006/state"), 3),  # its thread, with a checkpoint before it
    ):
        codes, said = train(folder, config, die=die)
        assert codes[die[0]] == -signal.SIGKILL, (die, said)
        assert codes[1 - die[0]] != 0
        there = sorted(path.name for path in saved.glob("step-*"))
        assert there == ([f"step-0000000{kept}"] if kept else []), die
    codes, said = train(folder, config)
    assert codes == [0, 0], said
    assert "going on from step-00000003, after 24 samples" in said
    assert learnt(folder) == learnt(whole)
    assert same_state(saved / "step-00000010", whole / "checkpoints" / "step-00000010")


@pytest.mark.long
@pytest.mark.parametrize("config", ["cpu_fp32.json", "cpu_zero3_fp32.json"])
def test_other_numbers_of_processes_learn_the_same_from_the_same_samples(tmp_path, config):
    order = {"dropout": 0.0, "save_every": 100}
    codes, said = train(tmp_path / "one", config, processes=1, steps=12, **order)
    assert codes == [0], said
    folder = tmp_path / "many"
    for steps, processes in ((3, 1), (6, 2), (9, 4), (12, 2)):
        codes, said = train(folder, config, processes=processes, steps=steps, **order)
        assert codes == [0] * processes, said
    one, many = lines(tmp_path / "one"), lines(folder)
    assert [line["samples"] for line in many] == [8 * step for step in range(1, 13)]
    for key in ("loss", "ce/ar", "ce/nar"):
        expected = [line[key] for line in one]
        assert [line[key] for line in many] == pytest.approx(expected, rel=1e-6, abs=0), key
    valid = [lines(f, "valid")[-1]["loss"] for f in (tmp_path / "one", folder)]
    assert valid[1] == pytest.approx(valid[0], rel=1e-6, abs=0)


def test_what_a_run_leaves_behind_is_complete(uninterrupted):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    folder, _ = uninterrupted
    assert [line["step"] for line in lines(folder, "valid")] == [0, 5, 10]
    first, last = (lines(folder, "valid")[i]["ce/ar"] for i in (0, -1))
    assert last < 0.7 * first
    assert json.loads((folder / "done").read_text())["step"] == 10
    events = EventAccumulator(str(folder / "board"))
    events.Reload()
    tags = set(events.Tags()["scalars"])
    assert {"loss", "ce/ar", "ce/nar", "lr", "grad_norm", "tokens_per_second", "mfu"} <= tags
    assert {"data_wait", "memory_gb", "skipped"} <= tags
    valid = EventAccumulator(str(folder / "board" / "valid"))
    valid.Reload()
    assert set(valid.Tags()["scalars"]) == {"loss", "ce/ar", "ce/nar"}
    texts = {"config/text_summary", "samples/text_summary"}
    assert set(events.Tags()["tensors"]) == texts | {"custom_scalars__config__"}
    assert {e.step for e in events.Tensors("samples/text_summary")} == {5, 10}


@pytest.mark.parametrize("uninterrupted", ["cpu_fp32.json"], indirect=True)  # once is enough
def test_sigterm_to_one_rank_saves_on_all_of_them(uninterrupted, tmp_path):
    whole, config = uninterrupted
    folder = tmp_path / "run"
    group = start("tiny_worker.py", asked(folder, config, {"pause": 0.1}, workers=1))
    wait_until(lambda: len(lines(folder)) >= 4)
    # As a scheduler does it: the processes that pack get it as well, and must not mind.
    packing = children(group[1].pid)
    assert len(packing) == 1
    for process in (*packing, group[1].pid):
        os.kill(process, signal.SIGTERM)
    codes, said = finish(group, 120)
    assert codes == [85, 85], said
    assert "stopped by a signal to another rank and saved; start the same command" in said
    stopped = lines(folder)[-1]["step"]
    assert (folder / "checkpoints" / "newest").read_text() == f"step-{stopped:08d}\n"
    assert 4 <= stopped < 10
    assert learnt(folder) == learnt(whole)[:stopped]


def test_one_process_goes_on_where_two_stopped(uninterrupted, tmp_path):
    whole, config = uninterrupted
    folder = tmp_path / "run"
    shutil.copytree(whole, folder)
    codes, said = train(folder, config, processes=1, steps=12, save="sync")
    assert codes == [0], said
    assert "it was written by 2 processes, now: 1" in said
    assert "going on from step-00000010, after 80 samples" in said
    assert learnt(folder)[:10] == learnt(whole)
    assert [line["samples"] for line in lines(folder)[10:]] == [88, 96]
    assert lines(folder, "valid")[-1]["loss"] < 1.1 * lines(whole, "valid")[-1]["loss"]
    assert not list((folder / "checkpoints").glob(".universal*"))


@pytest.fixture
def small_disk(tmp_path):
    """A real file system with room for about one and a half checkpoints."""
    with launching.small_disk(tmp_path, 170) as disk:
        yield disk


def test_a_full_disk_stops_the_run_with_its_last_checkpoint_untouched(small_disk):
    codes, said = train(small_disk / "run")
    assert codes == [2, 2], said
    checkpoints = small_disk / "run" / "checkpoints"
    refused = next(line for line in said.splitlines() if line.startswith("refused: "))
    assert re.search(r"saved \(it takes [\d,]+ bytes, as the last one, and [\d,]+ are fr", refused)
    assert "); the last complete checkpoint" in refused
    kept = (checkpoints / "newest").read_text().strip()
    assert f"{checkpoints / kept}, is untouched" in refused
    assert newest(checkpoints)[0].folder.name == kept


def test_a_failure_on_one_rank_does_not_leave_the_other_waiting(tmp_path):
    codes, said = train(tmp_path / "run", work={"broken": 30})
    assert codes[0] != 0
    assert codes[1] != 0
    assert "OSError: the shard is gone" in said


def test_a_loss_that_stays_infinite_is_skipped_counted_and_then_refused(tmp_path):
    codes, said = train(tmp_path / "run", work={"spoilt": 40}, bad_steps=3, processes=1)
    assert codes == [2], said
    assert lines(tmp_path / "run")[-1]["skipped"] == 3
    assert (
        f"refused: {tmp_path / 'run'}: the loss or its gradient was not finite 3 times in a row, "
        "up to step 8: lower optimizer.lr, lengthen schedule.warmup or lower train.clip; the "
        f"newest checkpoint from before that is {tmp_path / 'run' / 'checkpoints'}/step-00000003, "
        "checked now and whole; januslm replay "
    ) in said
