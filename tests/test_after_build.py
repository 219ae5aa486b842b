"""Corpora put together, cut, mixed and converted: no document is lost, changed, or half there."""

import json
import os
import shutil
import struct
import subprocess
import sys
import tomllib
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import tokenizers
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from data_tools.convert import convert_from, convert_to
from data_tools.inspect_corpus import verify
from data_tools.merge import merge
from data_tools.mix import mix, whole_weights
from data_tools.new_folder import new_folder
from data_tools.split import pieces, split
from januslm.config import Refused
from januslm.data.sampler import Sampler
from januslm.data.shard_writer import Writer, dtype_for, write_manifest
from januslm.data.shards import open_corpus
from januslm.data.tokenizer import SPECIALS, Tokenizer
from tests.test_data_tools import ROOT, tokenizer

__all__ = ["tokenizer"]  # a fixture
EOS = 2
SOME = settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
DOCUMENT = st.lists(st.integers(0, 399), max_size=12)
SHARDS = st.lists(st.lists(DOCUMENT, min_size=1, max_size=8), min_size=1, max_size=4)


@pytest.fixture(scope="module")
def large(tmp_path_factory) -> Path:
    """A tokenizer of more than 65,536 tokens, whose ids take four bytes."""
    path = tmp_path_factory.mktemp("large") / "tokenizer.json"
    words = [*SPECIALS, *(f"w{i}" for i in range(70_000))]
    table = {word: i for i, word in enumerate(words)}
    tokenizers.Tokenizer(tokenizers.models.WordLevel(table, unk_token="<unk>")).save(str(path))
    return path


@pytest.fixture(params=["small", "large"])
def vocabulary(request, tokenizer, large) -> Path:
    return {"small": tokenizer, "large": large}[request.param]


def written(folder: Path, shards: list, file: Path, **about) -> Path:
    """A corpus of these documents, lists of ids, by shard; its tokenizer lies beside it."""
    model = Tokenizer.load(file)
    done = []
    for number, documents in enumerate(shards):
        writer = Writer(folder, f"shard-{number:05d}", dtype_for(model.size), EOS)
        writer.add(np.array(ids, np.int64) for ids in documents)
        done.append(writer.close())
    facts = {"dtype": dtype_for(model.size), "vocabulary": model.size, "tokenizer": model.sha256}
    write_manifest(folder, done, **facts, eos=EOS, **about)
    shutil.copy(file, folder.parent / "tokenizer.json")
    return folder


def texts(folder: Path) -> list[tuple[int, ...]]:
    corpus = open_corpus(folder, verify="full")
    return [tuple(corpus.document(i).tolist()) for i in range(corpus.documents)]


def token_bytes(folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in sorted(folder.glob("shard-*"))}


def emptied(path: Path) -> Path:
    """The folder, with nothing of an earlier example in it."""
    shutil.rmtree(path, ignore_errors=True)
    path.mkdir()
    return path


def silent(_: str) -> None:
    pass


# --- convert


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["megatron", "datatrove"])
@SOME
@given(shards=SHARDS)
def test_to_another_format_and_back_is_the_same_to_the_byte(tmp_path, vocabulary, kind, shards):
    place = emptied(tmp_path / "x")
    ours = written(place / "ours", shards, vocabulary)
    convert_to(kind, str(ours), str(place / "theirs"), silent)
    convert_from(kind, [str(place / "theirs")], str(place / "back"), str(vocabulary), silent)
    assert token_bytes(place / "back") == token_bytes(ours)
    verify(str(place / "back"), str(vocabulary), silent)


