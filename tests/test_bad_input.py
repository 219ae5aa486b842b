"""What people really hand in: other formats, wrong keys, bombs; one line says so, or a number."""

import bz2
import gzip
import json
import lzma
import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
import zstandard

from data_tools.build import build
from data_tools.documents import Document, Dropped
from data_tools.files import matching
from data_tools.recipe import read
from data_tools.sources import hf, jsonl, parquet, table, text, warc, wet, wikipedia
from januslm.config import Refused
from januslm.data.shards import open_corpus
from tests.conftest import ROOT

WARC = b"WARC/1.0\r\nWARC-Type: warcinfo\r\nContent-Length: 0\r\n\r\n\r\n\r\n"
DUMP = b'<mediawiki xmlns="http://www.mediawiki.org/xml/export-0.11/">\n</mediawiki>\n'
ROWS = b'{"text": "one"}\n{"text": "two"}\n'


def found(inputs: list) -> list[Document | Dropped]:
    return [one for some in inputs for one in some.read()]


def texts(inputs: list) -> list[str]:
    return [one.text for one in found(inputs) if isinstance(one, Document)]


def tar_of(folder: Path) -> bytes:
    (folder / "inner").write_bytes(b"x")
    with tarfile.open(folder / "made", "w") as box:
        box.add(folder / "inner", "../../inner")
    return (folder / "made").read_bytes()


# --- files of another format


OTHERS = {
    "a gz": (gzip.compress(b"text"), "gzip; if it is packed once, its name must end in .gz"),
    "a bz2": (bz2.compress(b"text"), "bzip2; its name must end in .bz2"),
    "a xz": (lzma.compress(b"text"), "xz; its name must end in .xz"),
    "a zst": (zstandard.compress(b"text"), "zstd; its name must end in .zst"),
    "warc": (WARC, 'WARC records; kind = "warc" reads'),
    "dump": (DUMP, 'a Wikipedia XML dump; kind = "wikipedia" reads it'),
    "parquet": (b"PAR1\x15\x04", 'parquet; kind = "parquet" reads it'),
    "arc": (b"filedesc://a.arc 0.0.0.0 20\n", "an ARC archive; no kind reads it; warcio can"),
    "pdf": (b"%PDF-1.7\n%\xe2\xe3", "PDF; no kind reads it"),
    "program": (b"\x7fELF\x02\x01\x01" + bytes(90), "a program; no kind reads it"),
    "binary": (bytes(range(256)) * 9 + bytes(99), "binary data; no kind reads it"),
    "utf-16": (
        ("a text" * 9).encode("utf-16-le"),
        'UTF-16 text without a byte order mark; convert it to UTF-8, or say encoding = "utf-16-le"',
    ),
}


@pytest.mark.parametrize("name", OTHERS)
@pytest.mark.parametrize("packed", [False, True], ids=["plain", "packed"])
def test_a_file_of_another_format_is_refused_by_what_it_is(tmp_path, name, packed):
    raw, what = OTHERS[name]
    reads = [wikipedia] if name == "dump" else [warc, wet] if name == "warc" else []
    for source in {text, jsonl, table, warc, wet, wikipedia}.difference(reads):
        end = ".csv" if source is table else ".any"
        path = tmp_path / f"file{end}{'.gz' * packed}"
        path.write_bytes(gzip.compress(raw) if packed else raw)
        with pytest.raises(Refused, match=rf"file\{end}.*: looks like {re.escape(what)}"):
            found(source.inputs(tmp_path, files=[path.name]))


def test_a_crawl_is_not_read_as_text_or_rows(tmp_path):
    shutil.copy(ROOT / "tests/fixtures/sources/warc.warc.gz", tmp_path / "a.warc.gz")
    for source, more in ((text, {}), (text, {"encoding": "latin-1"}), (jsonl, {})):
        with pytest.raises(Refused, match=r'a\.warc\.gz: looks like WARC records; kind = "warc"'):
            source.inputs(tmp_path, files=["*.gz"], **more)


def test_rows_are_not_read_as_lines_of_text_nor_text_as_a_crawl(tmp_path):
    (tmp_path / "a.txt").write_bytes(ROWS)
    with pytest.raises(Refused, match=r'a\.txt: looks like JSON lines; kind = "jsonl" reads it'):
        text.inputs(tmp_path, files=["a.txt"])
    assert texts(text.inputs(tmp_path, files=["a.txt"], split="file")) == [ROWS.decode().strip()]
    (tmp_path / "b.txt").write_text("plain text\n")
    for source in (warc, wet, wikipedia, parquet):
        with pytest.raises(Refused, match=r"b\.txt: looks like no file of this kind of source"):
            source.inputs(tmp_path, files=["b.txt"])


