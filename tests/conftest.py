"""One thread and fixed seeds for every test; where real text lies."""

import os
import signal
import sys
from pathlib import Path

import hypothesis
import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[1]
# The same cases every time, and no verdict on a busy machine's speed.
hypothesis.settings.register_profile("fixed", derandomize=True, deadline=None)
hypothesis.settings.load_profile("fixed")
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("DS_ACCELERATOR", "cpu")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")


# A shell's background and nohup ignore these; so would whatever a test starts.
USUAL = {signal.SIGINT: signal.default_int_handler, signal.SIGHUP: signal.SIG_DFL}
for _number, _usual in USUAL.items():
    if signal.getsignal(_number) == signal.SIG_IGN:
        signal.signal(_number, _usual)

STARTS = {"subprocess.Popen", "os.fork", "os.forkpty", "os.posix_spawn", "os.system"}
_started: list[str] = []


def _heard(event: str, arguments: tuple) -> None:
    if event in STARTS:
        _started.append(f"{event} {arguments[0] if arguments else ''}")


sys.addaudithook(_heard)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup():
    """What is started from here on is this test's, or that of its fixtures."""
    _started.clear()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item):
    """A test that starts processes is marked slow: `./launch.sh test --quick` runs none."""
    result = yield
    if _started and not item.get_closest_marker("slow"):
        pytest.fail(f"starts processes ({_started[0]}) and is not marked slow", pytrace=False)
    return result


@pytest.fixture(autouse=True)
def fixed_seed():
    """Every test starts from the same random state, in one thread."""
    import torch  # here: the process that hands tests to the workers needs none

    torch.set_num_threads(1)
    torch.manual_seed(0)
    np.random.seed(0)


@pytest.fixture(scope="session")
def data() -> Path:
    """Excerpts of real sets, laid as the whole ones are: tests/fixtures/README.md."""
    return ROOT / "tests" / "fixtures"
