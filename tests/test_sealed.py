"""State files know when they were changed: every bit of one counts."""

import json
import math

import pytest

from januslm.config import Refused
from januslm.data import sealed

TABLE = {"step": 7, "loss": 0.1 + 0.2, "nan": math.nan, "names": ["ä", None], "in": {"b": 1}}


def test_what_is_written_is_read(tmp_path):
    (tmp_path / "a.json").write_text(json.dumps(sealed.sealed(TABLE), indent=1))
    assert repr(sealed.read(tmp_path / "a.json")) == repr(TABLE)


@pytest.mark.slow
def test_no_single_bit_can_change_the_content_unseen(tmp_path):
    path, whole = tmp_path / "a.json", json.dumps(sealed.sealed(TABLE), indent=1).encode()
    for place in range(len(whole) * 8):
        flipped = bytearray(whole)
        flipped[place // 8] ^= 1 << place % 8
        path.write_bytes(flipped)
        try:
            found = repr(sealed.read(path))
        except Refused as error:
            found = str(error)
        if not found.startswith(f"{path}: "):
            assert found == repr(TABLE), place  # white space, or the like


def test_a_damaged_line_is_told_from_its_neighbours(tmp_path):
    path = tmp_path / "log.jsonl"
    path.write_text("".join(sealed.line({"step": step}) for step in range(3)))
    path.write_text(path.read_text().replace('"step": 1', '"step": 9') + '{"half')
    assert list(sealed.lines(path)) == [(1, {"step": 0}), (2, None), (3, {"step": 2}), (4, None)]


@pytest.mark.parametrize("text", ["[]", "null", "{}", '{"step": 1}', "{"])
def test_what_was_never_sealed_is_refused(text, tmp_path):
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(Refused, match=r"a\.json: "):
        sealed.read(tmp_path / "a.json")
