"""What would break: a half-written checkpoint that is loaded, a good one that is lost."""

import json
import os
import re
import resource
import shutil
import signal
import sys
import time

import pytest
import torch

from januslm.config import Refused
from januslm.data import sealed
from januslm.training.checkpoint import NotSaved, Saving, Shelf, newest, rng_state, set_rng_state
from januslm.training.manifest import Keep, check, readable
from tests import launching

tensors = {"weights": torch.arange(3000.0)}


def save(root, step: int, keep: int = 9, every: int = 0, beside: bool = False):
    saving = Saving(Shelf(root, Keep(keep, every)), step, beside=beside)
    for file in ("state/a.pt", "rank-00000.pt"):
        saving.write(saving.path / file, tensors)
    saving.start({"samples": step * 8})
    return saving.publish()[0]


def test_the_newest_is_found_and_named_by_the_pointer(tmp_path):
    for step in (9, 100, 20):
        save(tmp_path, step)
    found, skipped = newest(tmp_path)
    assert (found.step, skipped) == (20, [])  # a later save at a lower step means a resumed run
    assert (tmp_path / "newest").read_text() == "step-00000020\n"
    loaded = torch.load(found.folder / "state" / "a.pt", weights_only=True)
    assert torch.equal(loaded["weights"], tensors["weights"])


def test_training_need_not_wait_for_what_is_pruned(tmp_path):
    shelf = Shelf(tmp_path, Keep(1))
    for step in (1, 2):
        saving = Saving(shelf, step, beside=True)
        saving.write(saving.path / "state/a.pt", {"zeros": torch.zeros(1 << 22)})
        saving.start({"samples": step * 8})
        saving.publish(wait=False)
        assert [found.step for found in readable(tmp_path)] == [step]
    shelf.finish()
    assert sorted(os.listdir(tmp_path)) == ["newest", "step-00000002"]


def test_an_empty_folder_has_no_checkpoint(tmp_path):
    assert newest(tmp_path / "nowhere") == (None, [])


def cut(folder):
    with open(folder / "state" / "a.pt", "r+b") as file:
        file.truncate(100)


def flip(folder):
    path = folder / "state" / "a.pt"
    data = bytearray(path.read_bytes())
    data[5000] ^= 1
    path.write_bytes(data)


damages = {
    cut: "a.pt has 100 bytes, the manifest says 13,",
    flip: "a.pt does not match its hash",
    lambda folder: (folder / "rank-00000.pt").unlink(): "rank-00000.pt is missing",
    lambda folder: (folder / "manifest.json").unlink(): "it has no manifest.json",
    lambda folder: (folder / "manifest.json").write_text("{"): "manifest.json: not a JSON file",
    lambda folder: folder.rename(folder.with_name(".saving-" + folder.name)): (
        "its writing was never finished"
    ),
}


@pytest.mark.parametrize("damage", damages, ids=list(damages.values()))
def test_a_damaged_newest_is_skipped_and_says_why(tmp_path, damage):
    save(tmp_path, 10)
    damage(save(tmp_path, 20))
    found, skipped = newest(tmp_path)
    assert found.step == 10
    assert len(skipped) == 1
    assert damages[damage] in skipped[0]
    assert "step-00000020 is not complete: " in skipped[0]


