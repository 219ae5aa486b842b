"""`generate RUN --input`: texts of one's own through real pipes and files, in their own form."""

import csv
import json
import os
import subprocess
import sys

import pytest

import januslm
from finetune import text_files
from januslm.config import Refused
from januslm.data import tables
from tests.conftest import ROOT
from tests.test_distill import GERMAN, root, teach  # noqa: F401
from tests.test_generate import main, refused  # noqa: F401

ROWS = [{"id": n, "title": 'a, "b"', "body": text, "more": [n]} for n, text in enumerate(GERMAN)]
CAPPED = "max_length=9"


@pytest.fixture
def run(root):  # noqa: F811
    return teach(root)


@pytest.fixture
def wanted(run):
    return januslm.load(run).generate(GERMAN, max_length=9)


@pytest.fixture
def said(capsys, monkeypatch):
    """stdout and stderr of a call that succeeds."""

    def call(*words) -> tuple[str, str]:
        monkeypatch.setattr(sys, "argv", ["generate", *map(str, words)])
        from finetune import generate

        assert generate.main() == 0
        return capsys.readouterr()

    return call


def piped(text: bytes, *words, tail: str = "") -> subprocess.CompletedProcess:
    """The command behind a pipe, and before another one."""
    line = f'exec "$@" {tail}' if not tail else f'"$@" {tail}; exit ${{PIPESTATUS[0]}}'
    command = [sys.executable, "-m", "januslm.launch", "generate", *map(str, words)]
    return subprocess.run(
        ["bash", "-c", line, "bash", *command],
        input=text,
        cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        timeout=120,
    )


@pytest.mark.slow
def test_a_pipe_gets_a_prediction_a_line_and_nothing_else(run, wanted):
    text = "\n".join([GERMAN[0], "", *GERMAN[1:]])
    done = piped(text.encode(), run, "--input", "-", CAPPED)
    assert done.returncode == 0, done.stderr.decode()
    assert done.stdout.decode() == "\n".join([wanted[0], "", *wanted[1:]]) + "\n"
    last = done.stderr.decode().splitlines()[-1]
    assert last.startswith("greedy: 8 texts, ")
    assert last.endswith(" ms a text | 1 empty, left empty")


@pytest.mark.slow
def test_a_reader_that_has_enough_ends_it_quietly(run):
    many = ("\n".join(GERMAN * 90) + "\n").encode()
    words = (run, "--input", "-", "--batch", "1", "max_length=5")
    done = piped(many, *words, tail="| head -n 1")
    assert done.stdout.count(b"\n") == 1
    assert b"Traceback" not in done.stderr
    assert b"rror" not in done.stderr
    assert done.returncode == 141


@pytest.mark.slow
def test_jsonl_keeps_every_column_and_its_order(run, wanted, said, tmp_path):
    source, out = tmp_path / "in.jsonl", tmp_path / "new" / "out.jsonl"
    source.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in ROWS))
    shown, _ = said(run, "--input", source, "--column", "body", "--output", out, CAPPED)
    assert shown == ""
    made = [json.loads(line) for line in out.read_text().splitlines()]
    assert made == [row | {"prediction": text} for row, text in zip(ROWS, wanted, strict=True)]
    assert list(made[0]) == ["id", "title", "body", "more", "prediction"]
    again = ["--input", out, "--column", "body", "--into", "second", "--limit", "2", CAPPED]
    twice = [json.loads(line) for line in said(run, *again)[0].splitlines()]
    assert [row["second"] for row in twice] == wanted[:2]


@pytest.mark.slow
def test_further_texts_stand_beside_the_first(run, said, tmp_path):
    source = tmp_path / "in.jsonl"
    source.write_text(json.dumps({"source": GERMAN[0]}) + "\n")
    words = ["--algorithm", "beam", "beam=3", "n_best=3", CAPPED]
    [row] = [json.loads(line) for line in said(run, "--input", source, *words)[0].splitlines()]
    made = januslm.load(run).outputs([GERMAN[0]], algorithm="beam", beam=3, n_best=3, max_length=9)[
        0
    ]
    assert row["prediction"] == made.text
    assert [one["prediction"] for one in row["others"]] == [one.text for one in made.others]