def megatron(stem: Path, documents: list[list[list[int]]], code: int, dtype: str) -> None:
    """PREFIX.bin and .idx as Megatron-LM's IndexedDatasetBuilder lays them: by the definition."""
    sequences = [ids for one in documents for ids in one]
    raw = b"".join(np.array(ids, dtype).tobytes() for ids in sequences)
    stem.with_name(f"{stem.name}.bin").write_bytes(raw)
    size, at, bounds = np.dtype(dtype).itemsize, 0, [0]
    pointers = []
    for ids in sequences:
        pointers.append(at)
        at += size * len(ids)
    for one in documents:
        bounds.append(bounds[-1] + len(one))
    head = b"MMIDIDX\x00\x00" + struct.pack("<QBQQ", 1, code, len(sequences), len(bounds))
    head += struct.pack(f"<{len(sequences)}i", *map(len, sequences))
    head += struct.pack(f"<{len(pointers)}q", *pointers) + struct.pack(f"<{len(bounds)}q", *bounds)
    stem.with_name(f"{stem.name}.idx").write_bytes(head)


@pytest.mark.slow
@pytest.mark.parametrize(("code", "dtype"), [(8, "<u2"), (4, "<i4"), (5, "<i8"), (3, "<i2")])
@SOME
@given(files=st.lists(st.lists(st.lists(DOCUMENT, max_size=3), max_size=5), min_size=1, max_size=3))
def test_megatron_files_of_any_type_are_read_document_by_document(
    tmp_path, tokenizer, code, dtype, files
):
    place = emptied(tmp_path / "x")
    for number, documents in enumerate(files):
        megatron(place / f"web_{number}_text", documents, code, dtype)
    said: list[str] = []
    convert_from("megatron", [str(place / "web_*")], str(place / "o"), str(tokenizer), said.append)
    whole = [[i for ids in one for i in ids] for documents in files for one in documents]
    wanted = [tuple(ids[:-1] if ids[-1:] == [EOS] else ids) for ids in whole]
    assert texts(place / "o") == wanted
    added = sum(ids[-1:] != [EOS] for ids in whole)
    assert (f"{added:,} documents had no </s>" in said[-1]) == bool(added)


def datatrove(path: Path, documents: list[list[int]], size: int, metadata: bool = True) -> None:
    """NAME.ds, .ds.index and .ds.metadata as datatrove's TokenizedFile lays them."""
    ends = np.cumsum([len(ids) for ids in documents]).tolist()
    flat = [i for ids in documents for i in ids]
    path.write_bytes(struct.pack(f"<{len(flat)}{'I' if size == 4 else 'H'}", *flat))
    path.with_name(f"{path.name}.index").write_bytes(struct.pack(f"<{len(ends)}Q", *ends))
    if metadata:
        text = f"gpt2|{size}\n{len(flat)}\n{len(flat)} T"
        path.with_name(f"{path.name}.metadata").write_text(text)


@pytest.mark.parametrize("size", [2, 4])
@pytest.mark.parametrize("metadata", [True, False])
def test_datatrove_files_of_two_and_four_bytes_are_read(tmp_path, tokenizer, size, metadata):
    first, second = [[7, 8, 2], [2], [399, 2]], [[5] * 30 + [2]]
    datatrove(tmp_path / "000_web.ds", first, size, metadata)
    datatrove(tmp_path / "001_web.ds", second, size, metadata)
    convert_from("datatrove", [str(tmp_path)], str(tmp_path / "o"), str(tokenizer), silent)
    assert texts(tmp_path / "o") == [tuple(ids[:-1]) for ids in first + second]


