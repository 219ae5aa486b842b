"""A disk that takes no more, and what a kill left half done: said, counted, made up for."""

import os
import shutil
import subprocess
from contextlib import suppress

import pytest
from safetensors.torch import load_file

from januslm.data import sealed
from januslm.training import history
from januslm.training.log import Log
from januslm.training.run_dir import cleared, exported, exported_step
from tests import launching
from tests.launching import finish
from tests.ranks import laid, started
from tests.tiny_run import started as launched

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return laid(tmp_path_factory.mktemp("disk"))


@pytest.fixture
def small(tmp_path):
    """A real file system of 64 kB."""
    with launching.small_disk(tmp_path, 64, lazy=True) as disk:
        yield disk


def fill(disk) -> None:
    with open(disk / "filler", "wb", buffering=0) as file, suppress(OSError):
        while True:
            file.write(bytes(512))


def test_lines_that_a_full_disk_does_not_take_are_said_once_and_counted(small, capsys):
    log = Log(small)
    log.record("train", step=1, text="x" * 3000)
    fill(small)
    for step in range(2, 12):
        log.record("train", step=step, text="x" * 3000)
    (small / "filler").unlink()
    log.record("train", step=12)
    log.record("train", step=13)
    first, second = capsys.readouterr().out.splitlines()
    assert first.startswith("train.jsonl could not be written (No space left on device); training")
    assert "train.jsonl can be written again; " in second
    assert second.endswith(f"{int(second.split('; ')[1].split()[0])} entries before are lost")
    whole = [table["step"] for _, table in sealed.lines(small / "train.jsonl") if table]
    assert whole[0] == 1
    assert whole[-1] == 13
    assert log.rewind("train", 20)[0] == 0
    assert all(table for _, table in sealed.lines(small / "train.jsonl"))


def test_curves_and_exports_that_do_not_fit_do_not_end_a_run(base, small):
    """The run's logs and checkpoints lie elsewhere: links, as people make them to scratch disks."""
    out = base / "links"
    out.mkdir()
    for name in ("board", "exports"):
        (small / name).mkdir()
        (out / name).symlink_to(small / name)
    fill(small)
    words = (f"out={out}", "train.exports=1", "train.steps=6", "train.log_every=1")
    codes, said = finish(started(base, *words, processes=1))
    assert said.count("board could not be written (") == 1, said
    assert said.count("export could not be written (") == 1
    assert "Traceback" not in said
    # The last export must be there for a run to be done: the same command makes up for it.
    assert codes == [2], said
    assert "No space left on device" in said.splitlines()[-1]
    steps = [table["step"] for _, table in sealed.lines(out / "train.jsonl")]
    assert steps == [1, 2, 3, 4, 5, 6]
    (small / "filler").unlink()
    subprocess.run(["mount", "-o", "remount,size=8m", str(small)], check=True)
    codes, said = finish(started(base, *words, processes=1))
    assert codes == [0], said
    assert "the export of step 6 is missing, it is made up for" in said
    assert [path.name for path in (small / "exports").glob("step-*")] == ["step-00000006"]


def test_a_read_only_disk_is_refused_before_anything_starts(base, small):
    subprocess.run(["mount", "-o", "remount,ro", str(small)], check=True)
    said = launched(base, "pretrain", "run.toml", f"out={small / 'run'}").communicate(timeout=60)
    assert said[0].startswith(f"error: {small / 'run'}: cannot be written, {small} ")
    assert said[0].count("\n") == 1, said[0]


def test_an_export_that_a_kill_left_out_is_made_up_for_with_its_own_weights(base):
    words = (f"out={base / 'killed'}", "train.export=save", "train.steps=3")
    codes, said = finish(started(base, *words, processes=1))
    assert codes == [0], said
    out = base / "killed"
    whole = load_file(out / "export" / "model.safetensors")
    # As after a kill between the last checkpoint and its export, while one was being put in place.
    (out / "done").unlink()
    (out / "exported").unlink()
    shutil.rmtree(out / "export")
    for left in (".export-new", "checkpoints/.universal-step-00000003", "checkpoints/.saving-x"):
        (out / left).mkdir()
    more = "train.steps=4"
    codes, said = finish(started(base, *words[:2], more, "train.save_every=9", processes=1))
    assert codes == [0], said
    assert "the export of step 3 is missing, it is made up for" in said
    line = next(line for line in said.splitlines() if line.startswith("removed what was left"))
    for name in (".export-new", ".universal-step-00000003", ".saving-x"):
        assert name in line
    assert not [path for path in out.rglob(".*") if path.is_dir()]
    again = load_file(out / "export" / "model.safetensors")
    assert whole.keys() == again.keys()
    assert exported_step(out) == 4
    assert [e["event"] for e in history.read(out)][-1] == "stop"


def test_an_export_that_was_being_replaced_is_brought_back(tmp_path):
    exported(tmp_path, 1, 0, None, lambda module, place: (place / "model").write_text("one"))
    os.rename(tmp_path / "export", tmp_path / ".export-old")
    (tmp_path / ".export-new").mkdir()
    assert cleared(tmp_path) == [".export-new"]
    assert (tmp_path / "export" / "model").read_text() == "one"