@pytest.mark.parametrize("end", [".gz", ".bz2", ".xz", ".zst"])
@pytest.mark.parametrize("raw", [b"", b"not packed at all"])
def test_an_empty_or_unpacked_file_of_a_packed_name_is_refused(tmp_path, end, raw):
    (tmp_path / "good.jsonl.gz").write_bytes(gzip.compress(ROWS))
    (tmp_path / f"bad.jsonl{end}").write_bytes(raw)
    with pytest.raises(Refused, match=rf"bad\.jsonl\{end}: (damaged or cut short|cannot be read)"):
        jsonl.inputs(tmp_path, files=["*.jsonl.*"])


@pytest.mark.parametrize("end", [".bz2", ".xz"])
def test_bzip2_and_xz_are_read_and_refused_where_they_are_cut(tmp_path, end):
    pack = {".bz2": bz2.compress, ".xz": lzma.compress}[end]
    path = tmp_path / f"a.jsonl{end}"
    path.write_bytes(pack(ROWS) + pack(ROWS))
    assert texts(jsonl.inputs(tmp_path, files=["a.*"])) == ["one", "two"] * 2
    path.write_bytes(pack(ROWS * 999)[:-9])
    with pytest.raises(Refused, match="damaged or cut short"):
        found(jsonl.inputs(tmp_path, files=["a.*"]))


# --- encodings


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32", "utf-16-be"])
@pytest.mark.parametrize("split", ["line", "blank", "file"])
def test_a_byte_order_mark_says_the_encoding_and_is_no_text(tmp_path, encoding, split):
    body = "żółw\n\nעברית"
    mark = "\ufeff" if encoding == "utf-16-be" else ""
    (tmp_path / "a.txt").write_bytes((mark + body).encode(encoding))
    got = texts(text.inputs(tmp_path, files=["a.txt"], split=split))
    assert got == ([body] if split == "file" else ["żółw", "עברית"])
    row = json.dumps({"text": body}, ensure_ascii=False)
    (tmp_path / "a.jsonl").write_bytes((mark + row).encode(encoding))
    assert texts(jsonl.inputs(tmp_path, files=["a.jsonl"])) == [body]
    (tmp_path / "a.csv").write_bytes(
        f"{mark}text\n{row[9:-1]}\n".replace("\\n", " ").encode(encoding)
    )
    assert texts(table.inputs(tmp_path, files=["a.csv"])) == [body.replace("\n", " ")]


def test_an_encoding_without_a_mark_is_read_as_said_and_its_faults_are_counted(tmp_path):
    raw = "eins\nzwei".encode("utf-16-le") + b"\n\x00\x00\xd8x\x00"  # half a surrogate pair
    (tmp_path / "a.txt").write_bytes(raw)
    given = {"files": ["a.txt"], "encoding": "utf-16-le", "split": "line"}
    got = found(text.inputs(tmp_path, **given))
    assert [one.text for one in got[:2]] == ["eins", "zwei"]
    assert got[2].repaired
    assert found(text.inputs(tmp_path, **given, invalid="drop"))[2] == Dropped("invalid UTF-8")
    with pytest.raises(Refused, match=r"a\.txt:3: not UTF-8"):
        found(text.inputs(tmp_path, **given, invalid="refuse"))


def test_right_to_left_text_passes_unharmed(tmp_path):
    body = "שלום \u202bעולם\u202c مرحبا بالعالم \u200f(1)"
    (tmp_path / "a.txt").write_text(body)
    assert texts(text.inputs(tmp_path, files=["a.txt"])) == [body]


# --- sources that keep little


def corpus(folder: Path, sources: str, more: str = "") -> Path:
    path = folder / "corpus.toml"
    head = f'out = "{folder}/out"\nroot = "{folder}"\nvocabulary = 300\nprocesses = 1\n{more}\n'
    path.write_text(head + sources)
    return path


def built(path: Path) -> list[str]:
    lines: list[str] = []
    build(read(str(path)), lines.append)
    return lines


GOOD = '[sources.good]\nkind = "jsonl"\nfiles = ["good.jsonl"]\n'