@pytest.fixture
def theirs(tmp_path) -> Path:
    place = tmp_path / "theirs"
    place.mkdir()
    megatron(place / "web", [[[7, 8, 9], [10, 2]], [[11, 2]]], 8, "<u2")
    datatrove(place / "web.ds", [[7, 8, 2], [9, 2]], 2)
    return place


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("megatron", "web.bin"),
        ("megatron", "web.idx"),
        ("datatrove", "web.ds"),
        ("datatrove", "web.ds.index"),
        ("datatrove", "web.ds.metadata"),
    ],
)
def test_a_file_cut_anywhere_is_refused_by_name_and_nothing_is_left(
    theirs, tmp_path, tokenizer, kind, name
):
    whole = (theirs / name).read_bytes()
    short = len(whole) if name != "web.ds.metadata" else whole.rindex(b"\n")
    out = tmp_path / "out"
    for size in range(short):
        (theirs / name).write_bytes(whole[:size])
        with pytest.raises(Refused, match=r"theirs/web\.(bin|idx|ds)") as raised:
            convert_from(kind, [str(theirs)], str(out), str(tokenizer), silent)
        assert "\n" not in str(raised.value)
        assert sorted(p.name for p in tmp_path.iterdir()) == ["theirs"]
    if name == "web.ds.metadata":  # what follows is for people, and all of it may be missing
        return
    (theirs / name).write_bytes(whole + b"\x00\x00")
    with pytest.raises(Refused, match=r"theirs/web\."):
        convert_from(kind, [str(theirs)], str(out), str(tokenizer), silent)
    (theirs / name).unlink()
    with pytest.raises(Refused, match=r"no .* file there|cannot be read"):
        convert_from(kind, [str(theirs)], str(out), str(tokenizer), silent)


def test_ids_that_the_tokenizer_has_not_are_refused(theirs, tmp_path, tokenizer):
    megatron(theirs / "web", [[[400, 2]]], 8, "<u2")
    with pytest.raises(Refused, match="ids from 2 to 400, the tokenizer's are 0 to 399"):
        convert_from("megatron", [str(theirs)], str(tmp_path / "o"), str(tokenizer), silent)
    megatron(theirs / "web", [[[-1, 2]]], 4, "<i4")
    with pytest.raises(Refused, match="ids from -1 to 2"):
        convert_from("megatron", [str(theirs)], str(tmp_path / "o"), str(tokenizer), silent)
    assert not (tmp_path / "o").exists()


def test_a_damaged_corpus_is_not_converted(tmp_path, tokenizer):
    ours = written(tmp_path / "ours", [[[5, 6], [7]]], tokenizer)
    raw = bytearray((ours / "shard-00000.bin").read_bytes())
    raw[2] ^= 1
    (ours / "shard-00000.bin").write_bytes(raw)
    with pytest.raises(Refused, match=r"shard-00000\.bin: bytes 0 to 9 do not match their hash"):
        convert_to("megatron", str(ours), str(tmp_path / "theirs"), silent)
    assert not (tmp_path / "theirs").exists()


# --- merge


@pytest.mark.slow
@SOME
@given(first=SHARDS, second=SHARDS)
def test_merged_corpora_hold_all_documents_in_their_order(tmp_path, tokenizer, first, second):
    place = emptied(tmp_path / "x")
    a = written(place / "a", [[[5], *first[0]], *first[1:]], tokenizer)
    b = written(place / "b", [[[6], *second[0]], *second[1:]], tokenizer)
    merge(str(place / "both"), [str(a), str(b)], silent)
    assert texts(place / "both") == texts(a) + texts(b)
    old = (a / "shard-00000.bin").stat().st_ino
    assert (place / "both" / "shard-00000.bin").stat().st_ino == old
    merge(str(place / "copy"), [str(a), str(b)], silent, copy=True)
    assert (place / "copy" / "shard-00000.bin").stat().st_ino != old
    assert token_bytes(place / "copy") == token_bytes(place / "both")
    assert open_corpus(place / "copy").fingerprint == open_corpus(place / "both").fingerprint


