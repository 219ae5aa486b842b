"""januslm slurm: its batch script, by itself and in a Slurm of one node."""

import os
import shutil
import socket
import subprocess

import pytest

from tests.launching import wait_until
from tests.tiny_run import ENDLESS, built, started, updates

pytestmark = [pytest.mark.slow, pytest.mark.long]
PLACES = os.environ["PATH"] + ":/usr/sbin"
MISSING = [n for n in ("slurmctld", "slurmd", "sbatch") if not shutil.which(n, path=PLACES)]
needs_slurm = [
    pytest.mark.skipif(bool(MISSING), reason=f"{', '.join(MISSING)} not installed"),
    pytest.mark.skipif(os.geteuid() != 0, reason="slurmd runs as root"),
]
ASKED = ("--nodes", 1, "--tasks", 2, "--time", "00:10:00")
CONFIG = """
ClusterName=test
SlurmctldHost={name}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
AuthType=auth/none
CredType=cred/none
SlurmUser=root
StateSaveLocation={place}/state
SlurmdSpoolDir={place}/spool
SlurmctldPidFile={place}/slurmctld.pid
SlurmdPidFile={place}/slurmd.pid
ProctrackType=proctrack/pgid
TaskPlugin=task/none
MpiDefault=none
ReturnToService=2
KillWait=10
NodeName={name} NodeAddr=127.0.0.1 CPUs=2 State=UNKNOWN
PartitionName=main Nodes={name} Default=YES MaxTime=INFINITE State=UP
"""


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """A corpus and a run file of a tiny model."""
    return built(tmp_path_factory.mktemp("slurm"))


def script(base, *words, code: int = 0) -> str:
    """What januslm slurm says."""
    run = started(base, "slurm", "run.toml", *words)
    said, _ = run.communicate(timeout=60)
    assert run.returncode == code, said
    return said


def test_the_script_starts_the_run_as_it_was_typed_and_queues_it_again_after_85(base, tmp_path):
    """With scripts in the place of srun and scontrol, which note what they are asked."""
    name = """it's "$(id)" out"""
    text = script(base, f'out="""{name}"""', *ASKED, "--partition", "main", "--qos=high")
    for line in ("nodes=1", "ntasks-per-node=2", "signal=USR1@300", "partition=main", "qos=high"):
        assert f"#SBATCH --{line}\n" in text
    note = f'#!/bin/bash\nprintf "%s\\0" "$0" "$@" >>{tmp_path}/asked\n'
    (tmp_path / "srun").write_text(note + "exit $CODE\n")
    (tmp_path / "scontrol").write_text(note + "echo first\n")
    for program in ("srun", "scontrol"):
        (tmp_path / program).chmod(0o755)
    own = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "SLURM_JOB_ID": "7"}
    for code, requeued in ((85, True), (1, False), (0, False)):
        (tmp_path / "asked").unlink(missing_ok=True)
        names = os.environ | own | {"SLURM_JOB_NODELIST": "first", "CODE": str(code)}
        done = subprocess.run(["bash"], input=text, text=True, env=names, cwd=tmp_path, timeout=20)
        assert done.returncode == code
        asked = (tmp_path / "asked").read_text().split("\0")
        assert f'out="""{name}"""' in asked
        assert (asked[-4:-1] == [str(tmp_path / "scontrol"), "requeue", "7"]) == requeued


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((*ASKED, "--partition", "a b"), "--partition 'a b' is no value for sbatch"),
        ((*ASKED, "--qos", "a\n#SBATCH --uid=0"), "is no value for sbatch"),
        (("--nodes", 1, "--tasks", 2, "--time", "soon"), "--time must be [DAYS-]HOURS"),
        (("--nodes", 0, "--tasks", 2, "--time", "1:00:00"), "--nodes must be a whole number"),
        (("--nodes", 1, "--time", "1:00:00"), "either --gpus N or --tasks N"),
        ((*ASKED, "train.stepz=3"), "unknown key 'stepz'"),
    ],
)
def test_a_mistake_is_refused_before_there_is_a_job(base, words, message):
    said = script(base, *words, code=2)
    assert message in said
    assert "#!/bin" not in said


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    """The environment of commands to a Slurm of one node, which is this machine."""
    place = tmp_path_factory.mktemp("cluster")
    for folder in ("state", "spool"):
        (place / folder).mkdir()
    with socket.socket() as one, socket.socket() as other:
        for end in (one, other):
            end.bind(("127.0.0.1", 0))
        ports = [end.getsockname()[1] for end in (one, other)]
    config, name = place / "slurm.conf", socket.gethostname()
    config.write_text(CONFIG.format(place=place, name=name, ports=ports))
    names = os.environ | {"SLURM_CONF": str(config), "PATH": PLACES}
    daemons = []
    try:
        for command in (("slurmctld", "-D"), ("slurmd", "-D", "-N", name)):
            with (place / f"{command[0]}.log").open("w") as log:
                daemons.append(
                    subprocess.Popen([*command, "-f", config], env=names, stdout=log, stderr=log)
                )
        ask = {"env": names, "capture_output": True, "text": True}
        wait_until(lambda: "idle" in subprocess.run(["sinfo"], check=False, **ask).stdout, 30)
        yield names
        subprocess.run(["scancel", "--user=root"], check=False, **ask)
        wait_until(lambda: not subprocess.run(["squeue", "-h"], check=False, **ask).stdout, 60)
    finally:
        for daemon in daemons:
            daemon.terminate()
            daemon.wait(timeout=20)


@pytest.fixture
def ask(cluster):
    """Runs a command of Slurm's and gives what it says."""
    return lambda *words: subprocess.run(
        words, env=cluster, capture_output=True, text=True, check=True
    ).stdout.strip()


@pytest.mark.usefixtures("cluster")
class TestInSlurm:
    """Two ranks, started by srun."""

    pytestmark = needs_slurm

    def test_stopped_before_its_time_is_over_it_queues_itself_again_and_goes_on(self, base, ask):
        out = base / "endless"
        words = (*ENDLESS, "train.log_every=1", f"out={out}", "-o", "job.sbatch")
        script(base, *words, *ASKED, f"--output={base}/log")
        job = ask("sbatch", "--parsable", f"--export=ALL,PATH={PLACES}", f"{base}/job.sbatch")
        wait_until(lambda: updates(out) > 0)
        assert "samples, 2 processes" in (base / "log").read_text()
        ask("scancel", "--signal=USR1", job)  # what Slurm does before the time is over
        wait_until(lambda: ask("squeue", "-h", "-j", job, "-o", "%T") == "PENDING")
        assert list((out / "checkpoints").glob("step-*"))
        before = updates(out)
        ask("scontrol", "update", f"JobId={job}", "StartTime=now")
        wait_until(lambda: updates(out) > before)
        assert "going on from step-" in (base / "log").read_text()
        ask("scancel", job)
        wait_until(lambda: not ask("squeue", "-h", "-j", job), 60)
        assert "JobState=CANCELLED" in ask("scontrol", "show", "job", job)