def test_tables_keep_their_columns(run, wanted, said, tmp_path):
    source = tmp_path / "in.csv"
    with source.open("w", newline="") as file:
        table = csv.writer(file)
        table.writerows([["id", "title", "body"], *([r["id"], "x\ny", r["body"]] for r in ROWS)])
    shown, _ = said(run, "--input", source, "--column", "body", CAPPED)
    made = list(csv.DictReader(shown.splitlines(keepends=True)))
    assert [row["prediction"] for row in made] == wanted
    assert [row["title"] for row in made] == ["x\ny"] * len(ROWS)
    assert list(made[0]) == ["id", "title", "body", "prediction"]


def test_quotes_of_a_tsv_are_letters(run, wanted, said, tmp_path):
    """As where training pairs are read."""
    source = tmp_path / "in.tsv"
    source.write_text("id\tsource\n" + "".join(f'"{n}\t{t}\n' for n, t in enumerate(GERMAN)))
    head, *rows = said(run, "--input", source, CAPPED)[0].splitlines()
    assert head == "id\tsource\tprediction"
    made = zip(GERMAN, wanted, strict=True)
    assert rows == [f'"{n}\t{text}\t{new}' for n, (text, new) in enumerate(made)]


def test_a_tsv_stays_one_row_a_text():
    assert tables.line([1, 'a\tb\n"c'], "tsv") == '1\ta b "c\n'


@pytest.mark.slow
def test_portions_come_in_the_order_of_the_texts(run, wanted, said, tmp_path):
    source = tmp_path / "in.txt"
    source.write_text("".join(f"{text}\r\n" for text in GERMAN * 10))
    shown, _ = said(run, "--input", source, "--batch", "1", CAPPED)  # 70 texts, portions of 32
    assert shown.splitlines() == wanted * 10


def test_lines_end_at_line_feeds_alone(run, said, tmp_path):
    source = tmp_path / "in.txt"
    source.write_bytes("\ufeffone\u2028two\x0cthree\nfour\n".encode())
    assert len(said(run, "--input", source, CAPPED)[0].split("\n")) == 3
    assert text_files.read(str(source), "lines", None).texts == ["one\u2028two\x0cthree", "four"]


def test_a_kind_that_is_named_is_believed(run, wanted, said, tmp_path):
    source = tmp_path / "in.txt"
    source.write_text("".join(json.dumps({"source": text}) + "\n" for text in GERMAN))
    made = said(run, "--input", source, "--format", "jsonl", CAPPED)[0].splitlines()
    assert [json.loads(line)["prediction"] for line in made] == wanted
    assert "source" not in said(run, "--input", source, "--format", "lines", CAPPED)[0]


def test_long_texts_are_cut_and_counted_or_refused(run, said, refused, tmp_path):  # noqa: F811
    source = tmp_path / "in.txt"
    source.write_text("kurz\n" + "wort " * 60)
    assert " | 1 cut" in said(run, "--input", source, CAPPED)[1]
    message = refused(run, "--input", source, "--longer", "refuse")
    assert "1 of 2 texts, number 2 the first, are longer than the 40 tokens" in message


def test_a_failing_run_leaves_the_former_file(run, refused, tmp_path):  # noqa: F811
    source, out = tmp_path / "in.txt", tmp_path / "out.txt"
    source.write_text("satz\n")
    out.write_text("former\n")
    refused(run, "--input", source, "--output", out, "min_length=9", "max_length=3")
    assert out.read_text() == "former\n"
    assert sorted(path.name for path in tmp_path.iterdir() if "txt" in path.name) == [
        "in.txt",
        "out.txt",
    ]


