"""One large file for many processes: its pieces hold the documents of the whole, in their order."""

import gzip
import json
import os
import zlib
from collections.abc import Callable
from pathlib import Path
from random import Random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from data_tools.build import build
from data_tools.documents import LONGEST, Document, Dropped, Input, pieces
from data_tools.recipe import bundles, read
from data_tools.sources import jsonl, text, warc, wet
from januslm.config import Refused
from januslm.data.shards import open_corpus

FEW = settings(
    max_examples=100,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
LIMIT = 40  # bytes of a document, so that some lines are too long


@pytest.fixture(autouse=True)
def short_documents():
    before = LONGEST.set(LIMIT)
    yield
    LONGEST.reset(before)


def found(inputs: list[Input]) -> list[Document | Dropped]:
    return [one for some in inputs for one in some.read()]


def same_in_pieces(whole: list[Input], size: int) -> int:
    """How many pieces a file was read in; they must give what the whole file gives."""
    cut = [piece for one in whole for piece in pieces(one, size)]
    assert sum(piece.bytes for piece in cut) == sum(one.bytes for one in whole)
    assert found(cut) == found(whole)
    return len(cut)


LINES = st.lists(
    st.one_of(
        st.text("ab \t", max_size=12),
        st.sampled_from(["", "", " ", "ä" * 30, "x" * 200, "שלום עולם", "\ufeff", "a\0b", "\r"]),
    ),
    max_size=14,
)
ENDS = st.sampled_from(["\n", "\r\n"])


@pytest.mark.slow
@FEW
@given(LINES, ENDS, st.integers(1, 60), st.booleans(), st.sampled_from(["line", "blank"]))
def test_lines_and_paragraphs_belong_to_one_piece_each(tmp_path, rows, end, size, mark, split):
    raw = b"\xef\xbb\xbf" * mark + end.join(rows).encode()
    (tmp_path / "a.txt").write_bytes(raw)
    same_in_pieces(text.inputs(tmp_path, files=["a.txt"], split=split), size)


@pytest.mark.slow
@FEW
@given(LINES, ENDS, st.integers(1, 60), st.booleans())
def test_rows_belong_to_one_piece_each(tmp_path, rows, end, size, mark):
    raw = end.join(json.dumps({"text": row}) if row != " " else "{" for row in rows)
    (tmp_path / "a.jsonl").write_bytes(b"\xef\xbb\xbf" * mark + raw.encode())
    same_in_pieces(jsonl.inputs(tmp_path, files=["a.jsonl"]), size)


def record(kind: str, block: bytes, length: int | None = None) -> bytes:
    head = f"WARC/1.0\r\nWARC-Type: {kind}\r\nWARC-Target-URI: http://a.example/\r\n"
    head += f"Content-Length: {len(block) if length is None else length}\r\n\r\n"
    return head.encode() + block + b"\r\n\r\n"


BLOCKS = st.lists(
    st.sampled_from([b"", b"one", b"two\r\n\r\nlines", b"long " * 20, b"WARC/1.0 is a format"]),
    min_size=1,
    max_size=9,
)
PACKINGS: dict[str, Callable[[list[bytes]], bytes]] = {
    "a.wet": b"".join,
    "a.wet.gz": lambda many: b"".join(map(gzip.compress, many)),
    "whole.wet.gz": lambda many: gzip.compress(b"".join(many)),
    "two.wet.gz": lambda many: (
        gzip.compress(b"".join(many[:2])) + gzip.compress(b"".join(many[2:]))
    ),
}


@pytest.mark.slow
@FEW
@given(BLOCKS, st.integers(40, 400), st.sampled_from(list(PACKINGS)))
def test_records_belong_to_one_piece_each(tmp_path, blocks, size, name):
    many = [record("conversion", block) for block in blocks]
    (tmp_path / name).write_bytes(PACKINGS[name](many))
    same_in_pieces(wet.inputs(tmp_path, files=[name]), size)


@pytest.mark.slow
@FEW
@given(st.integers(0, 2**32), st.integers(60, 900), st.booleans())
def test_a_damaged_archive_gives_the_same_in_pieces(tmp_path, seed, size, packed):
    rng = Random(seed)
    many = [record("conversion", rng.randbytes(rng.randrange(60)).hex().encode()) for _ in range(9)]
    raw = bytearray(b"".join(map(gzip.compress, many)) if packed else b"".join(many))
    for _ in range(rng.randrange(1, 4)):
        raw[rng.randrange(20, len(raw))] ^= 1 << rng.randrange(8)
    name = "a.wet.gz" if packed else "a.wet"
    (tmp_path / name).write_bytes(raw)
    try:
        whole = wet.inputs(tmp_path, files=[name])
    except Refused:
        return  # its first bytes do not even say what it is
    first = found(whole)
    assert first == found(whole)
    same_in_pieces(whole, size)


@pytest.mark.parametrize("packed", [False, True])
def test_each_record_that_is_not_damaged_is_read_and_each_other_is_counted(tmp_path, packed):
    texts = [f"text number {n}" for n in range(20)]
    many = [record("conversion", one.encode()) for one in texts]
    name = "a.wet.gz" if packed else "a.wet"
    for spoiled in range(1, 20):  # the first one says what the file is, or it is refused
        parts = [gzip.compress(one) if packed else one for one in many]
        broken = bytearray(parts[spoiled])
        place = len(broken) // 2 if packed else broken.index(b"Content-Length") + 16
        broken[place] = 0x39 if not packed else broken[place] ^ 0x55
        parts[spoiled] = bytes(broken)
        (tmp_path / name).write_bytes(b"".join(parts))
        got = found(wet.inputs(tmp_path, files=[name]))
        left = [one.text for one in got if isinstance(one, Document)]
        assert left == texts[:spoiled] + texts[spoiled + 1 :], spoiled
        assert sum(isinstance(one, Dropped) for one in got) == 1, got


def test_a_checksum_that_does_not_fit_costs_its_record(tmp_path):
    many = [gzip.compress(record("conversion", f"text {n}".encode())) for n in range(3)]
    broken = bytearray(many[1])
    broken[-8] ^= 1
    (tmp_path / "a.wet.gz").write_bytes(many[0] + broken + many[2])
    got = found(wet.inputs(tmp_path, files=["a.wet.gz"]))
    assert [getattr(one, "text", "") or one.reason for one in got] == [
        "text 0",
        "damaged WARC record",
        "text 2",
    ]


def test_a_file_in_a_crawl_that_is_an_archive_itself_is_one_page(tmp_path):
    LONGEST.set(100_000)
    inner = gzip.compress(record("response", b"HTTP/1.1 200 OK\r\n\r\n"))
    head = b"HTTP/1.1 200 OK\r\nContent-Type: application/gzip\r\n\r\n"
    stored = zlib.compressobj(0, zlib.DEFLATED, 31)  # as it is, its gzip member in sight
    raw = stored.compress(record("response", head + inner)) + stored.flush()
    (tmp_path / "a.warc.gz").write_bytes(raw)
    got = found(warc.inputs(tmp_path, files=["a.warc.gz"]))
    assert got == [Dropped("Content-Type application/gzip")]


RECIPE = """
out = "{out}"
root = "{root}"
vocabulary = 300
part_megabytes = {part}
processes = {processes}
[sources.rows]
kind = "{kind}"
files = ["a.*"]
{more}
"""


def corpus(folder: Path, out: str, kind: str, part: float, processes: int, more: str = "") -> Path:
    path = folder / f"{out}.toml"
    words = {"out": folder / out, "root": folder, "kind": kind, "part": part}
    path.write_text(RECIPE.format(**words, processes=processes, more=more))
    return path


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["jsonl", "text"])
def test_a_single_file_is_worked_on_by_two_processes_and_gives_the_same_shards(tmp_path, kind):
    LONGEST.set(10_000_000)
    rng = Random(1)
    words = [f"w{n}" for n in range(300)]
    rows = [" ".join(rng.choices(words, k=rng.randrange(5, 60))) for _ in range(3000)]
    if kind == "text":
        (tmp_path / "a.txt").write_text("\n\n".join(rows))
    else:
        (tmp_path / "a.jsonl").write_text("".join(json.dumps({"text": r}) + "\n" for r in rows))
    size = next(tmp_path.glob("a.*")).stat().st_size
    made = {}
    for processes in (1, 2):
        path = corpus(tmp_path, f"out{processes}", kind, 0.1, processes)
        work = bundles(read(str(path)))
        assert len(work) == -(-size // 100_000) > 3
        build(read(str(path)), lambda _: None)
        made[processes] = tmp_path / f"out{processes}" / "train"
    assert open_corpus(made[1]).documents == 3000
    files = sorted(p.name for p in made[1].iterdir() if p.name.startswith("shard"))
    for name in files:
        assert (made[1] / name).read_bytes() == (made[2] / name).read_bytes()


def test_pieces_depend_on_nothing_but_their_size(tmp_path):
    (tmp_path / "a.jsonl").write_bytes(b'{"text": "abc"}\n' * 1000)
    [whole] = jsonl.inputs(tmp_path, files=["a.jsonl"])
    cut = pieces(whole, 5000)
    assert [piece.bytes for piece in cut] == [4000] * 4
    assert pieces(whole, os.path.getsize(tmp_path / "a.jsonl")) == [whole]
