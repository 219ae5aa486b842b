"""The verb `test`: lint, types and tests, in the clone they belong to."""

import os
import subprocess
from collections.abc import Sequence

from januslm.cli.paths import ROOT
from januslm.config import Refused
from januslm.launch.commands import Options, module, need, shell_code, show
from januslm.launch.environment import cloned, environment

LINT = (("ruff", "check", "."), ("ruff", "format", "--check", "."), ("mypy",))
# Two at a time; the tests of a file share what they build, and stay together.
TESTS = ("pytest", "-q", "-n", "2", "--dist", "loadfile")
QUICK = ("-m", "not slow")  # what starts no process and trains nothing
USUAL = ("-m", "not long")  # what needs no second host, other launcher or limit to wait for


def check(words: Sequence[str], options: Options) -> int:
    """--quick: what takes about a minute; --all: everything.  The other words are pytest's."""
    if not cloned():  # a folder tests/ may lie beside us all the same, of another package
        raise Refused(f"no tests in {ROOT}: this verb is for a clone of the project")
    if not options.dry:
        need("ruff", "mypy", "pytest", "xdist")
    own = [word for word in words if word not in ("--quick", "--all")]
    rest = [os.path.abspath(word) if os.path.exists(word) else word for word in own]
    chosen: tuple[str, ...] = () if own or "--all" in words else USUAL  # named tests are all run
    chosen = QUICK if "--quick" in words else chosen
    # As by hand: tests start scripts that import their folder, and name the command januslm.
    # Compiled once: tests are rewritten by pytest, and the project is started 400 times.
    ours = ("PYTHONSAFEPATH", "JANUSLM_PROGRAM", "PYTHONDONTWRITEBYTECODE")
    variables = {name: value for name, value in environment().items() if name not in ours}
    variables["OMP_NUM_THREADS"] = "1"
    for command in (*LINT, (*TESTS, *chosen, *rest)):
        if options.dry:
            show(module(*command), variables)
            continue
        done = subprocess.run(module(*command), cwd=ROOT, env=variables, check=False)
        if done.returncode:
            return shell_code(done.returncode)
    return 0
