"""A run on two hosts, each with its own network, processes and temporary folder, joined by ssh."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from januslm.training.checkpoint import newest
from tests.conftest import ROOT
from tests.launching import wait_until
from tests.test_resume import learnt, same_state
from tests.tiny_run import ENDLESS, built, ranks, updates

PLACES = os.environ["PATH"] + ":/usr/sbin"
NEEDED = ("sshd", "ssh", "ip", "unshare", "nsenter")
MISSING = [
    name for name in NEEDED if not shutil.which(name, path=os.environ["PATH"] + ":/usr/sbin")
]
pytestmark = [
    pytest.mark.slow,
    pytest.mark.long,
    pytest.mark.skipif(os.geteuid() != 0, reason="makes network namespaces, which needs root"),
    pytest.mark.skipif(bool(MISSING), reason=f"{', '.join(MISSING)} not installed"),
]
LIMIT = 10  # seconds that an update may take
LOGIN = 2  # a host that is in no hostfile


@dataclass
class Hosts:
    """host0 and host1, on which runs are trained, and a third one to log in to."""

    state: Path
    base: Path  # the same folder on all; the file hosts in it has two of them, one slot each
    names: dict[str, str]  # variables of hosts.sh

    def start(self, host: int, *words, **variables: str) -> subprocess.Popen:
        """launch.sh on that host, as a user starts it in the shared folder."""
        command = ["bash", str(ROOT / "launch.sh"), *map(str, words)]
        usual = {"JANUSLM_PYTHON": sys.executable, "OMP_NUM_THREADS": "1"}
        return subprocess.Popen(
            self.inside(host, *command),
            env=os.environ | usual | variables,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def inside(self, host: int, *command: str) -> list[str]:
        """A command line that runs the command on that host."""
        pid = (self.state / f"pid{host}").read_text()
        return ["nsenter", "--all", "-t", pid, f"--wd={self.base}", *command]

    def cable(self, what: str, host: int) -> None:
        """cut or mend."""
        script = ["bash", str(ROOT / "tests" / "hosts.sh"), what, str(host)]
        subprocess.run(script, env=os.environ | self.names, check=True, timeout=20)

    def run(self, host: int, *command: str) -> None:
        subprocess.run(self.inside(host, *command), check=True, timeout=20)

    @contextmanager
    def other(self, host: int, path: Path, there: Path) -> Iterator[None]:
        """On one host, what lies at the first path is what lies at the second."""
        self.run(host, "mount", "--bind", str(there), str(path))
        try:
            yield
        finally:
            self.run(host, "umount", str(path))


@pytest.fixture(scope="module")
def hosts(tmp_path_factory):
    """Three hosts with a corpus and a run file in a folder that they share."""
    apart = ["unshare", "--net", "--mount", "--uts", "--pid", "--fork", "true"]
    may = subprocess.run(apart, capture_output=True, text=True, check=False)
    if may.returncode:  # root in a container that may not
        pytest.skip(f"no namespaces can be made here: {may.stderr.strip()}")
    shared = tmp_path_factory.mktemp("shared")
    base = built(shared)
    (base / "hosts").write_text("host0 slots=1\nhost1 slots=1\n")
    state = tmp_path_factory.mktemp("state")
    own = {"HOSTS": str(state), "NET": f"jt{os.getpid()}-"}
    names = os.environ | own
    script = str(ROOT / "tests" / "hosts.sh")
    folders = [str(shared)]
    if ROOT.is_relative_to("/tmp"):
        folders.append(str(ROOT))
    try:
        subprocess.run(["bash", script, "up", "3", *folders], env=names, check=True, timeout=60)
        yield Hosts(state, base, own)
    finally:
        subprocess.run(["bash", script, "down"], env=names, check=True, timeout=60)


def launcher(run: subprocess.Popen) -> int:
    """The process that nsenter started: signals to itself would not reach it."""
    return int(Path(f"/proc/{run.pid}/task/{run.pid}/children").read_text().split()[0])


def ended(run: subprocess.Popen, out: Path) -> tuple[int, str]:
    """Exit code and what was said; no rank of the run is left on any host."""
    said, _ = run.communicate(timeout=120)
    assert ranks(out) == {}, said
    return run.returncode, said


def training(hosts: Hosts, host: int, out: Path, *words, hostfile="hosts") -> subprocess.Popen:
    """A run without an end, once it has made an update more than before."""
    before = updates(out)
    words = ("pretrain", "run.toml", f"out={out}", "--hostfile", hostfile, *ENDLESS, *words)
    run = hosts.start(host, *words, "train.log_every=1")
    wait_until(lambda: updates(out) > before or run.poll() is not None)
    assert run.poll() is None, run.communicate()
    return run


def saved(out: Path) -> bool:
    return bool(list((out / "checkpoints").glob("step-*")))


def test_two_hosts_learn_what_two_ranks_of_one_learn_bit_for_bit(hosts):
    """Started from a third; quotes and dollars in an argument arrive as they were typed."""
    base = hosts.base
    apart, together = base / """it's "two" $(hostname)""", base / "one"
    words = ("pretrain", "run.toml", "packing.samples=0")
    first = hosts.start(LOGIN, *words, "--hostfile", "hosts", f'out="""{apart}"""')
    code, said = ended(first, apart)
    assert code == 0, said
    assert "done: step 4" in said
    second = hosts.start(0, *words, "--gpus", 2, f"out={together}")
    code, said = ended(second, together)
    assert code == 0, said
    assert learnt(apart) == learnt(together)
    checkpoints = [newest(out / "checkpoints")[0].folder for out in (apart, together)]
    assert same_state(*checkpoints)
    logs = [(apart / "logs" / f"rank-{rank:05d}.log").read_text() for rank in (0, 1)]
    assert "rank 0 of 2 on host0" in logs[0]
    assert "rank 1 of 2 on host1" in logs[1]


