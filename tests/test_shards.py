"""Shards are Megatron's to the byte, and no damage to them goes unnoticed."""

import json
import shutil
import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from januslm.config import Refused
from januslm.data import sealed
from januslm.data.shard_writer import Writer, dtype_for, write_manifest
from januslm.data.shards import BLOCK, open_corpus

SHA = "ab" * 32
EOS = 2
SIZES = [[3, 1, 700], [5], [64, 64, 1, 2, 900, 33]]  # tokens per document per shard


def corpus_of(folder: Path, documents: list[list[np.ndarray]], vocabulary: int = 1000) -> Path:
    shards = []
    for number, some in enumerate(documents):
        writer = Writer(folder, f"shard-{number:05d}", dtype_for(vocabulary), EOS)
        writer.add(some[:2])
        writer.add(some[2:])
        shards.append(writer.close())
    write_manifest(
        folder, shards, dtype=dtype_for(vocabulary), vocabulary=vocabulary, tokenizer=SHA, eos=EOS
    )
    return folder


@pytest.fixture(scope="module")
def documents():
    rng = np.random.default_rng(0)
    return [[rng.integers(5, 1000, size) for size in sizes] for sizes in SIZES]


@pytest.fixture(scope="module")
def folder(tmp_path_factory, documents):
    return corpus_of(tmp_path_factory.mktemp("corpus"), documents)


@pytest.fixture(scope="module")
def big(tmp_path_factory):
    """Three blocks of hashes and a bit."""
    rng = np.random.default_rng(1)
    documents = [rng.integers(5, 1000, 65_535) for _ in range(100)]
    folder = corpus_of(tmp_path_factory.mktemp("big"), [documents])
    assert (folder / "shard-00000.xxh").stat().st_size == 8 * 4
    return folder


def megatron(stem: Path) -> list[np.ndarray]:
    """A reader written from the format's description alone; it knows nothing of ours."""
    raw = stem.with_suffix(".idx").read_bytes()
    magic, version, code, count, ends = struct.unpack_from("<9sQBQQ", raw)
    assert (magic, version) == (b"MMIDIDX\x00\x00", 1)
    kind = {1: "u1", 2: "i1", 3: "<i2", 4: "<i4", 5: "<i8", 8: "<u2"}[code]
    place = struct.calcsize("<9sQBQQ")
    sizes = struct.unpack_from(f"<{count}i", raw, place)
    pointers = struct.unpack_from(f"<{count}q", raw, place + 4 * count)
    assert struct.unpack_from(f"<{ends}q", raw, place + 12 * count) == tuple(range(count + 1))
    assert len(raw) == place + 12 * count + 8 * ends
    tokens = stem.with_suffix(".bin").read_bytes()
    return [
        np.frombuffer(tokens, kind, size, pointer)
        for size, pointer in zip(sizes, pointers, strict=True)
    ]


@pytest.mark.parametrize("vocabulary", [1000, 65_536, 65_537])
def test_an_independent_reader_of_the_format_finds_the_same_documents(
    tmp_path, documents, vocabulary
):
    corpus_of(tmp_path, documents, vocabulary)
    for number, some in enumerate(documents):
        found = megatron(tmp_path / f"shard-{number:05d}")
        assert [one.tolist() for one in found] == [[*ids.tolist(), EOS] for ids in some]


def test_documents_come_back_without_their_eos(folder, documents):
    corpus = open_corpus(folder, SHA)
    flat = [ids for some in documents for ids in some]
    assert corpus.documents == len(flat)
    assert corpus.tokens == sum(len(ids) + 1 for ids in flat)
    for i, ids in enumerate(flat):
        found = corpus.document(i)
        assert found.dtype == np.int64
        assert found.tolist() == ids.tolist()


