"""What would break: a DeepSpeed that changed behind what we replace or read inside it."""

import importlib
import inspect
from functools import reduce
from importlib.metadata import version

import pytest
import xxhash

from januslm.training.deepspeed_hooks import READ, VERSION
from tests.conftest import ROOT


def test_the_installed_deepspeed_is_the_one_that_was_read():
    assert version("deepspeed") == VERSION
    assert f'"deepspeed=={VERSION}"' in (ROOT / "pyproject.toml").read_text()


@pytest.mark.slow  # importing DeepSpeed runs a process or two
def test_no_function_that_we_rest_on_has_changed():
    changed = {}
    for name, known in READ.items():
        module, _, path = name.partition(":")
        found = reduce(getattr, path.split("."), importlib.import_module(module))
        digest = xxhash.xxh3_64_hexdigest(inspect.getsource(inspect.unwrap(found)).encode())
        if digest != known:
            changed[name] = digest
    assert not changed, f"read these again, and what deepspeed_hooks.py makes of them: {changed}"


def test_the_engine_touches_no_private_name_of_deepspeed():
    text = (ROOT / "januslm" / "training" / "engine.py").read_text()
    for name in ("__compatible_ops__", "engine._", "checkpoint_engine", "was_step_applied"):
        assert name not in text.replace("self.engine._full", ""), name