FILES = {
    "empty.txt": b"",
    "blank.jsonl": b'{"source": "a"}\n\n',
    "bad.txt": b"gut\nsch\xf6n\n",
    "bad.jsonl": b'{"source": "a"}\n{"source": \n',
    "list.jsonl": b"[1]\n",
    "number.jsonl": b'{"source": 3}\n',
    "half.jsonl": b'{"source": "\\ud83d"}\n',
    "there.jsonl": b'{"source": "a", "prediction": "b"}\n',
    "good.jsonl": b'{"source": "a", "text": "b"}\n',
    "good.csv": b"id,text\n1,a\n",
    "short.csv": b"id,source\n1\n",
    "twice.csv": b"source,source\n1,2\n",
    "quote.csv": b'id,source\n1,"a"b\n',
    "heading.csv": b"id,source\n",
    "jsonl.txt": b'{"source": "a"}\n',
}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "words", "message"),
    [
        ("empty.txt", (), "empty.txt: has no texts"),
        ("heading.csv", (), "heading.csv: has no texts"),
        ("none.txt", (), "none.txt: cannot be read (No such file or directory)"),
        ("bad.txt", (), "bad.txt:2: not UTF-8 text: invalid start byte 0xf6, byte 4"),
        ("bad.jsonl", (), "bad.jsonl:2: not JSON (Expecting value)"),
        ("blank.jsonl", (), "blank.jsonl:2: not JSON (Expecting value)"),
        ("list.jsonl", (), "list.jsonl:1: must be one JSON object, got [1]"),
        ("number.jsonl", (), "number.jsonl:1: 'source' must be a text, got 3"),
        ("half.jsonl", (), "half.jsonl:1: has half of a surrogate pair"),
        ("there.jsonl", (), "column 'prediction' is there already; name another one with --into"),
        ("good.jsonl", ("--column", "texd"), "no column 'texd'; there are source, text. Did you"),
        ("good.csv", (), "good.csv:2: no column 'source'; there are id, text; name one with"),
        ("short.csv", (), "short.csv:2: 1 cells, and the columns are id, source"),
        ("twice.csv", (), "twice.csv:1: two columns are called 'source'"),
        ("quote.csv", (), "quote.csv:2: not a row of cells ("),
        ("bad.txt", ("--column", "x"), "--column is for JSONL, CSV and TSV, not for lines; name"),
        ("jsonl.txt", (), "jsonl.txt: looks like JSONL; --format jsonl, or lines, says what it is"),
        ("good.csv", ("--format", "xml"), "--format must be one of lines, jsonl, csv, tsv, got"),
        ("good.jsonl", ("--output", "x.csv"), "x.csv: the texts come as jsonl and go out as jsonl"),
        ("good.jsonl", ("--split", "valid"), "--split is of a task's texts, not of --input"),
        ("good.jsonl", ("--data", "x"), "--data is of a task's texts, not of --input"),
        ("good.jsonl", ("beem=3",), "greedy: unknown key 'beem'"),
        ("good.jsonl", ("--limit", "0"), "--limit must be at least 1, got 0"),
    ],
)
def test_a_mistake_is_one_line(run, refused, tmp_path, name, words, message):  # noqa: F811
    for file, raw in FILES.items():
        (tmp_path / file).write_bytes(raw)
    assert message in refused(run, "--input", tmp_path / name, *words)


@pytest.mark.slow
def test_a_mistake_in_a_pipe_is_one_line_before_torch(run):
    for text, message in ((b"", "stdin: has no texts"), (b"\xff", "stdin:1: not UTF-8 text")):
        done = piped(text, run, "--input", "-")
        assert (done.returncode, done.stdout) == (2, b"")
        assert done.stderr.decode().startswith(f"error: {message}")
        assert done.stderr.count(b"\n") == 1


def test_what_is_read_is_what_a_spreadsheet_wrote(tmp_path):
    place = tmp_path / "x.csv"
    place.write_bytes('\ufeffid,source\r\n1,"a ""b"", c"\r\n\r\n2,"x\r\ny"\r\n'.encode())
    found = text_files.read(str(place), "csv", None)
    assert found.texts == ['a "b", c', "x\r\ny"]
    with pytest.raises(Refused, match="no column 'body'"):
        text_files.read(str(place), "csv", "body")
