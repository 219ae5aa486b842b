"""A small corpus through every source, limit and accident."""

import gzip
import json
import os
import re
import signal
import subprocess
import sys
import time
import zipfile
from collections import Counter
from pathlib import Path

import numpy as np
import psutil
import pytest
import zstandard

from data_tools import damaged, summaries
from data_tools.build import build
from data_tools.documents import Document, Dropped
from data_tools.package_pairs import pairs
from data_tools.prose import paragraphs
from data_tools.recipe import bundles, read
from data_tools.sources import docstrings, hf, jsonl, parquet, text
from januslm.config import Refused
from januslm.data.shards import open_corpus
from januslm.data.tokenizer import Tokenizer, train_tokenizer

ROOT = Path(__file__).resolve().parents[1]
WORDS = ["the", "cat", "sat", "on", "a", "mat", "while", "seven", "dogs", "looked", "for", "balls"]


def sentences(count: int, seed: int) -> list[str]:
    rng = np.random.default_rng(seed)
    return [f"{i} " + " ".join(rng.choice(WORDS, rng.integers(3, 30))) for i in range(count)]


def lines(texts: list[str]) -> bytes:
    return "".join(json.dumps({"text": one}) + "\n" for one in texts).encode()


def run(*words: object, **options) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "data_tools", *map(str, words)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, **options)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("tokenizer") / "tokenizer.json"
    train_tokenizer(sentences(200, 0), 400, path)
    return path


def recipe(
    folder: Path, tokenizer: Path | str, sources: str, more: str = "", out: str = "out"
) -> Path:
    """A corpus file in `folder` that reads `folder`."""
    path = folder / "corpus.toml"
    path.write_text(
        f'out = "{folder / out}"\nroot = "{folder}"\ntokenizer = "{tokenizer}"\nprocesses = 1\n'
        f"{more}\n{sources}"
    )
    return path


def shard_bytes(out: Path) -> dict[str, bytes]:
    """Every file of the finished corpora, by name."""
    return {str(p.relative_to(out)): p.read_bytes() for p in sorted(out.glob("*/*"))}


def texts_of(inputs: list) -> list[str | Dropped]:
    found = [one for some in inputs for one in some.read()]
    return [one.text if isinstance(one, Document) else one for one in found]


# --- sources


@pytest.mark.parametrize("suffix", ["", ".gz", ".zst"])
def test_jsonl_reads_the_same_documents_plain_and_packed(tmp_path, suffix):
    raw = lines(sentences(50, 1))
    pack = {"": bytes, ".gz": gzip.compress, ".zst": zstandard.compress}[suffix]
    (tmp_path / f"a.jsonl{suffix}").write_bytes(pack(raw))
    assert texts_of(jsonl.inputs(tmp_path, files=["a.*"])) == sentences(50, 1)


def test_a_zst_of_several_frames_is_read_to_its_end(tmp_path):
    frames = [zstandard.compress(lines(sentences(500, seed))) for seed in range(3)]
    (tmp_path / "a.jsonl.zst").write_bytes(b"".join(frames))
    wanted = [one for seed in range(3) for one in sentences(500, seed)]
    assert texts_of(jsonl.inputs(tmp_path, files=["a.*"])) == wanted


def test_jsonl_counts_each_kind_of_bad_line_and_reads_on(tmp_path):
    rows = [
        b'{"text": "good"}',
        b'{"text": ',
        b'{"other": 1}',
        b"[1]",
        b"",
        b'{"text": null}',
        b'{"text": "bad \xff byte"}',
        b'{"text": "lone \\ud800 half"}',
    ]
    (tmp_path / "a.jsonl").write_bytes(b"\n".join(rows))
    found = texts_of(jsonl.inputs(tmp_path, files=["a.jsonl"]))
    assert found[0] == "good"
    assert Counter(one.reason for one in found if isinstance(one, Dropped)) == {
        "not JSON": 1,
        "no text under 'text'": 3,
    }
    repaired = [one for some in jsonl.inputs(tmp_path, files=["a.jsonl"]) for one in some.read()]
    assert [one.text for one in repaired if isinstance(one, Document) and one.repaired] == [
        "bad � byte",
        "lone ��� half",
    ]
    dropped = texts_of(jsonl.inputs(tmp_path, files=["a.jsonl"], invalid="drop"))
    assert sum(one == Dropped("invalid UTF-8") for one in dropped) == 2


