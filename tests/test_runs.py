"""What would break: a run that is shown as what it is not, a good checkpoint that is removed."""

import json
import os
import pickle
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from januslm.config import Refused
from januslm.data import sealed, tokenizer
from januslm.runs.story import story_of
from januslm.training import history
from januslm.training.manifest import check, digest, name
from tests.conftest import ROOT
from tests.exports_worker import CASES
from tests.launching import finish, start

pytestmark = pytest.mark.slow


def janus(*words, code: int = 0) -> str:
    """What a verb prints: stdout, or its one line of error."""
    command = [sys.executable, "-m", "januslm.launch", *map(str, words)]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=120)
    assert done.returncode == code, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    return done.stderr if code == 2 else done.stdout


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """Four runs of two processes, one for each ZeRO stage."""
    root = tmp_path_factory.mktemp("runs")
    words = root / "tokenizer.json"
    tokenizer.train_tokenizer(["the lazy fox jumps over the dog"] * 9, 300, words)
    codes, said = finish(start("exports_worker.py", json.dumps([str(root), str(words)])))
    assert codes == [0, 0], said
    return root


@pytest.fixture
def runs(made, tmp_path) -> Path:
    """A copy to be spoilt."""
    shutil.copytree(made, tmp_path / "runs")
    return tmp_path / "runs"


MANY = """
import contextlib, io, json, sys
from januslm.runs.checkpoint import main
results = []
for words in json.loads(sys.argv[1]):
    out, err = io.StringIO(), io.StringIO()
    sys.argv = ["checkpoint", *words]
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main()
    results.append((code, out.getvalue(), err.getvalue()))
print(json.dumps(results))
"""


@pytest.fixture(scope="module")
def exported(made, tmp_path_factory) -> dict[str, tuple]:
    """Code, stdout and stderr of many exports in one process, which imports torch but once."""
    root = tmp_path_factory.mktemp("exported")
    shutil.copytree(made, root / "trapped")
    asked = {}
    for case in CASES:
        asked[case] = [made / case, root / case]
        trapped(root / "trapped" / case, root / "sprung")
        asked[f"{case} trapped"] = [root / "trapped" / case, root / "none"]
    asked["older"] = [made / "z1", root / "older", "--step", 1]
    asked["again"] = [made / "z1", root / "z1"]
    asked["no step"] = [made / "z1", root / "none", "--step", 7]
    words = json.dumps([["export", *map(str, each)] for each in asked.values()])
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", MANY, words]
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=True)
    results = json.loads(done.stdout.splitlines()[-1])
    return {"root": root, **dict(zip(asked, results, strict=True))}


@pytest.mark.parametrize("case", CASES)
def test_an_export_of_a_checkpoint_is_what_training_exports(made, exported, case):
    target, theirs = exported["root"] / case, made / case / "export"
    assert exported[case] == [0, f"wrote {target}: step 2 of {made / case}\n", ""]
    mine, trained = (load_file(f / "model.safetensors") for f in (target, theirs))
    assert mine.keys() == trained.keys()
    assert all(torch.equal(mine[key], trained[key]) for key in trained)
    for file in ("config.json", "tokenizer.json"):
        assert (target / file).read_bytes() == (theirs / file).read_bytes()


def test_an_export_of_an_older_step_has_other_weights_and_what_cannot_be_is_named(made, exported):
    root = exported["root"]
    assert exported["older"][0] == 0
    mine, last = (load_file(f / "model.safetensors") for f in (root / "older", root / "z1"))
    assert any(not torch.equal(mine[key], last[key]) for key in last)
    there = f"error: {root / 'z1'}: is there already; name a folder that is not\n"
    assert exported["again"] == [2, "", there]
    none = f"error: {made / 'z1' / 'checkpoints'}: no step-00000007; "
    assert exported["no step"] == [2, "", none + "there are step-00000002, step-00000001\n"]
    assert "no run: no config.json" in janus("checkpoint", "ls", root, code=2)


def test_runs_are_listed_with_their_state(runs):
    (runs / "z1" / "done").write_text(sealed.document({"step": 3, "loss": 1.0}))
    history.add(runs / "z2", "start", step=2, world=2)
    (runs / "z3" / "history.jsonl").unlink()
    table = janus("runs", runs).splitlines()
    assert (
        table[0].split()
        == "run state step loss valid checkpoint size since".replace("valid ", "").split()
    )
    states = {line.split()[0]: line.split()[1] for line in table[2:]}
    assert states == {"z0": "stopped", "z1": "done", "z2": "failed", "z3": "stopped"}
    row = table[2].split()
    loss = story_of(runs / "z0").train["loss"]
    assert row[2:7] == ["2", "of", "3", f"{loss:.4f}", "2"]
    assert janus("runs", runs / "z0" / "export") == f"no run below {runs / 'z0' / 'export'}\n"
    assert janus("runs", runs / "no", code=2).startswith(f"error: {runs / 'no'}: no such folder")