@pytest.mark.slow
def test_no_flipped_bit_of_a_manifest_is_believed_or_ends_in_a_traceback(tmp_path):
    folder = save(tmp_path, 20)
    path, known = folder / "manifest.json", check(folder).manifest
    text = path.read_bytes()
    for bit in range(len(text) * 8):
        flipped = bytearray(text)
        flipped[bit // 8] ^= 1 << bit % 8
        path.write_bytes(flipped)
        try:
            said = "" if check(folder).manifest == known else "believed"
        except Refused as error:
            said = str(error)
        # 1e-05 and 1E-05 are the same number.
        assert not said or said.startswith("manifest.json: "), bit
    assert newest(tmp_path)[1][0].startswith("step-00000020 is not complete: manifest.json: ")


def forged(folder, **changes):
    path = folder / "manifest.json"
    path.write_text(json.dumps(sealed.sealed(sealed.read(path) | changes)))


def planted(folder):
    (folder / "state" / "b.pt").write_bytes(b"")


def elsewhere(folder):
    (folder / "rank-00000.pt").rename(folder.parent / "x.pt")
    (folder / "rank-00000.pt").symlink_to(folder.parent / "x.pt")


def piped(folder):
    (folder / "rank-00000.pt").unlink()
    os.mkfifo(folder / "rank-00000.pt")


FACTS = {"bytes": 1, "xxh3": "0"}
forgeries = {
    lambda folder: forged(folder, files={"../step-00000010/state/a.pt": FACTS}): "none of ours",
    lambda folder: forged(folder, files={"/etc/passwd": FACTS}): "manifest.json is none of ours",
    lambda folder: forged(folder, files=3): "manifest.json is none of ours",
    lambda folder: forged(folder, files={"state/a.pt": {}}): "manifest.json is none of ours",
    lambda folder: forged(folder, step="20"): "manifest.json is none of ours",
    lambda folder: forged(folder, step=10): "manifest.json is that of step 10",
    planted: "b.pt is no file of it",
    elsewhere: "rank-00000.pt is no file of it",
    piped: "rank-00000.pt is no file of it",
}


@pytest.mark.parametrize("forge", forgeries, ids=range(len(forgeries)))
def test_a_checkpoint_holds_what_its_manifest_names_and_nothing_else(tmp_path, forge):
    save(tmp_path, 10)
    forge(save(tmp_path, 20))
    found, [skipped] = newest(tmp_path)
    assert found.step == 10
    assert forgeries[forge] in skipped


def test_saving_again_replaces_what_was_damaged_and_keeps_other_damaged_ones(tmp_path):
    save(tmp_path, 10)
    cut(save(tmp_path, 20))
    cut(save(tmp_path, 30))
    save(tmp_path, 20, keep=1)
    assert sorted(os.listdir(tmp_path)) == ["newest", "step-00000020", "step-00000030"]
    found, [skipped] = newest(tmp_path)
    assert (found.step, found.damaged) == (20, {"step-00000030"})
    assert skipped.startswith("step-00000030 is not complete: a.pt has 100 bytes")


def test_only_the_last_few_whole_ones_stay_and_a_damaged_one_is_said_once(tmp_path):
    shelf = Shelf(tmp_path, Keep(2))
    notes = []
    for step in range(1, 8):
        saving = Saving(shelf, step)
        saving.write(saving.path / "state" / "a.pt", tensors)
        saving.start({"samples": step})
        folder, noted = saving.publish()
        notes += noted
        if step == 3:
            flip(folder)
            shelf = Shelf(tmp_path, Keep(2))  # another process, which has seen none of them
    assert sorted(os.listdir(tmp_path)) == ["newest", *(f"step-0000000{n}" for n in (3, 6, 7))]
    assert notes == ["step-00000003 is not complete and stays: a.pt does not match its hash"]


def test_every_nth_update_stays_for_good(tmp_path):
    for step in range(1, 12):
        save(tmp_path, step, keep=2, every=4)
    assert sorted(os.listdir(tmp_path)) == ["newest", *(f"step-{n:08d}" for n in (4, 8, 10, 11))]


@pytest.mark.slow
def test_a_copy_in_host_memory_is_the_same_file_and_its_memory_is_used_again(tmp_path):
    large = {"weights": torch.randn(5 << 20), "more": torch.arange(7)}  # more than a block
    for beside in (False, True):
        shelf = Shelf(tmp_path / str(beside), Keep(9))
        for step in (1, 2):
            saving = Saving(shelf, step, beside=beside)
            saving.write(saving.path / "state" / "a.pt", large)
            saving.start({"samples": step})
            large["more"] += int(beside)  # training goes on
            saving.publish()
            large["more"] -= int(beside)
            assert len(shelf.free) == 2 * beside
    direct, beside = (newest(tmp_path / str(b))[0] for b in (False, True))
    assert direct.manifest == beside.manifest


def test_a_disk_without_room_is_refused_before_anything_is_written(tmp_path):
    with pytest.raises(NotSaved) as error:
        Saving(Shelf(tmp_path, Keep(2)), 10, estimate=1 << 60)
    free = shutil.disk_usage(tmp_path).free
    said = re.fullmatch(
        rf"{tmp_path}/step-00000010 could not be saved \(it takes 1,152,921,504,606,846,976 bytes, "
        r"by the number of weights, and ([\d,]+) are free\); there was no checkpoint before it. "
        "Make room and start the same command again: the run goes on from there",
        str(error.value),
    )
    assert int(said[1].replace(",", "")) == pytest.approx(free, rel=0.5)
    assert os.listdir(tmp_path) == []


def test_a_failing_disk_leaves_the_last_checkpoint_and_says_so(tmp_path):
    save(tmp_path, 10)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (6000, before[1]))
    try:
        with pytest.raises(NotSaved) as error:
            save(tmp_path, 20)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert str(error.value) == (
        f"{tmp_path}/step-00000020 could not be saved (rank 0, a.pt: File too large); the last "
        f"complete checkpoint, {tmp_path}/step-00000010, is untouched. Make room and start the "
        "same command again: the run goes on from there"
    )
    assert sorted(os.listdir(tmp_path)) == ["newest", "step-00000010"]
    assert newest(tmp_path)[0].step == 10


