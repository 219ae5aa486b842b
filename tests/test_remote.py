"""Corpora from far away: a real HTTP server that drops connections, and fsspec's memory."""

import gzip
import json
import re
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import fsspec
import pytest

from data_tools.build import build
from data_tools.documents import Document, pieces
from data_tools.files import matching, raw
from data_tools.recipe import read
from data_tools.sources import jsonl, parquet, text, wet
from januslm.config import Refused
from januslm.data import remote
from januslm.data.shards import open_corpus

ROWS = [f"row {n} {'words ' * (n % 7)}" for n in range(2000)]
RAW = "".join(json.dumps({"text": one}) + "\n" for one in ROWS).encode()


class Server(ThreadingHTTPServer):
    """Files by path; how it behaves can be changed while it runs."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.files: dict[str, bytes] = {}
        self.ranges, self.etag = True, '"one"'
        self.drop_after = 0  # bytes of each answer; 0: none is dropped
        self.refuse: list[int] = []  # codes of the next answers
        self.asked: Counter = Counter()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        here = self.server
        given = self.headers.get("Range", "")
        here.asked[given] += 1
        if here.refuse:
            self.send_error(here.refuse.pop(0))
            return
        if self.path not in here.files:
            self.send_error(404)
            return
        whole = here.files[self.path]
        begin = re.match(r"bytes=(\d+)-", given) if here.ranges else None
        start = int(begin[1]) if begin else 0
        self.send_response(206 if begin else 200)
        self.send_header("ETag", here.etag)
        self.send_header("Content-Length", str(len(whole) - start))
        if begin:
            self.send_header("Content-Range", f"bytes {start}-{len(whole) - 1}/{len(whole)}")
        self.end_headers()
        body = whole[start:]
        if here.drop_after:
            body = body[: here.drop_after]
            self.close_connection = True
        with suppress(OSError):  # the client may have enough
            self.wfile.write(body)

    def log_message(self, *_) -> None:
        pass


@pytest.fixture
def server(monkeypatch) -> Iterator[Server]:
    monkeypatch.setattr(remote, "WAITS", (0.0, 0.01, 0.01))
    server = Server()
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


def texts(inputs: list) -> list[str]:
    return [one.text for some in inputs for one in some.read() if isinstance(one, Document)]


@pytest.mark.parametrize("ranges", [True, False])
def test_a_connection_that_breaks_is_read_on_from_the_same_byte(server, ranges):
    server.files["/a.jsonl"] = RAW
    server.ranges = ranges
    server.drop_after = 30_000 if ranges else 0
    inputs = jsonl.inputs(Path("."), files=[f"{server.address}/a.jsonl"])
    assert inputs[0].version == '"one"'
    assert inputs[0].bytes == len(RAW) > 2 * 30_000
    assert texts(inputs) == ROWS
    assert len(server.asked) > 2 if ranges else len(server.asked) == 2


def test_pieces_of_a_remote_file_begin_where_they_lie(server):
    server.files["/a.jsonl"] = RAW * 5
    [whole] = jsonl.inputs(Path("."), files=[f"{server.address}/a.jsonl"])
    cut = pieces(whole, len(RAW))
    assert texts(cut) == ROWS * 5
    assert f"bytes={4 * len(RAW) - 1}-" in server.asked


@pytest.mark.slow
def test_packed_archives_are_read_over_broken_connections(server):
    head = "WARC/1.0\r\nWARC-Type: conversion\r\nContent-Length: {}\r\n\r\n"
    many = [head.format(len(one)).encode() + one.encode() + b"\r\n\r\n" for one in ROWS]
    server.files["/a.wet.gz"] = b"".join(map(gzip.compress, many))
    server.drop_after = 50_000
    found = wet.inputs(Path("."), files=[f"{server.address}/a.wet.gz"])
    assert texts(found) == ROWS
    assert texts([piece for one in found for piece in pieces(one, 60_000)]) == ROWS


def test_parquet_is_read_from_its_end_over_http(server, tmp_path):
    import pyarrow
    import pyarrow.parquet

    pyarrow.parquet.write_table(pyarrow.table({"text": ROWS}), tmp_path / "a.parquet")
    server.files["/a.parquet"] = (tmp_path / "a.parquet").read_bytes()
    assert texts(parquet.inputs(Path("."), files=[f"{server.address}/a.parquet"])) == ROWS


def test_an_error_that_passes_is_tried_again_and_one_that_stays_is_one_line(server):
    server.files["/a.jsonl"] = RAW
    server.refuse = [503, 500]
    assert texts(jsonl.inputs(Path("."), files=[f"{server.address}/a.jsonl"])) == ROWS
    server.refuse = [503] * 4
    with pytest.raises(Refused, match=r"a\.jsonl: cannot be read \(503 .*in each of 4 attempts"):
        jsonl.inputs(Path("."), files=[f"{server.address}/a.jsonl"])
    asked = server.asked.total()
    with pytest.raises(Refused, match=r"b\.jsonl: cannot be read \(404 Not Found\)$"):
        jsonl.inputs(Path("."), files=[f"{server.address}/b.jsonl"])
    assert server.asked.total() == asked + 1


def test_a_file_that_changes_while_it_is_read_is_refused(server):
    server.files["/a.jsonl"] = RAW
    inputs = jsonl.inputs(Path("."), files=[f"{server.address}/a.jsonl"])
    server.etag = '"two"'
    with pytest.raises(Refused, match=r"a\.jsonl: changed since the build began"):
        texts(inputs)
    server.etag = '"one"'
    server.files["/a.jsonl"] = RAW[:-1]
    with pytest.raises(Refused, match=r"a\.jsonl: changed since the build began"):
        texts(inputs)


def test_a_server_that_is_not_there_is_one_line(monkeypatch):
    monkeypatch.setattr(remote, "WAITS", (0.0,))
    with pytest.raises(Refused, match=r"http://127\.0\.0\.1:9/a: cannot be read \(.*refused\)"):
        jsonl.inputs(Path("."), files=["http://127.0.0.1:9/a"])


def test_patterns_over_http_and_protocols_that_need_a_package_are_refused_by_name():
    with pytest.raises(Refused, match="http cannot list files; name each one"):
        jsonl.inputs(Path("."), files=["https://example.org/*.jsonl"])
    with pytest.raises(Refused, match="nosuch://a: cannot be reached"):
        jsonl.inputs(Path("."), files=["nosuch://a"])
    if "s3fs" not in {one.partition("==")[0] for one in installed()}:
        with pytest.raises(Refused, match=r"s3:// needs a package: pip install s3fs"):
            jsonl.inputs(Path("."), files=["s3://bucket/*.jsonl"])


def installed() -> list[str]:
    from importlib.metadata import distributions

    return [str(one.metadata["Name"]) for one in distributions()]


@pytest.fixture
def memory() -> Iterator[fsspec.AbstractFileSystem]:
    system = fsspec.filesystem("memory")
    yield system
    system.rm("/corpus", recursive=True)


def test_patterns_find_files_of_any_file_system_and_split_them(memory):
    memory.pipe({"/corpus/b.jsonl.gz": gzip.compress(RAW), "/corpus/a.jsonl": RAW})
    inputs = jsonl.inputs(Path("."), files=["memory://corpus/*.jsonl*"])
    assert [one.name for one in inputs] == [
        "memory:///corpus/a.jsonl",
        "memory:///corpus/b.jsonl.gz",
    ]
    assert texts(inputs) == ROWS * 2
    assert texts(pieces(inputs[0], 10_000)) == ROWS
    with pytest.raises(Refused, match="no file matches memory://corpus/\\*\\.txt"):
        text.inputs(Path("."), files=["memory://corpus/*.txt"])


def test_what_is_another_format_is_refused_there_too(memory):
    memory.pipe("/corpus/a.txt", b"WARC/1.0\r\nWARC-Type: warcinfo\r\n\r\n")
    with pytest.raises(Refused, match=r"a\.txt: looks like WARC records; kind = \"warc\""):
        texts(text.inputs(Path("."), files=["memory://corpus/a.txt"]))


def test_an_address_of_a_local_file_is_that_file(tmp_path):
    (tmp_path / "a b.txt").write_text("text")
    [file] = matching(Path("."), [(tmp_path / "a b.txt").as_uri()])
    assert file.place == str(tmp_path / "a b.txt")
    with raw(file) as stream:
        assert stream.read() == b"text"


@pytest.mark.slow
def test_a_corpus_is_built_from_a_server_that_drops_connections(server, tmp_path):
    server.files["/a.jsonl"] = RAW
    server.drop_after = 40_000
    path = tmp_path / "corpus.toml"
    words = f'out = "{tmp_path}/out"\nvocabulary = 300\npart_megabytes = 0.02\nprocesses = 2\n'
    words += f'[sources.far]\nkind = "jsonl"\nfiles = ["{server.address}/a.jsonl"]\n'
    path.write_text(words)
    build(read(str(path)), lambda _: None)
    counters = open_corpus(tmp_path / "out" / "train").manifest["counters"]["far"]
    assert counters["read"] == counters["train"] == len(ROWS)
    server.etag = '"two"'
    with pytest.raises(Refused, match="inputs"):
        build(read(str(path)), lambda _: None)