@pytest.mark.parametrize("length", [1, 7, 64, 512])
def test_windows_are_the_token_stream_of_each_shard_in_order(folder, documents, length):
    corpus = open_corpus(folder)
    streams = [np.concatenate([np.append(ids, EOS) for ids in some]) for some in documents]
    wanted = np.concatenate([s[: len(s) // length * length].reshape(-1, length) for s in streams])
    assert corpus.windows(length) == len(wanted)
    assert (corpus.read_windows(np.arange(len(wanted)), length) == wanted).all()
    shuffled = np.random.default_rng(0).integers(0, len(wanted), 50)
    assert (corpus.read_windows(shuffled, length) == wanted[shuffled]).all()
    assert (corpus.window(len(wanted) - 1, length) == wanted[-1]).all()


@pytest.mark.slow
@given(length=st.integers(1, 1000))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_pieces_cover_every_document_and_none_is_longer_than_asked(folder, documents, length):
    corpus = open_corpus(folder)
    pieces = [corpus.piece(i, length) for i in range(corpus.pieces(length))]
    flat = np.concatenate([ids for some in documents for ids in some])
    assert max(map(len, pieces)) <= length
    assert min(map(len, pieces)) >= 1
    assert np.concatenate(pieces).tolist() == flat.tolist()


@pytest.mark.parametrize("reader", ["document", "window", "piece"])
@pytest.mark.parametrize("where", [-1, 10**6])
def test_reading_past_the_ends_fails(folder, reader, where):
    corpus = open_corpus(folder)
    with pytest.raises(IndexError):
        getattr(corpus, reader)(where, *([] if reader == "document" else [64]))


def copied(folder: Path, to: Path) -> Path:
    shutil.copytree(folder, to)
    return to


@pytest.mark.slow
@given(data=st.data())
@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_any_flipped_bit_anywhere_is_a_named_error(folder, tmp_path_factory, data):
    path = data.draw(st.sampled_from(sorted(folder.iterdir())))
    raw = bytearray(path.read_bytes())
    place = data.draw(st.integers(0, len(raw) - 1))
    raw[place] ^= 1 << data.draw(st.integers(0, 7))
    damaged = copied(folder, tmp_path_factory.mktemp("flip") / "corpus")
    (damaged / path.name).write_bytes(raw)
    with pytest.raises(Refused, match=path.name):
        open_corpus(damaged, SHA, "full")
    if path.suffix != ".bin":  # all but the tokens themselves is checked at every opening
        with pytest.raises(Refused, match=path.name):
            open_corpus(damaged, SHA)
    shutil.rmtree(damaged)


@given(data=st.data())
@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_any_cut_and_any_missing_file_is_a_named_error_at_opening(folder, tmp_path_factory, data):
    path = data.draw(st.sampled_from(sorted(folder.iterdir())))
    damaged = copied(folder, tmp_path_factory.mktemp("cut") / "corpus")
    size = data.draw(st.integers(-1, path.stat().st_size - 1))
    if size < 0:
        (damaged / path.name).unlink()
    else:
        (damaged / path.name).write_bytes(path.read_bytes()[:size])
    with pytest.raises(Refused, match=path.name):
        open_corpus(damaged)
    shutil.rmtree(damaged)


def test_a_longer_file_is_a_named_error_at_opening(folder, tmp_path):
    damaged = copied(folder, tmp_path / "corpus")
    with open(damaged / "shard-00001.bin", "ab") as file:
        file.write(b"xx")
    with pytest.raises(Refused, match=r"shard-00001\.bin: has 14 bytes, manifest\.json says 12"):
        open_corpus(damaged)


def test_lazy_verification_finds_damage_when_its_block_is_first_read(big, tmp_path):
    damaged = copied(big, tmp_path / "corpus")
    with open(damaged / "shard-00000.bin", "r+b") as file:
        file.seek(2 * BLOCK + 77)
        file.write(b"\xff\xff")
    corpus = open_corpus(damaged, SHA, "lazy")
    length = BLOCK // 2 // 16  # sixteen windows a block
    corpus.read_windows(np.arange(32), length)
    with pytest.raises(Refused, match=rf"shard-00000\.bin: bytes {2 * BLOCK} to {3 * BLOCK - 1}"):
        corpus.window(40, length)
    with pytest.raises(Refused, match=r"shard-00000\.bin"):
        open_corpus(damaged, SHA, "full")


def test_a_sound_corpus_passes_every_verification(big):
    for verify in ("size", "lazy", "full"):
        corpus = open_corpus(big, SHA, verify)
        assert len(corpus.document(99)) == 65_535


def test_a_foreign_tokenizer_is_refused(folder):
    with pytest.raises(Refused, match=r"manifest\.json: the shards were made with tokenizer abab"):
        open_corpus(folder, "cd" * 32)


def test_a_manifest_of_another_format_is_refused(folder, tmp_path):
    damaged = copied(folder, tmp_path / "corpus")
    body = sealed.read(damaged / "manifest.json")
    body["dtype"] = "uint32"
    (damaged / "manifest.json").write_text(json.dumps(sealed.sealed(body)))
    with pytest.raises(Refused, match=r"manifest\.json: dtype 'uint32', possible are uint16"):
        open_corpus(damaged)
    body["format"] = 99
    (damaged / "manifest.json").write_text(json.dumps(sealed.sealed(body)))
    with pytest.raises(Refused, match=r"manifest\.json: format 99, this version reads 2"):
        open_corpus(damaged)


def test_an_unfinished_shard_has_no_final_name(tmp_path):
    writer = Writer(tmp_path, "shard-00000", "uint16", EOS)
    writer.add([np.arange(5, 50)])
    assert [path.name for path in tmp_path.iterdir()] == ["shard-00000.bin.new"]
    writer.close()
    assert sorted(path.suffix for path in tmp_path.iterdir()) == [".bin", ".idx", ".xxh"]