@pytest.mark.slow
@pytest.mark.parametrize("tokenizer", [False, True], ids=["no tokenizer yet", "tokenizer"])
def test_a_wrong_field_is_refused_with_file_key_reason_and_number(tmp_path, tokenizer):
    (tmp_path / "good.jsonl").write_bytes(ROWS * 50)
    if tokenizer:
        built(corpus(tmp_path, GOOD))
        (tmp_path / "out" / "tokenizer.json").rename(tmp_path / "tokenizer.json")
        shutil.rmtree(tmp_path / "out")
    (tmp_path / "rows.jsonl").write_bytes(b'{"body": "one"}\n' * 756)
    more = f'tokenizer = "{tmp_path}/tokenizer.json"' if tokenizer else ""
    wrong = '[sources.web]\nkind = "jsonl"\nfiles = ["rows.jsonl"]\nfield = "txet"\n'
    path = corpus(tmp_path, GOOD + wrong, more)
    wanted = (
        r"sources\.web: 0 of 756 documents could be read; rows\.jsonl: 0 of 756 documents could "
        r"be read: 756 no text under 'txet' \(sources\.web\.field = 'txet'\); minimum_kept = 0\.05"
    )
    with pytest.raises(Refused, match=wanted):
        built(path)
    path.write_text(path.read_text().replace("processes = 1", "processes = 1\nminimum_kept = 0"))
    built(path)
    assert open_corpus(tmp_path / "out" / "train").manifest["counters"]["web"]["train"] == 0


@pytest.mark.slow
def test_a_file_that_could_hardly_be_read_is_named_and_the_others_are_built(tmp_path):
    (tmp_path / "good.jsonl").write_bytes(ROWS * 50)
    (tmp_path / "good2.jsonl").write_bytes(b'{"body": "one"}\n' * 7)
    (tmp_path / "good3.jsonl").write_bytes(b"")
    path = corpus(tmp_path, GOOD.replace("good.jsonl", "*.jsonl"))
    lines = built(path)
    assert (
        "good2.jsonl: 0 of 7 documents could be read: 7 no text under 'text' "
        "(sources.good.field = 'text')"
    ) in lines
    assert "good3.jsonl: holds no documents" in lines


@pytest.mark.slow
def test_parquet_without_the_column_is_refused_with_those_there_are(tmp_path):
    import pyarrow
    import pyarrow.parquet

    pyarrow.parquet.write_table(pyarrow.table({"body": ["a"]}), tmp_path / "a.parquet")
    with pytest.raises(Refused, match=r"a\.parquet: no column 'text', there are body"):
        found(parquet.inputs(tmp_path, files=["a.parquet"]))


# --- what changes, and what does not


def test_a_change_at_equal_size_is_another_version_and_a_copy_is_the_same(tmp_path):
    (tmp_path / "a.jsonl").write_bytes(ROWS)
    [before] = matching(tmp_path, ["a.jsonl"])
    os.utime(tmp_path / "a.jsonl", (1, 1))
    assert matching(tmp_path, ["a.jsonl"]) == [before]
    (tmp_path / "a.jsonl").write_bytes(ROWS.replace(b"one", b"eno"))
    [after] = matching(tmp_path, ["a.jsonl"])
    assert after.bytes == before.bytes
    assert after.version != before.version