@pytest.mark.parametrize("line", [b'{"text": "bad \xff byte"}', b"{", b'{"text": "\\udc00"}'])
def test_invalid_refuse_names_the_file_and_the_line(tmp_path, line):
    (tmp_path / "a.jsonl").write_bytes(b'{"text": "good"}\n' + line)
    with pytest.raises(Refused, match=r"a\.jsonl:2: not (UTF-8|JSON)"):
        texts_of(jsonl.inputs(tmp_path, files=["a.jsonl"], invalid="refuse"))


@pytest.mark.slow
@pytest.mark.parametrize("suffix", [".gz", ".zst"])
def test_a_packed_file_that_was_cut_short_is_refused_by_name(tmp_path, suffix):
    pack = {".gz": gzip.compress, ".zst": zstandard.compress}[suffix]
    packed = pack(lines(sentences(5000, 1)))
    (tmp_path / f"a.jsonl{suffix}").write_bytes(packed[: len(packed) // 2])
    with pytest.raises(Refused, match=rf"a\.jsonl\{suffix}: damaged or cut short"):
        texts_of(jsonl.inputs(tmp_path, files=["a.*"]))


def test_a_packed_file_with_a_flipped_bit_is_refused_or_reads_the_same(tmp_path):
    packed = gzip.compress(lines(sentences(200, 1)))
    whole = [json.loads(line)["text"] for line in gzip.decompress(packed).splitlines()]
    ends = []
    for place in range(0, len(packed), 97):
        flipped = bytearray(packed)
        flipped[place] ^= 16
        (tmp_path / "a.jsonl.gz").write_bytes(flipped)
        try:
            ends.append(texts_of(jsonl.inputs(tmp_path, files=["a.*"])) == whole)
        except Refused as error:
            ends.append(str(error).startswith(f"{tmp_path}/a.jsonl.gz: damaged or cut short"))
    assert all(ends)
    assert len(ends) > 10


def test_jsonl_finds_text_under_a_dotted_key(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"doc": {"body": "deep"}}\n')
    assert texts_of(jsonl.inputs(tmp_path, files=["a.jsonl"], field="doc.body")) == ["deep"]


@pytest.mark.parametrize(
    ("split", "wanted"),
    [
        ("file", ["one\ntwo\n\nthree"]),
        ("blank", ["one\ntwo", "three"]),
        ("line", ["one", "two", "three"]),
    ],
)
def test_plain_text_is_split_as_asked(tmp_path, split, wanted):
    (tmp_path / "a.txt").write_text("one\ntwo\n\nthree\n")
    assert texts_of(text.inputs(tmp_path, files=["*.txt"], split=split)) == wanted


def test_words_that_subword_nmt_cut_are_read_whole_if_asked(tmp_path):
    (tmp_path / "a.bpe.de").write_text("ein ha@@ us\ngr@@ oß@@\nmail @@ home\n")
    for undone, wanted in (
        (True, ["ein haus", "groß", "mail home"]),
        (False, ["ein ha@@ us", "gr@@ oß@@", "mail @@ home"]),
    ):
        inputs = text.inputs(tmp_path, files=["*.de"], split="line", undo_bpe=undone)
        assert texts_of(inputs) == wanted


def test_every_text_of_a_zip_is_read_in_its_encoding(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("d/b.txt", "fünf".encode("latin-1"))
        archive.writestr("d/a.txt", b"four")
        archive.writestr("README", b"not this")
    inputs = text.inputs(tmp_path, files=["a.zip"], split="file", encoding="latin-1")
    assert texts_of(inputs) == ["four", "fünf"]


def test_parquet_reads_the_named_column_and_counts_empty_cells(tmp_path):
    import pyarrow
    import pyarrow.parquet

    table = pyarrow.table({"body": ["one", None, "three"], "text": [1, 2, 3]})
    pyarrow.parquet.write_table(table, tmp_path / "a.parquet")
    found = texts_of(parquet.inputs(tmp_path, files=["*.parquet"], field="body"))
    assert found == ["one", Dropped("no text under 'body'"), "three"]
    with pytest.raises(Refused, match=r"no column 'words', there are body, text"):
        texts_of(parquet.inputs(tmp_path, files=["*.parquet"], field="words"))
    (tmp_path / "a.parquet").write_bytes(b"PAR1 nothing")
    with pytest.raises(Refused, match=r"a\.parquet: not a readable parquet file"):
        texts_of(parquet.inputs(tmp_path, files=["*.parquet"]))


def test_a_dataset_saved_on_disk_is_read(tmp_path):
    import datasets

    datasets.disable_progress_bars()
    datasets.Dataset.from_dict({"text": sentences(30, 2)}).save_to_disk(tmp_path / "saved")
    assert texts_of(hf.inputs(tmp_path, path="saved")) == sentences(30, 2)
    with pytest.raises(Refused, match="no column 'words', there are text"):
        hf.inputs(tmp_path, path="saved", field="words")


def test_docstrings_are_found_without_importing_anything(tmp_path):
    path = tmp_path / "module.py"
    path.write_text(
        '"""The module."""\nraise SystemExit\nif True:\n  class A:\n    """The class."""\n'
        '    async def f(self):\n      """The method."""\n      def g():\n        """Inner."""\n'
    )
    assert dict(docstrings.docstrings(path)) == {
        "": "The module.",
        "A": "The class.",
        "A.f": "The method.",
        "A.f.g": "Inner.",
    }


def test_prose_leaves_out_code_tables_markup_and_unwanted_sections():
    doc = """Add the ``left`` to the :class:`~torch.Tensor` on the right.

    It keeps the shape of both. For example::

        add(1, 2)

    >>> add(1, 2)
    3

    Args:
        left (int): the first of the numbers
            and its other half
        right: the second one

    This sentence stands after the arguments.

    Returns
    -------
    int
        The sum of both.

    ==== ====
    a    b
    ==== ====
    """
    kept = paragraphs(doc, sections=False)
    assert kept == [
        "Add the left to the torch.Tensor on the right.",
        "It keeps the shape of both. For example",
        "This sentence stands after the arguments.",
    ]
    assert "left (int): the first of the numbers and its other half right: the second one" in (
        paragraphs(doc)
    )


@pytest.mark.slow
def test_a_package_that_is_not_installed_is_refused_with_the_nearest_name():
    with pytest.raises(Refused, match=r"package 'numpi' is not installed.*Did you mean 'numpy'"):
        docstrings.inputs(Path(), include=["numpi"])


@pytest.mark.slow
def test_a_cap_per_package_counts_the_files_it_leaves_out():
    inputs = docstrings.inputs(Path(), include=["tqdm"], minimum_words=5, package_megabytes=0.001)
    found = [one for some in inputs for one in some.read()]
    size = sum(len(one.text.encode()) for one in found if isinstance(one, Document))
    assert 1000 <= size < 20_000
    assert any(one == Dropped("files past package_megabytes") for one in found)


# --- build


@pytest.fixture(scope="module")
def mixed(tmp_path_factory, tokenizer) -> tuple[Path, list[str]]:
    """A corpus of two sources with every kind of trouble, and what its build said."""
    folder = tmp_path_factory.mktemp("mixed")
    (folder / "a.jsonl").write_bytes(lines([*sentences(300, 3), "", "  ", "word " * 900]))
    (folder / "b.jsonl").write_bytes(lines(sentences(300, 3)[:40]) + b'{"text": "x \xff y"}\n{\n')
    (folder / "c.txt").write_text("\n\n".join(sentences(100, 4)) + "\n\n" + "long " * 3000)
    path = recipe(
        folder,
        tokenizer,
        '[sources.web]\nkind = "jsonl"\nfiles = ["*.jsonl"]\n[sources.text]\nfiles = ["*.txt"]\n'
        "[filters.max_tokens]\nlimit = 500\n[filters.max_bytes]\nlimit = 10000\n",
        "validation = 0.1\npart_megabytes = 0.001",
    )
    said: list[str] = []
    build(read(str(path)), said.append)
    return folder, said


@pytest.mark.slow
def test_every_document_that_was_read_is_kept_or_counted_by_its_reason(mixed):
    counters = open_corpus(mixed[0] / "out" / "train").manifest["counters"]
    web, plain = counters["web"], counters["text"]
    assert (web["read"], web["repaired"]) == (345, 1)
    assert web["dropped"] == {
        "duplicate (exact)": 40,
        "empty": 2,
        "not JSON": 1,
        "longer than 500 tokens": 1,
    }
    assert web["train"] + web["valid"] == 301
    assert plain["read"] == 101
    assert plain["dropped"] == {"longer than 10000 bytes": 1}


def test_train_and_valid_share_no_document_and_lose_none(mixed, tokenizer):
    words = Tokenizer.load(tokenizer)
    found = {}
    for split in ("train", "valid"):
        corpus = open_corpus(mixed[0] / "out" / split, words.sha256, "full")
        found[split] = {words.decode(corpus.document(i)) for i in range(corpus.documents)}
        assert len(found[split]) == corpus.documents
    assert not found["train"] & found["valid"]
    assert found["train"] | found["valid"] == {*sentences(300, 3), *sentences(100, 4), "x � y"}
    assert 15 < len(found["valid"]) < 75


def test_the_table_of_a_build_shows_every_drop(mixed):
    said = "\n".join(mixed[1])
    for words in ("dropped: duplicate", "dropped: not JSON", "repaired", "kept for valid"):
        assert words in said


def test_a_second_build_of_the_same_recipe_reuses_everything_and_says_so(mixed):
    before = shard_bytes(mixed[0] / "out")
    said: list[str] = []
    build(read(str(mixed[0] / "corpus.toml")), said.append)
    assert [line.split(",")[0].rpartition(": ")[2] for line in said] == ["already built"] * 2
    assert shard_bytes(mixed[0] / "out") == before


def test_a_changed_recipe_is_refused_until_fresh_names_the_key(mixed):
    changed = read(str(mixed[0] / "corpus.toml"), ["filters.max_tokens.limit=600"])
    message = r"differs in filters\.max_tokens\.limit \(500 then, 600 now\).*--f"
    with pytest.raises(Refused, match=message):
        build(changed, print)


def test_a_changed_input_is_refused(mixed):
    extra = mixed[0] / "d.txt"
    extra.write_text("one more")
    try:
        with pytest.raises(Refused, match="another recipe, which differs in inputs"):
            build(read(str(mixed[0] / "corpus.toml")), print)
    finally:
        extra.unlink()


@pytest.mark.slow
def test_fresh_builds_anew_and_leaves_nothing_of_the_old(tmp_path, tokenizer):
    (tmp_path / "a.jsonl").write_bytes(lines(sentences(50, 5)))
    path = str(recipe(tmp_path, tokenizer, '[sources.jsonl]\nfiles = ["*.jsonl"]'))
    build(read(path, ["validation=0.3"]), lambda _: None)
    assert (tmp_path / "out" / "valid" / "manifest.json").exists()
    build(read(path), lambda _: None, fresh=True)
    assert not (tmp_path / "out" / "valid" / "manifest.json").exists()
    assert open_corpus(tmp_path / "out" / "train").documents == 50


@pytest.mark.slow
def test_a_corpus_with_nothing_in_it_is_refused_with_the_reasons(tmp_path, tokenizer):
    (tmp_path / "0.jsonl").touch()
    (tmp_path / "a.jsonl").write_bytes(lines(["", " "]))
    path = recipe(tmp_path, tokenizer, '[sources.jsonl]\nfiles = ["*.jsonl"]')
    said: list[str] = []
    with pytest.raises(Refused, match="train would be empty; what became of the texts stands"):
        build(read(str(path)), said.append)
    assert "dropped: empty  2" in said[-1]
    assert not (tmp_path / "out" / "train" / "manifest.json").exists()


@pytest.mark.parametrize(
    ("more", "sources", "message"),
    [
        ("", '[sources.jsonl]\nfile = ["a"]', r"sources\.jsonl: unknown key 'file'; there are "),
        ("", '[sources.jsonl]\nfiles = "a"', r"sources\.jsonl: files must be a list, got 'a'"),
        ("", "[sources.jsonl]", r"sources\.jsonl: files is missing"),
        ("", "[sources.jsnl]", r"no 'jsnl' in sources/.*Did you mean 'jsonl'"),
        ("", "[sources.text]\nsplit = 'word'\nfiles = ['a']", "split must be one of file, blank"),
        ("", "[sources]", "sources must have at least one table"),
        ("validation = 1.0", "[sources.docstrings]", "validation must be .* less than 1, got 1.0"),
        (
            "proceses = 2",
            "[sources.docstrings]",
            "unknown key 'proceses'.*Did you mean 'processes'",
        ),
    ],
)
def test_a_mistake_in_a_corpus_file_is_one_line_that_names_the_key(
    tmp_path, tokenizer, more, sources, message
):
    path = recipe(tmp_path, tokenizer, sources, more)
    with pytest.raises(Refused, match=message) as raised:
        read(str(path))
    assert "\n" not in str(raised.value)


def test_a_pattern_without_files_and_an_unknown_group_are_refused(tmp_path, tokenizer):
    path = str(recipe(tmp_path, tokenizer, '[sources.jsonl]\nfiles = ["*.jsonl"]'))
    with pytest.raises(Refused, match=r"no file matches '\*\.jsonl' in "):
        bundles(read(path))
    (tmp_path / "good.jsonl").write_bytes(lines(["a"]))
    with pytest.raises(Refused, match=r"no input 'goof\.jsonl'; there is good\.jsonl"):
        bundles(read(path, ['validation_groups=["goof.jsonl"]']))


@pytest.mark.slow
def test_a_tokenizer_that_is_named_and_missing_is_refused(tmp_path):
    (tmp_path / "a.jsonl").write_bytes(lines(["a"]))
    path = recipe(tmp_path, tmp_path / "none.json", '[sources.jsonl]\nfiles = ["*.jsonl"]')
    done = run("build", path)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "none.json: cannot be read (No such file or directory)" in done.stderr


@pytest.mark.slow
def test_a_build_learns_its_own_tokenizer_if_no_other_is_named(tmp_path):
    (tmp_path / "a.jsonl").write_bytes(lines(sentences(50, 5)))
    path = recipe(tmp_path, "", '[sources.jsonl]\nfiles = ["*.jsonl"]', "vocabulary = 300")
    build(read(str(path)), lambda _: None)
    made = Tokenizer.load(tmp_path / "out" / "tokenizer.json")
    assert made.size == 300
    assert open_corpus(tmp_path / "out" / "train", made.sha256).documents == 50


# --- real processes


@pytest.mark.slow
def test_tokenizer_build_inspect_and_verify_work_as_commands(tmp_path):
    (tmp_path / "a.jsonl").write_bytes(lines(sentences(300, 6)))
    path = recipe(tmp_path, tmp_path / "t.json", '[sources.jsonl]\nfiles = ["*.jsonl"]')
    for command in ("tokenizer", "build"):
        done = run(command, path, "vocabulary=300")
        assert done.returncode == 0, done.stderr
    assert "kept for train" in done.stdout
    done = run("inspect", tmp_path / "out", 2, "--tokenizer", tmp_path / "t.json")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("--- document") == 2
    assert any(one in done.stdout for one in sentences(300, 6))
    done = run("verify", tmp_path / "out", "--tokenizer", tmp_path / "t.json")
    assert (done.returncode, "sound, 1 shards, 300 documents" in done.stdout) == (0, True)
    shard = tmp_path / "out" / "train" / "shard-00000.bin"
    raw = bytearray(shard.read_bytes())
    raw[1000] ^= 4
    shard.write_bytes(raw)
    done = run("verify", tmp_path / "out")
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "shard-00000.bin: bytes 0 to" in done.stderr


@pytest.fixture(scope="module")
def many(tmp_path_factory, tokenizer) -> Path:
    """Twelve files of three pieces, duplicates across them; their corpus, by one process."""
    folder = tmp_path_factory.mktemp("many")
    for number in range(12):
        texts = sentences(3000, number) + sentences(200, number // 2)
        (folder / f"{number:02d}.jsonl").write_bytes(lines(texts))
    recipe(
        folder,
        tokenizer,
        '[sources.jsonl]\nfiles = ["*.jsonl"]\n[filters.length]\nleast_words = 6\n',
        "validation = 0.05\npart_megabytes = 0.1\nshard_megabytes = 0.3\nrejected = true",
    )
    build(read(str(folder / "corpus.toml")), lambda _: None)
    return folder


@pytest.mark.slow
def test_the_shards_do_not_depend_on_how_many_processes_made_them(many, tmp_path):
    done = run("build", many / "corpus.toml", f"out={tmp_path}", "processes=2")
    assert done.returncode == 0, done.stderr
    assert len(list((tmp_path / "train").glob("*.bin"))) > 1
    assert shard_bytes(tmp_path) == shard_bytes(many / "out")


@pytest.mark.slow
@pytest.mark.parametrize("finished", [1, 20, 36])
def test_a_killed_build_goes_on_to_the_same_bytes(many, tmp_path, finished):
    path, out = many / "corpus.toml", tmp_path / "out"
    command = [sys.executable, "-m", "data_tools", "build", str(path), f"out={out}", "processes=2"]
    child = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    journal = out / "journal.jsonl"
    while not journal.exists() or journal.read_bytes().count(b"\n") < 1 + finished:
        assert child.poll() is None
        time.sleep(0.002)
    workers = psutil.Process(child.pid).children(recursive=True)
    os.kill(child.pid, signal.SIGKILL)
    child.communicate()
    _, alive = psutil.wait_procs(workers, timeout=10)
    assert not alive  # nobody goes on writing beside the next build
    assert not (out / "train" / "manifest.json").exists()
    with open(journal, "ab") as file:
        file.write(b'{"part": 3, "sha')  # as a power cut may leave it
    done = run("build", path, f"out={out}")
    assert done.returncode == 0, done.stderr
    assert "of 36 parts are there already" in done.stdout
    assert shard_bytes(out) == shard_bytes(many / "out")


@pytest.mark.slow
def test_two_builds_never_write_to_one_folder(many, tmp_path):
    path, out = many / "corpus.toml", tmp_path / "out"
    command = [sys.executable, "-m", "data_tools", "build", str(path), f"out={out}"]
    first = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    while not (out / "journal.jsonl").exists():
        assert first.poll() is None
        time.sleep(0.002)
    second = run("build", path, f"out={out}")
    first.communicate()
    assert (first.returncode, second.returncode) == (0, 2)
    assert "another build is writing to it" in second.stderr


@pytest.mark.slow
def test_summaries_share_no_package_and_keep_their_rules(tmp_path):
    packages = ["--train", "tqdm,jinja2", "--valid", "markdown", "--test", "packaging"]
    done = run("summaries", tmp_path, *packages)
    assert done.returncode == 0, done.stderr
    read_back = {
        split: [json.loads(line) for line in (tmp_path / f"{split}.jsonl").open()]
        for split in ("train", "valid", "test")
    }
    owners = {split: {pair["package"] for pair in found} for split, found in read_back.items()}
    assert owners == {"train": {"tqdm", "jinja2"}, "valid": {"markdown"}, "test": {"packaging"}}
    for pair in (pair for found in read_back.values() for pair in found):
        assert set(pair) == {"id", "package", "source", "target"}
        assert 4 <= len(pair["target"].split()) <= 30
        assert 20 <= len(pair["source"].split()) <= 400
    everything = [pair["source"] for found in read_back.values() for pair in found]
    assert len(set(everything)) == len(everything)
    refused = run("damaged", tmp_path, "--test", "tqdm", "--train", "tqdm")
    assert refused.returncode == 2
    assert refused.stderr == "error: package 'tqdm' cannot be in both test and train\n"
    refused = run("summaries", tmp_path, "--processes", 0)
    assert (refused.returncode, refused.stderr) == (
        2,
        "error: --processes must be at least 1, got 0\n",
    )


@pytest.mark.slow
def test_the_counts_of_pairs_account_for_every_docstring():
    found, counts = pairs(docstrings.chosen(["packaging"], [])[0], summaries.pairs)
    dropped = sum(number for key, number in counts.items() if key.startswith("dropped: "))
    assert len(found) + dropped == counts["docstrings"] > 100


SENTENCE = "Returns the parsed version, or raises an error if the text isn't a well-known one."


@pytest.mark.slow
def test_damage_takes_case_signs_and_bounds_of_words_and_no_letter():
    found, _ = pairs(docstrings.chosen(["packaging"], [])[0], damaged.pairs)
    assert len(found) > 100
    for pair in found:
        assert re.fullmatch(r"[a-z]+( [a-z]+)+", pair.source)
        assert pair.source.replace(" ", "") == re.sub("[^a-z]", "", pair.target.lower())
        assert 6 <= len(pair.target.split()) <= 20
    changed = [len(p.source.split()) != len(p.target.replace("-", " ").split()) for p in found]
    assert 0.5 < sum(changed) / len(changed) < 1  # words are split and joined, not in all


def test_damage_is_the_same_on_every_machine():
    assert damaged.damaged(SENTENCE) == (
        "returns the pars ed ve rsion or ra ises an error if the text isnt a well knownone"
    )


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("Too few words here.", "not of 6 to 20 words"),
        ("this does not begin with a capital.", "no sentence from a capital to a full stop"),
        ("This one has no full stop at all", "no sentence from a capital to a full stop"),
        ("This calls some_function with other words.", "code, numbers, quotations or signs"),
        ("This makes a DataFrame of other words.", "code, numbers, quotations or signs"),
        ("This sets x to something else again.", "code, numbers, quotations or signs"),
    ],
)
def test_what_could_not_be_guessed_is_no_pair(text, reason):
    assert list(damaged.pairs("p", "p/x.py:f", text)) == [reason]


def test_every_sentence_of_a_docstring_is_a_pair_of_its_own():
    text = f"{SENTENCE}\n\nThe second one has just as many words. Short one."
    first, second, reason = damaged.pairs("p", "p/x.py:f", text)
    assert (first.id, first.target) == ("p/x.py:f:1", SENTENCE)
    assert (second.id, second.target) == ("p/x.py:f:2", "The second one has just as many words.")
    assert reason == "not of 6 to 20 words"