def test_a_run_that_trains_says_who_has_it_and_its_checkpoints_stay(runs):
    hold = "import sys, time; from januslm.training.run_lock import RunLock\n"
    hold += "RunLock(sys.argv[1]).take(); print('held', flush=True); time.sleep(99)"
    command = [sys.executable, "-c", hold, str(runs / "z0")]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(command, env=env, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout.readline() == "held\n"
            assert f":{process.pid}" in janus("runs", runs).splitlines()[2]
            assert janus("runs", "show", runs / "z0").startswith(f"{runs / 'z0'}: training since")
            for dry in ([], ["--dry-run"]):
                said = janus("checkpoint", "prune", runs / "z0", "--keep", 1, *dry, code=2)
                assert f"is being trained in by process {process.pid} of" in said
        finally:
            process.kill()
    assert len(list((runs / "z0" / "checkpoints").glob("step-*"))) == 2
    assert story_of(runs / "z0").state == "stopped"


def test_the_story_of_a_run_has_its_configuration_its_history_and_what_is_damaged(runs):
    run = runs / "z3"
    history.add(run, "skipped", step=2, samples=[8, 15])
    cut(run, 1, "manifest.json")
    with open(run / "history.jsonl", "a") as file:
        file.write("{half")
    said = janus("runs", "show", run)
    year = time.strftime("%Y")
    assert f"{run}: stopped since {year}-" in said.splitlines()[0]
    assert f"  damaged: {run / 'history.jsonl'}: damaged lines: 1" in said
    assert "\n  model.width = 16\n" in said
    assert "start: step 0, world 2, versions.torch 'x'" in said
    assert "stop: step 2, code 85, reason 'SIGTERM'" in said
    assert "skipped: step 2, samples [8, 15]" in said
    assert "  step-00000002: " in said
    assert "2 processes, ZeRO stage 3 in bf16" in said
    assert "  step-00000001: manifest.json: not a JSON file" in said


def cut(run: Path, step: int, file: str) -> Path:
    path = next((run / "checkpoints" / name(step)).rglob(file))
    os.truncate(path, path.stat().st_size // 2)
    return path


def test_verify_names_the_damaged_one_and_its_exit_code_is_one(runs):
    said = janus("checkpoint", "verify", runs / "z2").splitlines()
    assert [line.split(",")[0] for line in said] == [f"{name(s)}: whole" for s in (2, 1)]
    file = cut(runs / "z2", 2, "*rank_1*optim*")
    said = janus("checkpoint", "verify", runs / "z2", code=1).splitlines()
    assert said[0].startswith(f"step-00000002: {file.name} has ")
    assert said[1].startswith("step-00000001: whole, ")
    listed = janus("checkpoint", "ls", runs / "z2").splitlines()
    assert listed[2].split()[0] == "step-00000002"
    assert listed[2].split()[3:] == ["2", "2", "bf16", "8"]


def test_prune_keeps_the_newest_whole_one_and_every_damaged_one(runs):
    run = runs / "z0"
    root = run / "checkpoints"
    would = janus("checkpoint", "prune", run, "--keep", 1, "--dry-run")
    assert would.startswith("would remove step-00000001, ")
    cut(run, 2, "*.pt")
    said = janus("checkpoint", "prune", run, "--keep", 1)
    assert said.startswith("step-00000002 stays: ")
    assert check(root / name(1)).step == 1, "the newest whole one"
    assert "--keep must be at least 1" in janus("checkpoint", "prune", run, "--keep", 0, code=2)
    janus("checkpoint", "prune", runs / "z1", "--keep", 1)
    assert sorted(os.listdir(runs / "z1" / "checkpoints")) == ["newest", name(2)]


class Trap:
    """A pickle that makes a file when it is unpickled."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


def trapped(run: Path, sprung: Path) -> None:
    """A whole checkpoint, its hashes right, one file of which is a trap."""
    folder = run / "checkpoints" / name(2)
    path = next(folder.rglob("*model_states.pt"))
    state = torch.load(path, weights_only=True)
    torch.save(state | {"trap": Trap(sprung)}, path)
    table = sealed.read(folder / "manifest.json")
    table["files"][str(path.relative_to(folder))] = {
        "bytes": path.stat().st_size,
        "xxh3": digest(path),
    }
    (folder / "manifest.json").write_text(json.dumps(sealed.sealed(table)))
    assert check(folder).step == 2


@pytest.mark.parametrize("case", CASES)
def test_a_pickle_from_elsewhere_is_not_run(exported, case):
    root = exported["root"]
    code, out, said = exported[f"{case} trapped"]
    assert (code, out) == (2, "")
    assert said.startswith(f"error: {root / 'trapped' / case / 'checkpoints' / name(2)}/state/")
    assert said.endswith("_model_states.pt: holds io.open, which is not unpickled\n")
    assert not (root / "sprung").exists()
    assert not (root / "none").exists()


def test_the_trap_is_one(tmp_path):
    pickle.loads(pickle.dumps(Trap(tmp_path / "sprung")))
    assert (tmp_path / "sprung").exists()


def test_a_folder_that_is_no_run_is_refused(tmp_path):
    with pytest.raises(Refused, match=r"no run: no config\.json"):
        story_of(tmp_path)