def test_a_large_file_has_another_version_if_its_ends_or_a_whole_block_change(tmp_path):
    size, path = 24 << 20, tmp_path / "a.txt"
    path.write_bytes(b"x" * size)
    seen = {matching(tmp_path, ["a.txt"])[0].version}
    for place, many in ((0, 1), (size - 1, 1), (size // 2, 260_000)):
        with path.open("r+b") as file:
            file.seek(place)
            file.write(b"y" * many)
        seen.add(matching(tmp_path, ["a.txt"])[0].version)
    assert len(seen) == 4


def test_a_file_that_grows_while_it_is_read_is_refused(tmp_path):
    (tmp_path / "a.jsonl").write_bytes(ROWS)
    inputs = jsonl.inputs(tmp_path, files=["a.jsonl"])
    (tmp_path / "a.jsonl").write_bytes(ROWS * 2)
    with pytest.raises(Refused, match=r"a\.jsonl: changed since the build began"):
        found(inputs)


@pytest.mark.slow
def test_a_damaged_dataset_is_one_line(tmp_path):
    import datasets

    datasets.disable_progress_bars()
    datasets.Dataset.from_dict({"text": ["é" * 50] * 9}).save_to_disk(tmp_path / "saved")
    [path] = (tmp_path / "saved").glob("*.arrow")
    path.write_bytes(path.read_bytes().replace("éé".encode(), b"\xc3\xff\xc3\xff"))
    with pytest.raises(Refused, match=r"saved: rows from 0: damaged \('utf-8' codec"):
        found(hf.inputs(tmp_path, path="saved"))


# --- bombs


BOMBS = """
import resource, sys
from pathlib import Path
from data_tools.sources import jsonl, text
resource.setrlimit(resource.RLIMIT_AS, (320 << 20, 320 << 20))
source, name, given = {"jsonl": jsonl, "text": text}[sys.argv[1]], sys.argv[2], {}
if source is text:
    given["split"] = sys.argv[3]
for one in source.inputs(Path("."), files=[name], **given)[0].read():
    print(getattr(one, "text", None) or one.reason)
"""


KINDS = [(".gz", "jsonl"), (".gz", "text line"), (".gz", "text blank"), (".gz", "text file")]
KINDS += [(".zst", "jsonl"), (".zst", "text line"), ("", "jsonl")]


@pytest.mark.slow
@pytest.mark.parametrize(("end", "kind"), KINDS)
def test_an_endless_line_is_counted_and_takes_no_memory(tmp_path, end, kind):
    size, path = 1 << 28, tmp_path / f"bomb{end}"
    head, tail = b"{" if kind == "jsonl" else b"", b'\n\n{"text": "after"}\n'
    make = {"": open, ".gz": gzip.open, ".zst": zstandard.open}[end]
    with make(path, "wb") as file:
        file.write(head)
        for _ in range(size >> 22):
            file.write(b"x" * (1 << 22))
        file.write(tail)
    source, _, split = kind.partition(" ")
    command = [sys.executable, "-c", BOMBS, source, path.name, split]
    variables = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=tmp_path, env=variables, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-500:]
    longest = r"line longer than \d+ bytes" if source == "jsonl" else "longer than 10000000 bytes"
    after = {"jsonl": "after", "text": '{"text": "after"}'}[source]
    wanted = longest if kind == "text file" else rf"{longest}\n+{re.escape(after)}"
    assert re.fullmatch(wanted, done.stdout.strip())


# --- archives


def test_no_name_in_an_archive_leads_anywhere(tmp_path):
    (tmp_path / "in").mkdir()
    with zipfile.ZipFile(tmp_path / "in" / "a.zip", "w") as box:
        box.writestr("../../outside.txt", "one")
        box.writestr("/etc/absolute.txt", "two")
        link = zipfile.ZipInfo("link.txt")
        link.external_attr = 0o120777 << 16
        box.writestr(link, "/etc/passwd")
    got = texts(text.inputs(tmp_path / "in", files=["*.zip"]))
    assert sorted(got) == ["/etc/passwd", "one", "two"]
    assert [path.name for path in tmp_path.rglob("*")] == ["in", "a.zip"]
    (tmp_path / "in" / "a.tar").write_bytes(tar_of(tmp_path))
    with pytest.raises(Refused, match=r"a\.tar: looks like a tar archive; no kind reads it"):
        text.inputs(tmp_path / "in", files=["*.tar"])


def test_a_member_of_an_archive_is_looked_at_too(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as box:
        box.writestr("a.txt", WARC)
    with pytest.raises(Refused, match=r"a\.zip/a\.txt: looks like WARC records"):
        found(text.inputs(tmp_path, files=["*.zip"]))


# --- tables


def test_a_table_gives_its_column_and_address_and_refuses_other_rows(tmp_path):
    (tmp_path / "a.tsv").write_text('id\ttext\turl\n1\ta "b\thttp://a\n2\t\t\n')
    first, second = found(table.inputs(tmp_path, files=["a.tsv"], url_field="url", id_field="id"))
    assert first == Document('a "b', "a.tsv", url="http://a", facts={"id": "1"})
    assert second == Dropped("no text under 'text'")
    with pytest.raises(Refused, match=r"a\.tsv: no column 'body', there are id, text, url"):
        found(table.inputs(tmp_path, files=["a.tsv"], field="body"))
    (tmp_path / "b.csv").write_bytes(b'text\n"bad \xff"\n"never ends\n')
    got = table.inputs(tmp_path, files=["b.csv"])[0].read()
    assert next(got).repaired
    with pytest.raises(Refused, match=r"b\.csv:3: not a row of cells"):
        list(got)
    (tmp_path / "c.txt").write_text("text\na\n")
    with pytest.raises(Refused, match=r"c\.txt: the name of a table must end in \.csv or \.tsv"):
        table.inputs(tmp_path, files=["c.txt"])
