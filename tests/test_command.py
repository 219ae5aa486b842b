"""How a command ends: with its own code, or with 2 and one line."""

from functools import partial

import pytest

from januslm.cli.command import answered
from januslm.config import Refused


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (Refused("x.toml: no"), "error: x.toml: no\n"),
        (OSError(28, "No space left on device", "a/b"), "error: a/b: No space left on device\n"),
        (OSError("it broke"), "error: it broke\n"),
        (MemoryError("7 GiB"), "error: not enough memory: 7 GiB\n"),
        (RuntimeError("x: can't allocate memory"), "error: not enough memory: x: can't allocate "),
    ],
)
def test_a_command_answers_with_a_line_and_2_or_with_its_own_code(error, message, capsys):
    def fails():
        raise error

    def interrupted():
        raise KeyboardInterrupt

    assert answered(fails) == 2
    assert capsys.readouterr().err.startswith(message)
    assert [answered(lambda code=code: code) for code in (None, 0, 1)] == [0, 0, 1]
    assert answered(interrupted) == 130
    assert capsys.readouterr().err == "interrupted\n"
    with pytest.raises(ZeroDivisionError):  # a fault of the code's
        answered(partial(divmod, 1, 0))