def test_train_and_valid_are_merged_each_by_itself(tmp_path, tokenizer):
    written(tmp_path / "a" / "train", [[[5]]], tokenizer, recipe="r")
    written(tmp_path / "a" / "valid", [[[6]]], tokenizer)
    written(tmp_path / "b" / "train", [[[7]], [[8]]], tokenizer)
    merge(str(tmp_path / "o"), [str(tmp_path / "a"), str(tmp_path / "b")], silent)
    assert texts(tmp_path / "o" / "train") == [(5,), (7,), (8,)]
    assert texts(tmp_path / "o" / "valid") == [(6,)]
    parts = open_corpus(tmp_path / "o" / "train").manifest["made_of"]
    assert [(one["corpus"], one["documents"]) for one in parts] == [("a/train", 1), ("b/train", 2)]
    assert (tmp_path / "o" / "tokenizer.json").read_bytes() == tokenizer.read_bytes()
    with pytest.raises(Refused, match=r"is a corpus, .* holds train and valid: not both"):
        merge(str(tmp_path / "p"), [str(tmp_path / "a"), str(tmp_path / "b" / "train")], silent)


def test_what_does_not_belong_together_is_not_merged(tmp_path, tokenizer, large):
    a = written(tmp_path / "1" / "a", [[[5]]], tokenizer)
    b = written(tmp_path / "2" / "b", [[[5], [6]]], large)
    with pytest.raises(Refused, match=r"b has the dtype int32, .*a has uint16"):
        merge(str(tmp_path / "o"), [str(a), str(b)], silent)
    with pytest.raises(Refused, match="are the same corpus; mix repeats one"):
        merge(str(tmp_path / "o"), [str(a), str(a)], silent)
    (b / "shard-00000.idx").write_bytes(b"x" * (b / "shard-00000.idx").stat().st_size)
    with pytest.raises(Refused, match=r"shard-00000\.idx: does not match its hash"):
        merge(str(tmp_path / "o"), [str(b), str(a)], silent)
    with pytest.raises(Refused, match="is there already; name a new folder"):
        merge(str(a), [str(a)], silent)
    assert not (tmp_path / "o").exists()


# --- split


@pytest.mark.slow
@SOME
@given(shards=SHARDS, share=st.floats(0.05, 0.95))
def test_every_document_is_on_one_side_which_its_tokens_alone_decide(
    tmp_path, tokenizer, shards, share
):
    place = emptied(tmp_path / "x")
    every = [[[i, i + 1] for i in range(5, 105)], *shards]
    ours = written(place / "ours", every, tokenizer)
    split(str(ours), str(place / "o"), {"a": str(share), "b": "rest"}, silent)
    a, b = texts(place / "o" / "a"), texts(place / "o" / "b")
    assert Counter(a) + Counter(b) == Counter(texts(ours))
    assert not set(a) & set(b)
    other = written(place / "other", [every[0][::-1]], tokenizer)
    split(str(other), str(place / "p"), {"a": str(share), "b": "rest"}, silent)
    same = {tuple(ids) for ids in every[0]}
    assert set(texts(place / "p" / "a")) == set(a) & same
    assert abs(len(set(a) & same) - 100 * share) < 25


def test_a_number_of_documents_is_that_number(tmp_path, tokenizer):
    ours = written(tmp_path / "ours", [[[i] for i in range(5, 105)]], tokenizer)
    sizes = {"test": "7", "valid": "0.2", "dev": "11", "train": "rest"}
    split(str(ours), str(tmp_path / "o"), sizes, silent)
    found = {name: texts(tmp_path / "o" / name) for name in sizes}
    assert (len(found["test"]), len(found["dev"])) == (7, 11)
    assert 8 < len(found["valid"]) < 34
    assert Counter(one for some in found.values() for one in some) == Counter(texts(ours))
    verify(str(tmp_path / "o" / "valid"), str(tokenizer), silent)


WRONG = [
    ({"a": "0.6", "b": "0.5"}, "b=0.5: only .* documents are left for it"),
    ({"a": "101"}, "a=101: only 100 documents are left for it"),
    ({"a": "1.5"}, "a=1.5: must be a share below 1, a number of documents, or 'rest'"),
    ({"a": "nan"}, "a=nan: must be"),
    ({"a": "100", "b": "rest"}, "b=rest: none of 100 documents falls to it"),
    ({"a": "rest", "b": "rest"}, "NAME=rest at most once"),
    ({"../a": "rest"}, "'../a' is no name of a folder in OUT"),
]