def refusal(hosts: Hosts, *words, host: int = LOGIN, hostfile: str = "hosts") -> str:
    """The one line of a start that is refused, before torch is imported anywhere."""
    out = hosts.base / "refused"
    run = hosts.start(host, "pretrain", "run.toml", f"out={out}", "--hostfile", hostfile, *words)
    code, said = ended(run, out)
    assert code == 2, said
    assert not out.exists()
    [line] = said.splitlines()
    return line


def test_another_setting_corpus_or_code_on_a_host_is_refused_by_its_name(hosts, tmp_path):
    base = hosts.base
    changed = base / "changed.toml"
    changed.write_text((base / "run.toml").read_text() + "[optimizer]\nlr = 0.5\n")
    with hosts.other(1, base / "run.toml", changed):
        line = refusal(hosts)
    assert re.match(r"error: host1: run.optimizer.lr is 0.5, on host0 0.0\d+", line), line
    corpus = shutil.copytree(base / "corpus", base / "other")
    (base / "other.toml").write_text(
        (base / "corpus.toml").read_text().replace("/corpus", "/other").replace("0.3", "0.2")
    )
    shutil.rmtree(corpus)
    done = hosts.start(0, "data", "build", "other.toml")
    assert done.wait(timeout=60) == 0
    with hosts.other(1, base / "corpus", base / "other"):
        assert "host1: run.data.fingerprints" in refusal(hosts)
    layout = ROOT / "januslm" / "layout.py"
    newer = base / "layout.py"
    newer.write_text(layout.read_text() + "# another state of the code\n")
    with hosts.other(1, layout, newer):
        assert 'error: host1: code is "' in refusal(hosts)
        run = hosts.start(LOGIN, "launch", "check", "--hostfile", "hosts")
        said, _ = run.communicate(timeout=60)
        assert run.returncode == 2
        assert re.search(r"^host0 .* yes +yes +\d+ free +eth0$", said, re.M), said
        assert re.search(r"^host1 .* no +yes +reached +eth0$", said, re.M), said
        assert re.search(r"^host1: code is ", said, re.M), said


def test_a_folder_that_is_not_shared_is_refused_at_the_start(hosts):
    line = refusal(hosts, "out=/tmp/mine")
    assert line.startswith("error: host1: /tmp is not the folder that host0 has there: ")
    hosts.run(1, "test", "!", "-e", "/tmp/mine")