@pytest.mark.slow
def test_a_full_disk_leaves_the_last_checkpoint_and_says_so(small_disk):
    last = newest_size(save(small_disk, 10))
    (small_disk / "filler").write_bytes(b"x" * 85_000)
    with pytest.raises(NotSaved, match=rf"\(it takes {last:,} bytes, as the last one, and "):
        save(small_disk, 20)
    assert newest(small_disk)[0].step == 10


@pytest.mark.slow
def test_a_disk_that_fills_up_while_a_thread_writes_leaves_the_last_checkpoint(small_disk):
    save(small_disk, 10)
    saving = Saving(Shelf(small_disk, Keep(9)), 20, beside=True)
    saving.write(saving.path / "state" / "a.pt", {"weights": torch.zeros(9000)})
    (small_disk / "filler").write_bytes(b"x" * 75_000)
    saving.start({"samples": 1})
    with pytest.raises(NotSaved, match=r"a.pt: No space left on device\); the last .*10, is"):
        saving.publish()
    assert newest(small_disk)[0].step == 10
    assert not list(small_disk.glob(".saving-*"))


def newest_size(folder) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*.pt"))


@pytest.fixture
def small_disk(tmp_path):
    """A real file system with room for 128 KiB."""
    with launching.small_disk(tmp_path, 128) as disk:
        yield disk


def killed_at(event_number: int, root, beside: bool) -> bool:
    """Save step 2 in a process that is killed at its n-th look at a file; whether it came to it."""
    child = os.fork()
    if child == 0:
        seen = 0

        def count(event: str, arguments: tuple) -> None:
            nonlocal seen
            if event in FILE_EVENTS and str(root) in str(arguments[0]):
                seen += 1
                if seen == event_number:
                    os.kill(os.getpid(), signal.SIGKILL)

        sys.addaudithook(count)
        save(root, 2, keep=1, beside=beside)
        os._exit(0)
    return os.waitpid(child, 0)[1] == signal.SIGKILL


FILE_EVENTS = {"open", "os.rename", "os.mkdir", "os.remove", "os.rmdir", "shutil.rmtree"}


@pytest.mark.slow
@pytest.mark.parametrize("beside", [False, True])
def test_a_kill_at_each_stage_of_saving_leaves_the_old_or_the_new_one(tmp_path, beside):
    left = []
    for number in range(1, 200):
        root = tmp_path / str(number)
        save(root, 1)
        if not killed_at(number, root, beside):
            break
        found, skipped = newest(root)
        left.append(found.step)
        assert all("writing was never finished" in line for line in skipped), skipped
        save(root, 3, keep=1)
        assert sorted(os.listdir(root)) == ["newest", "step-00000003"]
    assert left == sorted(left), "once it is there, it stays"
    assert left.count(1) > 10
    assert left.count(2) > 5


@pytest.mark.slow
def test_a_kill_at_any_moment_leaves_a_complete_checkpoint(tmp_path):
    save(tmp_path, 1)
    kills, found, patience = 0, newest(tmp_path)[0], 0.005
    while kills < 25 or found.step < 15:  # a slow machine may need more kills to get anywhere
        child = os.fork()
        if child == 0:
            step = found.step
            while True:
                step += 1
                save(tmp_path, step, keep=2)
        time.sleep(patience + 0.002 * (kills % 25))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        before, kills = found.step, kills + 1
        found, _ = newest(tmp_path)
        assert found.step >= before
        patience += 0.01 * (found.step == before)  # a slow disk
        manifest = json.loads((found.folder / "manifest.json").read_text())
        assert manifest["samples"] == found.step * 8


def test_random_numbers_go_on_where_they_were(tmp_path):
    torch.rand(3)
    state = rng_state()
    expected = torch.rand(5)
    torch.save(state, tmp_path / "x.pt")
    set_rng_state(torch.load(tmp_path / "x.pt", weights_only=True))
    assert torch.equal(torch.rand(5), expected)
