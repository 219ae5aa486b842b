"""What would break: a half-written checkpoint that is loaded, a good one that is lost."""

import functools
import json
import os
import resource
import signal
import subprocess
import time

import pytest
import torch

from januslm.training.checkpoint import NotSaved, Saving, newest, rng_state, set_rng_state

tensors = {"weights": torch.arange(3000.0)}


def save(root, step: int, keep: int = 9):
    saving = Saving(root, step)
    for file in ("state/a.pt", "rank-00000.pt"):
        saving.write(saving.path / file, functools.partial(torch.save, tensors))
    return saving.publish({"samples": step * 8}, keep)


def test_the_newest_is_found_and_named_by_the_pointer(tmp_path):
    for step in (9, 100, 20):
        save(tmp_path, step)
    found, skipped = newest(tmp_path)
    assert (found.step, skipped) == (20, [])  # a later save at a lower step means a resumed run
    assert (tmp_path / "newest").read_text() == "step-00000020\n"
    loaded = torch.load(found.folder / "state" / "a.pt", weights_only=True)
    assert torch.equal(loaded["weights"], tensors["weights"])


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
    lambda folder: (folder / "manifest.json").write_text("{"): "its manifest.json cannot be read",
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


def test_saving_again_replaces_what_was_damaged_and_drops_what_came_after(tmp_path):
    save(tmp_path, 10)
    cut(save(tmp_path, 20))
    cut(save(tmp_path, 30))
    save(tmp_path, 20, keep=1)
    assert sorted(os.listdir(tmp_path)) == ["newest", "step-00000020"]
    assert newest(tmp_path)[0].step == 20


def test_only_the_last_few_stay(tmp_path):
    for step in range(1, 6):
        save(tmp_path, step, keep=2)
    assert sorted(os.listdir(tmp_path)) == ["newest", "step-00000004", "step-00000005"]


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
    save(small_disk, 10)
    (small_disk / "filler").write_bytes(b"x" * 85_000)
    with pytest.raises(NotSaved, match=r"No space left on device\); the last complete .*10, is"):
        save(small_disk, 20)
    assert newest(small_disk)[0].step == 10


@pytest.fixture
def small_disk(tmp_path):
    """A real file system with room for 128 KiB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=128k", "tmpfs", str(disk)]
    mounted = subprocess.run(command, capture_output=True, text=True, check=False)
    if mounted.returncode:
        pytest.skip(f"a small file system cannot be mounted here: {mounted.stderr.strip()}")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


@pytest.mark.slow
def test_a_kill_at_any_moment_leaves_a_complete_checkpoint(tmp_path):
    save(tmp_path, 1)
    kills, found = 0, newest(tmp_path)[0]
    while kills < 40 or found.step < 40:  # a slow machine may need more kills to get anywhere
        child = os.fork()
        if child == 0:
            step = found.step
            while True:
                step += 1
                save(tmp_path, step, keep=2)
        time.sleep(0.005 + 0.001 * (kills % 40))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        before, kills = found.step, kills + 1
        found, _ = newest(tmp_path)
        assert found.step >= before
        manifest = json.loads((found.folder / "manifest.json").read_text())
        assert manifest["samples"] == found.step * 8


def test_random_numbers_go_on_where_they_were(tmp_path):
    torch.rand(3)
    state = rng_state()
    expected = torch.rand(5)
    torch.save(state, tmp_path / "x.pt")
    set_rng_state(torch.load(tmp_path / "x.pt", weights_only=True))
    assert torch.equal(torch.rand(5), expected)