@pytest.mark.parametrize(("sizes", "message"), WRONG, ids=[message for _, message in WRONG])
def test_sizes_that_cannot_be_are_refused(tmp_path, tokenizer, sizes, message):
    ours = written(tmp_path / "ours", [[[i] for i in range(5, 105)]], tokenizer)
    with pytest.raises(Refused, match=message):
        split(str(ours), str(tmp_path / "o"), sizes, silent)
    assert not (tmp_path / "o").exists()


@pytest.mark.slow
@SOME
@given(shards=SHARDS, count=st.integers(1, 4))
def test_pieces_of_whole_shards_are_merged_to_the_same_bytes(tmp_path, tokenizer, shards, count):
    place = emptied(tmp_path / "x")
    shards = [[[5 + i], *one] for i, one in enumerate(shards)]
    ours = written(place / "ours", shards, tokenizer)
    if count > len(shards):
        with pytest.raises(Refused, match=f"which make 1 to {len(shards)} pieces, not {count}"):
            pieces(str(ours), str(place / "o"), count, silent)
        return
    pieces(str(ours), str(place / "o"), count, silent)
    merge(str(place / "m"), [str(place / "o" / f"piece-{i}") for i in range(count)], silent)
    assert token_bytes(place / "m") == token_bytes(ours)


# --- mix


@pytest.mark.parametrize(
    ("by", "numbers", "temperature"),
    [("weights", (3, 1), 1.0), ("epochs", (1, 2.5), 1.0), ("temperature", (), 3.0)],
)
@pytest.mark.parametrize("unit", ["pieces", "windows"])
def test_a_run_reads_what_the_table_says(tmp_path, tokenizer, by, numbers, temperature, unit):
    rng = np.random.default_rng(0)
    sizes = {"a": (300, 40), "b": (200, 9)}
    for name, (count, length) in sizes.items():
        documents = [[7] * int(rng.integers(1, 2 * length)) for _ in range(count)]
        written(tmp_path / name / "train", [documents], tokenizer)
        written(tmp_path / name / "valid", [[[5]]], tokenizer)
    given_ = [str(tmp_path / name) for name in sizes]
    if numbers:
        given_ = [f"{name}={number}" for name, number in zip(given_, numbers, strict=True)]
    said: list[str] = []
    out = tmp_path / "mix.toml"
    more = {"temperature": temperature, "unit": unit, "length": 18, "out": str(out)}
    mix(given_, by, said.append, **more)
    table = tomllib.loads(out.read_text())["data"]
    assert [one["corpus"] for one in table["valid"]] == [f"{tmp_path / n}/valid" for n in sizes]
    corpora = [open_corpus(one["corpus"]) for one in table["train"]]
    assert [corpus.folder for corpus in corpora] == [tmp_path / n / "train" for n in sizes]
    weights = [one["weight"] for one in table["train"]]
    rows = [line.split() for line in said[0].splitlines()[2:]]
    total = float(rows[-1][3].replace(",", ""))
    counts = [c.windows(16) if unit == "windows" else c.pieces(16) for c in corpora]
    tokens = [c.tokens / n for c, n in zip(corpora, counts, strict=True)]
    rounds = round(total / sum(w * t for w, t in zip(weights, tokens, strict=True)) * sum(weights))
    source, _, _ = Sampler(counts, weights, seed=1).locate(np.arange(rounds))
    for i, corpus in enumerate(corpora):
        trained = (source == i).sum() * tokens[i]
        assert trained == pytest.approx(float(rows[i][4].replace(",", "")), rel=0.02)
        assert trained / corpus.tokens == pytest.approx(float(rows[i][5]), rel=0.02)
    share = float(rows[0][3].rstrip("%")) / 100
    a, b = (corpus.tokens for corpus in corpora)
    wanted = {
        "weights": 3 / 4,
        "epochs": a / (a + 2.5 * b),
        "temperature": a ** (1 / 3) / (a ** (1 / 3) + b ** (1 / 3)),
    }[by]
    assert share == pytest.approx(wanted, rel=0.003)