def test_a_host_that_is_not_there_is_named_and_so_is_a_missing_folder(hosts):
    base = hosts.base
    (base / "wrong").write_text("host0 slots=1\nhost9 slots=1\n")
    assert "error: host9: cannot be reached: " in refusal(hosts, hostfile="wrong")
    (base / "own").mkdir(exist_ok=True)
    run = subprocess.run(
        hosts.inside(
            0,
            "sh",
            "-c",
            f"mkdir /tmp/only && cd /tmp/only && exec {sys.executable} "
            f"-P -m januslm.launch pretrain {base}/run.toml --hostfile {base}/hosts",
        ),
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert run.returncode == 2
    assert run.stderr.startswith("error: host1: there is no folder /tmp/only"), run.stderr


def test_a_rank_that_fails_before_the_others_meet_it_ends_all_with_its_reason(hosts):
    """One byte of host1's corpus is another, in a block that no check reads."""
    base = hosts.base
    damaged = shutil.copytree(base / "corpus", base / "damaged")
    shard = damaged / "train" / "shard-00000.bin"
    content = bytearray(shard.read_bytes())
    content[len(content) // 2] ^= 1
    shard.write_bytes(content)
    out = base / "early"
    with hosts.other(1, base / "corpus", damaged):
        run = hosts.start(LOGIN, "pretrain", "run.toml", f"out={out}", "--hostfile", "hosts")
        log = out / "logs" / "rank-00001.log"
        wait_until(lambda: (log.is_file() and "error: " in log.read_text()) or run.poll())
        began = time.monotonic()
        code, said = ended(run, out)
    assert time.monotonic() - began < 15
    assert code == 2, said
    [line] = [one for one in said.splitlines() if "error" in one]
    assert line.startswith("error: rank 1 on host1: "), said
    assert "hash" in line


def test_two_jobs_share_hosts_and_a_stop_or_a_killed_launcher_ends_its_own_alone(hosts):
    stopped, killed = hosts.base / "stopped", hosts.base / "orphaned"
    first, second = (training(hosts, host, out) for host, out in ((LOGIN, stopped), (0, killed)))
    os.kill(launcher(first), signal.SIGTERM)
    code, said = ended(first, stopped)
    assert code == 85, said
    assert saved(stopped)
    before = updates(killed)
    wait_until(lambda: updates(killed) > before or second.poll() is not None)
    assert len(ranks(killed)) == 2
    os.kill(launcher(second), signal.SIGKILL)
    wait_until(lambda: not ranks(killed), 60)
    assert saved(killed)
    second.communicate()


def test_sigusr1_saves_and_a_killed_rank_is_named_with_its_host(hosts):
    out = hosts.base / "goes-on"
    run = training(hosts, LOGIN, out)
    os.kill(launcher(run), signal.SIGUSR1)
    code, said = ended(run, out)
    assert code == 85, said
    assert "stopped on request (SIGUSR1)" in said
    run = training(hosts, LOGIN, out)
    [victim] = [pid for pid, rank in ranks(out).items() if rank == 1]
    os.kill(victim, signal.SIGKILL)
    code, said = ended(run, out)
    assert code == 1, said
    assert "rank 1 on host1 was killed by SIGKILL" in said


def test_one_remote_host_is_where_the_run_is_and_sighup_saves(hosts):
    (hosts.base / "alone").write_text("host1 slots=1\n")
    out = hosts.base / "remote"
    run = training(hosts, 0, out, hostfile="alone")
    os.kill(launcher(run), signal.SIGHUP)
    code, said = ended(run, out)
    assert code == 85, said
    assert saved(out)
    assert " on host1, process " in (out / "logs" / "rank-00000.log").read_text()


def test_a_rank_that_is_stopped_is_named_and_ended(hosts):
    out = hosts.base / "frozen"
    run = training(hosts, LOGIN, out, f"train.timeout={LIMIT}")
    [victim] = [pid for pid, rank in ranks(out).items() if rank == 1]
    os.kill(victim, signal.SIGSTOP)
    began = time.monotonic()
    code, said = ended(run, out)
    assert code == 1, said
    assert time.monotonic() - began < LIMIT + 30
    assert re.search(r"^error: rank 1 on host1 is silent", said, re.M), said


def test_a_cut_cable_ends_the_command_and_names_the_host(hosts):
    out = hosts.base / "cut"
    run = training(hosts, 0, out, f"train.timeout={LIMIT}")
    try:
        hosts.cable("cut", 1)
        began = time.monotonic()
        said, _ = run.communicate(timeout=120)
        assert run.returncode == 1, said
        assert time.monotonic() - began < LIMIT + 60
        assert re.search(r"^error: rank 1 on host1 is silent", said, re.M), said
        wait_until(lambda: not ranks(out), 60)  # on both sides
    finally:
        hosts.cable("mend", 1)


@pytest.mark.skipif(not shutil.which("pdsh"), reason="pdsh is not installed")
def test_deepspeed_by_hand_trains_on_two_hosts(hosts):
    out = hosts.base / "by-hand"
    (hosts.base / ".deepspeed_env").write_text("DS_ACCELERATOR=cpu\nOMP_NUM_THREADS=1\n")
    words = ("--hostfile", "hosts", "--launcher", "pdsh", "--master_addr", "10.88.0.1")
    command = (sys.executable, "-m", "deepspeed.launcher.runner", *words, "--module", "pretrain")
    own = {"PYTHONPATH": str(ROOT), "DS_ACCELERATOR": "cpu", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        hosts.inside(0, *command, "run.toml", f"out={out}"),
        env=os.environ | own,
        capture_output=True,
        text=True,
        timeout=240,
    )
    (hosts.base / ".deepspeed_env").unlink()
    assert done.returncode == 0, done.stdout + done.stderr
    assert (out / "done").is_file()
