"""Corpora in an object store: s3fs against a server that answers as S3 does to reads."""

import gzip
import json
import threading
from collections.abc import Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit
from xml.sax.saxutils import escape

import pytest

from data_tools.build import build
from data_tools.documents import Document
from data_tools.recipe import read
from data_tools.sources import jsonl, parquet
from januslm.config import Refused
from januslm.data import remote
from januslm.data.block_cache import BlockCache
from januslm.data.shards import open_corpus

s3fs = pytest.importorskip("s3fs", reason="s3fs is of the extra s3")
pytestmark = pytest.mark.slow

BUCKET = "crawl"
ROWS = [f"row {n} {'words ' * (n % 7)}" for n in range(3000)]
LIST = (
    '<?xml version="1.0"?><ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">'
    "<Name>{bucket}</Name><IsTruncated>false</IsTruncated>{found}</ListBucketResult>"
)
FILE = (
    "<Contents><Key>{key}</Key><LastModified>2026-01-01T00:00:00.000Z</LastModified>"
    '<ETag>"{tag}"</ETag><Size>{size}</Size><StorageClass>STANDARD</StorageClass></Contents>'
)


class Store(ThreadingHTTPServer):
    """Objects by key; GET, HEAD and ListObjectsV2 of one bucket, addressed by path."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.objects: dict[str, bytes] = {}
        self.refuse: list[int] = []  # codes of the next answers to reads of objects
        self.cut = 0  # bytes after which the next answer ends


class Handler(BaseHTTPRequestHandler):
    server: Store

    def log_message(self, *_) -> None:
        pass

    def do_HEAD(self) -> None:
        self._answer(send=False)

    def do_GET(self) -> None:
        self._answer(send=True)

    def _answer(self, send: bool) -> None:
        asked = urlsplit(self.path)
        key = asked.path.removeprefix(f"/{BUCKET}").lstrip("/")
        if not key:
            return self._list(parse_qs(asked.query).get("prefix", [""])[0])
        if key not in self.server.objects:
            return self._reply(404, b"")
        if send and self.server.refuse:
            return self._reply(self.server.refuse.pop(0), b"")
        whole = self.server.objects[key]
        first, _, last = self.headers.get("Range", "").removeprefix("bytes=").partition("-")
        start, end = int(first or 0), int(last or len(whole) - 1) + 1
        headers = {"ETag": f'"{hash(whole)}"', "Last-Modified": "Thu, 01 Jan 2026 00:00:00 GMT"}
        if first:
            headers["Content-Range"] = f"bytes {start}-{end - 1}/{len(whole)}"
        self._reply(206 if first else 200, whole[start:end], headers, send)

    def _list(self, prefix: str) -> None:
        found = "".join(
            FILE.format(key=escape(key), tag=hash(whole), size=len(whole))
            for key, whole in sorted(self.server.objects.items())
            if key.startswith(prefix)
        )
        self._reply(200, LIST.format(bucket=BUCKET, found=found).encode())

    def _reply(self, code: int, body: bytes, headers=None, send: bool = True) -> None:
        self.send_response(code)
        for name, value in ({"Content-Length": str(len(body))} | (headers or {})).items():
            self.send_header(name, value)
        self.end_headers()
        if send:
            cut, self.server.cut = self.server.cut, 0
            with suppress(OSError):
                self.wfile.write(body[: cut or None])
            self.close_connection = bool(cut)


@pytest.fixture
def store(monkeypatch) -> Iterator[Store]:
    server = Store()
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "nobody")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "nothing")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setattr(remote, "WAITS", (0.0, 0.01, 0.01))
    s3fs.S3FileSystem.clear_instance_cache()  # which know the last test's server
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


def lines(rows: list[str]) -> bytes:
    return gzip.compress("".join(json.dumps({"text": row}) + "\n" for row in rows).encode())


def texts(inputs: list) -> list[str]:
    return [one.text for some in inputs for one in some.read() if isinstance(one, Document)]


def test_objects_are_found_by_a_pattern_and_read(store):
    store.objects = {"web/a.jsonl.gz": lines(ROWS[:9]), "web/deep/b.jsonl.gz": lines(ROWS[9:])}
    store.objects["web/readme"] = b"nothing to read"
    found = jsonl.inputs(Path("."), files=[f"s3://{BUCKET}/web/**/*.jsonl.gz"])
    assert sorted(texts(found)) == sorted(ROWS)
    assert all(one.version for one in found)


def test_a_table_is_read_from_its_end(store, tmp_path):
    import pyarrow
    import pyarrow.parquet

    pyarrow.parquet.write_table(pyarrow.table({"text": ROWS}), tmp_path / "a.parquet")
    store.objects["a.parquet"] = (tmp_path / "a.parquet").read_bytes()
    assert texts(parquet.inputs(Path("."), files=[f"s3://{BUCKET}/a.parquet"])) == ROWS


def test_errors_that_pass_are_tried_again(store):
    store.objects["a.jsonl.gz"] = lines(ROWS)
    store.refuse = [503, 500]
    store.cut = 300
    assert texts(jsonl.inputs(Path("."), files=[f"s3://{BUCKET}/a.jsonl.gz"])) == ROWS


def test_a_missing_object_is_refused_by_name(store):
    with pytest.raises(Refused, match=f"s3://{BUCKET}/none.jsonl"):
        jsonl.inputs(Path("."), files=[f"s3://{BUCKET}/none.jsonl"])


def test_a_corpus_is_built_from_objects_and_read_from_where_it_was_put(store, tmp_path):
    store.objects["a.jsonl.gz"] = lines(ROWS)
    (tmp_path / "a.jsonl.gz").write_bytes(store.objects["a.jsonl.gz"])
    built = []
    for name, file in (("far", f"s3://{BUCKET}/a.jsonl.gz"), ("near", "a.jsonl.gz")):
        recipe = tmp_path / f"{name}.toml"
        recipe.write_text(
            f'out = "{tmp_path / name}"\nroot = "{tmp_path}"\nvocabulary = 300\n'
            f'[sources.jsonl]\nfiles = ["{file}"]\n'
        )
        build(read(str(recipe)), lambda _: None)
        built.append(open_corpus(tmp_path / name / "train", verify="full"))
    far, near = ([one.document(i).tolist() for i in range(one.documents)] for one in built)
    assert far == near
    for path in (tmp_path / "far" / "train").iterdir():
        store.objects[f"corpora/web/{path.name}"] = path.read_bytes()
    cache = BlockCache(tmp_path / "cache", 1e9)
    there = open_corpus(f"s3://{BUCKET}/corpora/web", None, "full", cache)
    assert [there.document(i).tolist() for i in range(there.documents)] == near