@SOME
@given(st.lists(st.floats(0.001, 1), min_size=1, max_size=6))
def test_weights_are_whole_small_and_in_proportion(shares):
    weights = whole_weights(shares)
    assert min(weights) >= 1
    assert sum(weights) <= 4096 + len(shares)
    assert np.gcd.reduce(weights) == 1
    for weight, share in zip(weights, shares, strict=True):
        assert weight / sum(weights) == pytest.approx(share / sum(shares), abs=0.002)


# --- the folder that is written


def test_a_new_folder_is_whole_or_not_there(tmp_path):
    out = tmp_path / "out"

    def fail(aside: Path) -> None:
        (aside / "half").touch()
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError), new_folder(out) as aside:
        fail(aside)
    assert not list(tmp_path.iterdir())
    left = tmp_path / ".out.unfinished"
    (left / "folder").mkdir(parents=True)
    (left / "half").touch()
    with new_folder(out) as aside:
        assert not list(aside.iterdir())
        (aside / "whole").touch()
        with pytest.raises(Refused, match="another command is writing it"), new_folder(out):
            pass
    assert [path.name for path in out.iterdir()] == ["whole"]
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


# --- commands


def run(*words: object, cwd: Path) -> subprocess.CompletedProcess:
    command = [sys.executable, "-P", "-m", "data_tools", *map(str, words)]
    environment = {"PYTHONPATH": str(ROOT)}
    return subprocess.run(
        command, cwd=cwd, env=os.environ | environment, capture_output=True, text=True, timeout=60
    )


@pytest.mark.slow
def test_the_commands_say_what_they_do_in_one_line_or_why_not(tmp_path, tokenizer):
    for name, first in (("a", 5), ("b", 100)):
        written(tmp_path / name / "train", [[[first + i] for i in range(50)]] * 2, tokenizer)
    for words, code, wanted in (
        ("merge all a b", 0, "all/train: 200 documents, 400 tokens of 2 corpora\n"),
        ("merge all a b", 2, "all: is there already; name a new folder\n"),
        ("split all/train parts train=rest test=10", 0, "parts/test: "),
        ("split all/train half --pieces 2", 0, "half/piece-1: 2 shards, 200 tokens\n"),
        ("split all/train x", 2, "error: either NAME=SHARE ..., e.g. train=rest test=500, or --"),
        ("mix a=3 b=1 -o mix.toml", 0, '[[data.train]]\ncorpus = "a/train"\nweight = 3\n'),
        ("mix a b", 2, "error: 'a': write CORPUS=NUMBER, its weights above 0"),
        ("mix a b --temperature 0", 2, "error: --temperature must be more than 0, got 0.0\n"),
        (
            "convert --to megatron all mega",
            0,
            "megatron files of all/train: 4 shards",
        ),
        ("convert --from megatron mega back", 2, "error: --tokenizer FILE: what the ids mean"),
        (f"convert --from megatron mega back --tokenizer {tokenizer}", 0, "back: 200 documents"),
        ("convert a out", 2, "error: either --from FORMAT FILES"),
        ("inspect back 1", 0, "--- document"),
    ):
        done = run(*words.split(), cwd=tmp_path)
        assert done.returncode == code, (words, done.stdout, done.stderr)
        assert wanted in (done.stderr if code else done.stdout), (words, done.stdout, done.stderr)
        assert not code or done.stderr.count("\n") == 1
    assert json.loads((tmp_path / "back" / "manifest.json").read_text())["documents"] == 200
