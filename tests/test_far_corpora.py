"""A corpus at an address gives what it gives in a folder; its cache stays in bounds."""

import multiprocessing
import os
import shutil
import signal
from dataclasses import replace

import fsspec
import numpy as np
import pytest

from januslm.config import Refused
from januslm.data import remote
from januslm.data.block_cache import BlockCache
from januslm.data.shard_writer import Writer, write_manifest
from januslm.data.shards import BLOCK, open_corpus
from januslm.data.token_samples import PretrainData, Source, Texts
from januslm.data.tokenizer import train_tokenizer
from tests.launching import wait_until
from tests.range_server import serving

LENGTH = 500
ROOMY = 1e9


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """web/ of two shards with 3 and 1 blocks of 4 MiB, and news/ of one; and their tokenizer."""
    folder = tmp_path_factory.mktemp("far")
    words = train_tokenizer(["a few words of text"], 300, folder / "tokenizer.json")
    rng = np.random.default_rng(1)
    for name, sizes in (("web", (4_800_000, 900_000)), ("news", (700_000,))):
        shards = []
        for number, size in enumerate(sizes):
            with Writer(
                folder / name, f"shard-{number:05d}", "uint16", words.special.eos
            ) as writer:
                ids = rng.integers(5, words.size, size).astype(np.uint16)
                cuts = np.cumsum(rng.integers(1, 1800, size // 900))
                writer.add(np.split(ids, cuts[cuts < size]))
                shards.append(writer.close())
        about = {"dtype": "uint16", "vocabulary": words.size, "eos": words.special.eos}
        write_manifest(folder / name, shards, tokenizer=words.sha256, **about)
    return folder, words


@pytest.fixture
def server(place):
    with serving(place[0]) as one:
        yield one


def folder_bytes(folder) -> int:
    return sum(path.stat().st_size for path in folder.glob("*/*") if path.parent.name != "locks")


def blocks_sent(server) -> dict:
    return {key: times for key, times in server.sent.items() if key[0].endswith(".bin")}


@pytest.mark.slow
@pytest.mark.parametrize("ranges", [True, False])
def test_documents_pieces_and_windows_are_those_of_the_folder(place, tmp_path, ranges):
    with serving(place[0], ranges) as server:
        cache = BlockCache(tmp_path / "cache", ROOMY)
        far = open_corpus(f"{server.address}/web/", place[1].sha256, "full", cache)
        near = open_corpus(place[0] / "web", place[1].sha256)
        assert far.fingerprint == near.fingerprint
        assert (far.lengths() == near.lengths()).all()
        rng = np.random.default_rng(0)
        windows = rng.integers(0, near.windows(LENGTH), 200)
        edge = BLOCK // 2 // LENGTH  # the window across two blocks
        windows = np.r_[windows, edge, near.windows(LENGTH) - 1, 0]
        assert (far.read_windows(windows, LENGTH) == near.read_windows(windows, LENGTH)).all()
        for i in rng.integers(0, near.documents, 100):
            assert (far.document(i) == near.document(i)).all()
        assert far.pieces(LENGTH) == near.pieces(LENGTH)
        for i in rng.integers(0, near.pieces(LENGTH), 100):
            assert (far.piece(i, LENGTH) == near.piece(i, LENGTH)).all()


def settings(*corpora: str, **more) -> PretrainData:
    sources = [Source(corpus, weight) for corpus, weight in zip(corpora, (3, 1), strict=False)]
    return replace(PretrainData(sources, sources, length=LENGTH), **more)


def texts(data: PretrainData, words, seed: int = 7) -> Texts:
    return Texts(data, data.train, words, seed)


@pytest.mark.slow
@pytest.mark.parametrize("unit", ["pieces", "windows"])
@pytest.mark.parametrize("shuffle", [0, 1, 2])
def test_samples_come_in_the_same_order_and_with_the_same_bytes(
    place, server, tmp_path, unit, shuffle
):
    folder, words = place
    options = {"unit": unit, "shuffle_blocks": shuffle, "cache": str(tmp_path / "cache")}
    near = texts(settings(f"{folder}/web", f"{folder}/news", **options), words)
    far = texts(settings(f"{server.address}/web", f"{server.address}/news", **options), words)
    assert far.fingerprint == near.fingerprint
    assert len(far) == len(near)
    for first in (0, 8, 5000, len(near) - 4, 3 * len(near)):
        ids = np.arange(first, first + 8)
        pairs = zip(far.read(ids), near.read(ids), strict=True)
        assert all((one == other).all() for (_, one), (_, other) in pairs)


def test_a_second_run_on_this_machine_fetches_the_manifest_alone(place, server, tmp_path):
    address = f"{server.address}/web"
    for _ in range(2):
        cache = BlockCache(tmp_path / "cache", ROOMY)
        corpus = open_corpus(address, None, "size", cache)
        corpus.check(0)
        corpus.check(1)
    assert server.sent.pop(("/web/manifest.json", "")) == 2
    assert set(server.sent.values()) == {1}
    assert sum(name.endswith(".bin") for name, _ in server.sent) == 4


def test_the_cache_never_grows_over_its_size_and_what_is_read_stays_right(place, server, tmp_path):
    cache = BlockCache(tmp_path / "cache", 10e6, held=1)
    far = open_corpus(f"{server.address}/web", None, "size", cache)
    near = open_corpus(place[0] / "web")
    amount = near.windows(LENGTH)
    for first in (0, amount // 3, 2 * amount // 3, amount - 5, 0, amount // 2):
        ids = np.arange(first, first + 5)
        held = far.read_windows(ids, LENGTH)
        assert (held == near.read_windows(ids, LENGTH)).all()
        assert 0 < folder_bytes(tmp_path / "cache") <= 10e6
    assert max(blocks_sent(server).values()) > 1  # some had to go and came again


def test_a_cache_smaller_than_a_file_is_refused_by_its_key(place, server, tmp_path):
    corpus = open_corpus(f"{server.address}/web", None, "size", BlockCache(tmp_path / "c", 1e6))
    with pytest.raises(Refused, match=r"holds 0\.001 GB at most.*raise data\.cache_gigabytes"):
        corpus.document(0)
    data = settings(f"{server.address}/web", shuffle_blocks=8, cache_gigabytes=0.01)
    with pytest.raises(Refused, match=r"cache_gigabytes must be at least 0\.07 for shuffle_blocks"):
        texts(data, place[1])


def test_a_block_damaged_in_the_cache_is_fetched_again(place, server, tmp_path):
    folder = tmp_path / "cache"
    open_corpus(f"{server.address}/news", None, "size", BlockCache(folder, ROOMY)).check(0)
    [block] = folder.glob("*/000000")
    raw = bytearray(block.read_bytes())
    raw[1000] ^= 1
    block.write_bytes(raw)
    far = open_corpus(f"{server.address}/news", None, "size", BlockCache(folder, ROOMY))
    assert (far.document(0) == open_corpus(place[0] / "news").document(0)).all()
    far.check(0)
    assert [*blocks_sent(server).values()] == [2]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("suffix", "message"),
    [
        ("bin", r"shard-00000\.bin: bytes 0 to \d+: what was fetched does not match its hash"),
        ("idx", r"shard-00000\.idx: what was fetched does not match its hash"),
        ("json", r"manifest\.json: not JSON|manifest\.json: does not match its own hash"),
    ],
)
def test_what_is_damaged_far_away_is_refused_by_its_name(place, tmp_path, suffix, message):
    shutil.copytree(place[0] / "news", tmp_path / "news")
    [path] = (tmp_path / "news").glob(f"*.{suffix}")
    raw = bytearray(path.read_bytes())
    raw[200] ^= 1
    path.write_bytes(raw)
    with serving(tmp_path) as server:
        cache = BlockCache(tmp_path / "cache", ROOMY)
        with pytest.raises(Refused, match=message):
            open_corpus(f"{server.address}/news", None, "size", cache).check(0)
    assert not [*(tmp_path / "cache").glob("*/0*")]


@pytest.mark.slow
@pytest.mark.parametrize("ranges", [True, False])
def test_a_server_that_breaks_off_or_is_busy_is_asked_again(place, tmp_path, monkeypatch, ranges):
    monkeypatch.setattr(remote, "WAITS", (0.0,) * 4)
    near = open_corpus(place[0] / "web")
    with serving(place[0], ranges) as server:
        server.fails, server.breaks = 2, 1
        far = open_corpus(f"{server.address}/web", None, "size", BlockCache(tmp_path, ROOMY))
        for i in (3, near.documents // 2):
            server.breaks = 2
            assert (far.document(i) == near.document(i)).all()
            assert server.breaks == 0 or not ranges  # else its half may have been enough


def test_an_address_without_a_corpus_is_one_line(server, tmp_path, monkeypatch):
    monkeypatch.setattr(remote, "WAITS", (0.0,))
    cache = BlockCache(tmp_path / "c", ROOMY)
    for address, message in (
        (f"{server.address}/none", r"/none/manifest\.json: cannot be read \(404"),
        ("http://127.0.0.1:9/x", r"x/manifest\.json: cannot be read \(.*refused"),
        ("nowhere://x/y", "nowhere"),
    ):
        with pytest.raises(Refused, match=message) as refused:
            open_corpus(address, None, "size", cache)
        assert "\n" not in str(refused.value)
        assert str(refused.value).count("manifest.json") <= 1
    with pytest.raises(Refused, match=r"only a run's data\.train and data\.valid may be far away"):
        open_corpus(f"{server.address}/news")


def test_what_fsspec_knows_is_an_address_too(place, tmp_path):
    memory = fsspec.filesystem("memory")
    for path in (place[0] / "news").iterdir():
        memory.pipe_file(f"/bucket/news/{path.name}", path.read_bytes())
    far = open_corpus("memory://bucket/news", None, "full", BlockCache(tmp_path / "c", ROOMY))
    assert (far.document(9) == open_corpus(place[0] / "news").document(9)).all()


def test_the_group_of_blocks_that_comes_next_is_fetched_before_it_is_read(place, server, tmp_path):
    data = settings(
        f"{server.address}/web", unit="windows", shuffle_blocks=1, cache=str(tmp_path / "cache")
    )
    far = texts(data, place[1])
    far.read(np.arange(2))
    wait_until(lambda: len(blocks_sent(server)) >= 2)
    assert len(blocks_sent(server)) <= 3  # a sample's block, and the next group: not all four


def read_all(address: str, folder: str, seed: int, size: float, answers) -> None:
    """One rank: a sum over samples in its own order."""
    far = open_corpus(address, None, "size", BlockCache(folder, size))
    order = np.random.default_rng(seed).permutation(far.windows(LENGTH))[:400]
    answers.put(int(far.read_windows(np.sort(order), LENGTH).sum()))


def ranks(count: int, *arguments) -> list:
    """So many processes that read at once; they and the queue of their answers."""
    context = multiprocessing.get_context("fork")
    answers = context.Queue()
    address, folder, size = arguments
    made = [
        context.Process(target=read_all, args=(address, str(folder), seed, size, answers))
        for seed in range(count)
    ]
    for one in made:
        one.start()
    return [made, answers]


@pytest.mark.slow
@pytest.mark.parametrize("size", [ROOMY, 9e6])
def test_ranks_of_a_machine_share_a_cache(place, server, tmp_path, size):
    folder = tmp_path / "cache"
    made, answers = ranks(3, f"{server.address}/web", folder, size)
    found = sorted(answers.get(timeout=120) for _ in made)
    for one in made:
        one.join()
        assert one.exitcode == 0
    near = open_corpus(place[0] / "web")
    orders = (np.random.default_rng(seed).permutation(near.windows(LENGTH)) for seed in range(3))
    assert found == sorted(int(near.read_windows(o[:400], LENGTH).sum()) for o in orders)
    assert folder_bytes(folder) <= size
    if size == ROOMY:
        assert set(blocks_sent(server).values()) == {1}  # nobody fetched what another had
    assert not [*folder.glob("*/*.new")]


@pytest.mark.slow
def test_a_rank_killed_while_it_fetches_stops_nobody_else(place, server, tmp_path):
    folder, address = tmp_path / "cache", f"{server.address}/news"
    server.held = ".bin"
    [first], answers = ranks(1, address, folder, ROOMY)
    assert server.arrived.acquire(timeout=60)
    os.kill(first.pid, signal.SIGKILL)
    first.join()
    server.open.set()
    [second], answers = ranks(1, address, folder, ROOMY)
    near = open_corpus(place[0] / "news")
    order = np.random.default_rng(0).permutation(near.windows(LENGTH))[:400]
    assert answers.get(timeout=60) == int(near.read_windows(order, LENGTH).sum())
    second.join()
