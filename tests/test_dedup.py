"""Which documents are duplicates: against plain computations by the definition."""

import contextlib
import inspect
import itertools
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from xxhash import xxh3_128_digest

from data_tools import sections
from data_tools.clusters import clusters, dropped
from data_tools.dedup import minhash, paragraph, url
from data_tools.documents import Document
from data_tools.duplicates import PACKAGE, Equal, Similar, checked, deduplicator, tables
from data_tools.find_duplicates import Search, masked, record_limit
from data_tools.journal import part_file
from data_tools.sections import DamagedFile
from januslm.config import Refused
from januslm.data.shard_writer import Writer
from januslm.registry import find, names, options

WORDS = ["the", "cat", "sat", "on", "a", "mat", "while", "dogs", "looked", "for", "balls", "now"]


@pytest.fixture
def folder(tmp_path) -> Iterator[Path]:
    """Of a file system in memory where there is one: hundreds of small files are synced."""
    memory = Path("/dev/shm")
    if not memory.is_dir():
        yield tmp_path
        return
    with tempfile.TemporaryDirectory(dir=memory) as name:
        yield Path(name)


# --- by the definition, in memory, document by document


def kept_by_definition(
    documents: list[Document], lengths: list[int], ways: dict[str, dict]
) -> list[int]:
    """Of each document 0, or which of the deduplicators drops it, from 1."""
    by = [0] * len(documents)
    for place, (name, table) in enumerate(ways.items(), 1):
        way = deduplicator(name, table)
        there = [i for i, one in enumerate(by) if not one]
        groups = equals(way, documents, there) if isinstance(way, Equal) else alike(
            way, documents, there
        )  # fmt: skip
        for group in groups:
            best = max(group, key=lambda i: (way.keep == "longest") * lengths[i])
            for i in group:
                by[i] = place if i != best else 0
    return by


def equals(way: Equal, documents: list[Document], there: list[int]) -> list[list[int]]:
    """The documents of each key."""
    groups: dict[bytes, list[int]] = {}
    for i in there:
        if (key := way.key(documents[i])) is not None:
            groups.setdefault(key, []).append(i)
    return [*groups.values()]


def alike(way: Similar, documents: list[Document], there: list[int]) -> list[list[int]]:
    """What hangs together by neighbours in a band whose sketches agree; plain union-find."""
    prints = {i: way.sketched(documents[i]) for i in there}
    parent = {i: i for i in there}

    def root(i: int) -> int:
        return i if parent[i] == i else root(parent[i])

    last: dict[tuple, int] = {}
    for i in there:
        for band, key in enumerate(prints[i][0] if prints[i] else ()):
            other = last.get((band, key))
            if other is not None and agree(way, prints[other][1], prints[i][1]):
                parent[max(root(i), root(other))] = min(root(i), root(other))
            last[band, key] = i
    groups: dict[int, list[int]] = {}
    for i in there:
        groups.setdefault(root(i), []).append(i)
    return [*groups.values()]


def agree(way: Similar, ours: bytes, theirs: bytes) -> bool:
    """Bin by bin."""
    if way.agree is None:
        return True
    pairs = [(a, b) for a, b in zip(ours, theirs, strict=True) if a or b]
    return sum(a == b for a, b in pairs) / len(pairs) >= way.agree.keywords["threshold"]


# --- the mechanism, step by step, as the workers do it


def found(
    folder: Path,
    documents: list[Document],
    lengths: list[int],
    ways: dict[str, dict],
    cuts: list[int],
    records: int,
    rng: np.random.Generator,
) -> list[int]:
    """The same by the steps, of parts cut at `cuts`, the steps of a kind in any order."""
    starts = [0, *cuts, len(documents)]
    for part, (start, end) in enumerate(itertools.pairwise(starts)):
        writer = Writer(folder, part_file(folder, part, "bin").stem, "uint16", 2)
        writer.add([np.arange(size) for size in lengths[start:end]])
        writer.close()
        for name, table in ways.items():
            prints = [deduplicator(name, table).print_of(one) for one in documents[start:end]]
            part_file(folder, part, name).write_bytes(b"".join(prints))
    for place, table in enumerate(ways.values()):
        search = Search(folder, place, tuple(ways), table, tuple(starts), records)
        for kind, count, step in search.phases():
            for number in rng.permutation(count):
                size = step(search, int(number))
                assert search.file(kind, int(number)).stat().st_size == size
    return masked(folder, [*ways][-1], records, 0, len(documents)).tolist()


def corpus(rng: np.random.Generator, size: int) -> list[Document]:
    """Random texts, their copies and half copies, at few addresses; some short, some empty."""
    texts: list[str] = []
    for _ in range(size):
        text = " ".join(rng.choice(WORDS, rng.integers(0, 30)))
        if texts and rng.random() < 0.6:
            words = texts[rng.integers(len(texts))].split()
            for place in rng.integers(0, len(words) + 1, rng.integers(0, 3)):
                words.insert(place, str(rng.choice(WORDS)))
            text = " ".join(words)
        if rng.random() < 0.1:
            text = text.upper() + "!"
        texts.append(text)
    urls = [f"http://a.org/{number}" if number < 9 else "" for number in rng.integers(0, 30, size)]
    return [Document(text, "g", url=address) for text, address in zip(texts, urls, strict=True)]


WAYS = [
    {"exact": {}},
    {"url": {"keep": "longest"}},
    {"minhash": {"bands": 8, "rows": 2, "ngram": 2, "threshold": 0.0}},
    {"minhash": {"bands": 9, "rows": 1, "ngram": 1, "threshold": 0.6, "keep": "longest"}},
    {
        "url": {},
        "exact": {},
        "minhash": {"bands": 4, "rows": 3, "ngram": 3, "threshold": 0.5, "seed": 7},
    },
]


@pytest.mark.slow
@pytest.mark.parametrize("ways", WAYS, ids=lambda ways: "-".join(ways))
@pytest.mark.parametrize("batch", range(4))
def test_the_steps_find_what_the_definition_does(folder, ways, batch):
    ways = checked(ways, "test")
    lost = 0
    for case in range(15):
        rng = np.random.default_rng([batch, case])
        size = int(rng.choice([0, 1, 2, 5, 20, 60]))
        documents = corpus(rng, size)
        lengths = [len(one.text.split()) for one in documents]
        cuts = sorted(rng.integers(0, size + 1, rng.integers(0, 5)).tolist())
        records = 2 ** int(rng.integers(3, 10))
        own = folder / f"{case}"
        own.mkdir()
        wanted = kept_by_definition(documents, lengths, ways)
        assert found(own, documents, lengths, ways, cuts, records, rng) == wanted, case
        lost += sum(one > 0 for one in wanted)
    assert lost > 20


@pytest.mark.slow
@pytest.mark.parametrize("keep", ["first", "longest"])
def test_without_a_threshold_all_pairs_that_share_a_band_are_one_cluster(folder, keep):
    """The textbook's definition: compare every document with every other."""
    rng = np.random.default_rng(5)
    documents = corpus(rng, 120)
    lengths = [len(one.text.split()) for one in documents]
    table = {"bands": 6, "rows": 2, "ngram": 2, "threshold": 0.0, "keep": keep}
    ways = checked({"minhash": table}, "test")
    hashes = minhash.functions(12, 2, 0)
    found_words = [minhash.words(one.text) for one in documents]
    bands = np.stack([numbers(one, hashes).reshape(6, 2) for one in found_words])
    component = np.arange(120)
    for i, j in itertools.combinations(range(120), 2):
        if (bands[i] == bands[j]).all(axis=1).any() and found_words[i] and found_words[j]:
            component[component == component[j]] = component[i]
    stay = {
        max(np.flatnonzero(component == one), key=lambda i: (keep == "longest") * lengths[i])
        for one in component
    }
    by = found(folder, documents, lengths, ways, [50], 64, rng)
    assert [i for i, one in enumerate(by) if not one] == sorted(stay)
    assert 10 < len(stay) < 110


@pytest.mark.slow
@pytest.mark.parametrize("name", names(PACKAGE))
def test_of_documents_that_are_all_equal_one_stays(folder, name):
    documents = [Document("the same words in each of them " * 3, "g", url="http://a.org")] * 300
    ways = checked(tables(name, "test"), "test")
    by = found(folder, documents, [4] * 300, ways, [100, 100], 32, np.random.default_rng(0))
    assert by == [0] + [1] * 299
    largest = max(path.stat().st_size for path in folder.glob("duplicates-*-join-*"))
    assert largest < 32 * 300 * 20  # each key once a run, however many documents have it


@pytest.mark.slow
@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.lists(st.tuples(st.integers(0, 40), st.integers(0, 40)), max_size=30), max_size=6),
    st.booleans(),
)
def test_clusters_are_the_components_of_the_pairs(lists, longest):
    arrays = [np.array(one, np.uint64).reshape(-1, 2) for one in lists]
    members, first = clusters(lambda: iter(arrays))
    component = {number: {number} for one in lists for pair in one for number in pair}
    for left, right in (pair for one in lists for pair in one):
        both = component[left] | component[right]
        component |= dict.fromkeys(both, both)
    assert members.tolist() == sorted(component)
    assert first.tolist() == [min(component[number]) for number in members.tolist()]
    lengths = np.array([number % 7 for number in members.tolist()])
    stay = {max(sorted(group), key=lambda n: longest * (n % 7)) for group in component.values()}
    lost = dropped(members, first, lengths if longest else None)
    assert lost.tolist() == sorted(component.keys() - stay)


@pytest.mark.parametrize("size", [10, 1000, 30_000])
@pytest.mark.parametrize("blocks", [1, 7])
def test_a_long_chain_of_pairs_is_one_cluster(size, blocks):
    rng = np.random.default_rng(size)
    links = rng.permutation(size).astype(np.uint64)
    pairs = np.stack([links[:-1], links[1:]], axis=1)[rng.permutation(size - 1)]
    members, first = clusters(lambda: iter(np.array_split(pairs, blocks)))
    assert members.tolist() == list(range(size))
    assert not first.any()


# --- what a signature is


def plain_words(text: str) -> list[str]:
    """Runs of letters, digits, underscores; letters of scripts without spaces alone."""
    found: list[str] = []
    inside = False
    for letter in text.lower():
        alone = bool(minhash.WORD.fullmatch(letter)) and not letter.isascii() and any(
            low <= letter <= high
            for low, high in [("\u0e00", "\u0eff"), ("\u1000", "\u109f"), ("\u1780", "\u17ff"),
                              ("\u3040", "\u30ff"), ("\u3400", "\u4dbf"), ("\u4e00", "\u9fff"),
                              ("\uf900", "\ufaff")]
        )  # fmt: skip
        if alone:
            found.append(letter)
            inside = False
        elif letter.isalnum() or letter == "_":
            found[-1:] = [found[-1] + letter] if inside else [*found[-1:], letter]
            inside = True
        else:
            inside = False
    return found


LETTERS = "aB9_ .,-\n\t\x00\x7f'\u00df\u4e2d\u6587\u3042\u0e01\uac00\U0001f600"


@settings(max_examples=200, deadline=None)
@given(st.text(st.sampled_from(LETTERS), max_size=40))
def test_words_are_runs_of_letters_and_letters_where_none_writes_spaces(text):
    assert [word.decode() for word in minhash.words(text)] == plain_words(text)


@settings(max_examples=200, deadline=None)
@given(st.text(st.characters(max_codepoint=127), max_size=60))
def test_ascii_is_read_by_the_same_rule_as_all_texts(text):
    assert minhash.words(text) == [one.encode() for one in minhash.WORD.findall(text.lower())]


def test_composed_and_decomposed_letters_are_the_same_word():
    assert minhash.words("Caf\u00e9 NA\u00cfVE") == minhash.words("cafe\u0301 nai\u0308ve")
    assert len(minhash.words("caf\u00e9")) == 1


def shingles(text: str, size: int) -> set[tuple[bytes, ...]]:
    found = minhash.words(text)
    return {tuple(found[i : i + size]) for i in range(max(1, len(found) - size + 1))}


def jaccard(one: str, other: str, size: int = 5) -> float:
    """Of the sets of word n-grams."""
    left, right = shingles(one, size), shingles(other, size)
    return len(left & right) / len(left | right)


def numbers(found: list[bytes], hashes: minhash.Functions) -> np.ndarray:
    """A signature; each of its numbers by itself, of Python's integers."""
    of_words, factors, summands = (one.tolist() for one in hashes)
    every = minhash.grams(found, np.array(of_words, np.uint64)).tolist() if found else [0]
    least = [
        min((f * gram + s) % 2**64 >> 32 for gram in every)
        for f, s in zip(factors, summands, strict=True)
    ]
    return np.array(least, np.uint32)


def test_a_signature_is_the_least_hash_of_each_function():
    rng = np.random.default_rng(3)
    hashes = minhash.functions(30, 5, 1)
    for document in corpus(rng, 30):
        if found := minhash.words(document.text):
            ours = minhash.signature(minhash.grams(found, hashes[0]), *hashes[1:])
            assert ours.tolist() == numbers(found, hashes).tolist()


def pairs_of_texts(size: int, count: int) -> Iterator[tuple[list[bytes], list[bytes], float]]:
    """The words of a text, of one with some words changed, and how their 5-grams overlap."""
    rng = np.random.default_rng(size)
    for _ in range(count):
        words = [str(number) for number in rng.integers(0, 10**6, size)]
        others = [*words]
        for place in rng.choice(size, rng.integers(1, size // 12), replace=False):
            others[place] = "x"
        one, other = " ".join(words), " ".join(others)
        yield minhash.words(one), minhash.words(other), jaccard(one, other)


def test_equal_numbers_of_a_signature_estimate_the_overlap_of_ngrams():
    """Binomial: each number is equal with the probability of the true overlap."""
    of_words, *hashes = minhash.functions(112, 5, 0)
    errors = []
    for one, other, true in pairs_of_texts(150, 300):
        ours, theirs = (
            minhash.signature(minhash.grams(w, of_words), *hashes) for w in (one, other)
        )
        errors.append(((ours == theirs).mean() - true) / np.sqrt(true * (1 - true) / 112))
    assert abs(np.mean(errors)) < 4 / np.sqrt(300)
    assert 0.85 < np.std(errors) < 1.15


@pytest.mark.slow
@pytest.mark.parametrize(("size", "deviation"), [(60, 0.015), (300, 0.015), (3000, 0.02)])
def test_a_sketch_estimates_the_overlap_more_closely(size, deviation):
    """126 numbers of a signature err by 0.045 at an overlap of one half."""
    of_words, *_ = minhash.functions(1, 5, 0)
    errors = []
    for one, other, true in pairs_of_texts(size, 100):
        ours, theirs = (minhash.sketch(minhash.grams(w, of_words))[None] for w in (one, other))
        errors.append(minhash.overlap(ours, theirs)[0] - true)
    assert abs(np.mean(errors)) < 0.004
    assert np.std(errors) < deviation


def test_texts_of_fewer_words_than_an_ngram_are_compared_as_a_whole():
    way = minhash.deduplicator(ngram=5)

    def shown(text):
        return way.print_of(Document(text, "g"))

    assert shown("Yes, of course!") == shown("yes of course")
    assert shown("yes of course") != shown("yes of") != shown("of course")
    assert shown("") == shown(" ?! ") == bytes(way.size)


def test_a_signature_is_the_same_on_every_machine():
    text = "The quick brown fox jumps over the lazy dog, \u00fcber alle Z\u00e4une hinweg."
    digest = xxh3_128_digest(minhash.deduplicator().print_of(Document(text, "g"))).hex()
    assert digest == "096668e622de8cdb04ac953b2ad72402"


def test_a_long_text_is_hashed_in_pieces_and_to_the_same_numbers(monkeypatch):
    text = " ".join(str(number) for number in range(5000))
    whole = minhash.deduplicator().print_of(Document(text, "g"))
    monkeypatch.setattr(minhash, "CHUNK", 77)
    assert minhash.deduplicator().print_of(Document(text, "g")) == whole


# --- paragraphs


@settings(max_examples=200, deadline=None)
@given(st.text(st.sampled_from("ab \t\n"), max_size=30), st.sampled_from(["blank", "line"]))
def test_paragraphs_end_to_end_are_the_text(text, split):
    way = paragraph.deduplicator(split=split)
    pieces = way.pieces(text)
    assert "".join(pieces) == text
    inside = [piece.strip() for piece in pieces]
    ends = r"\n[ \t]*\n" if split == "blank" else r"\n"
    assert not any(re.search(ends, piece) for piece in inside)
    assert [one for one in inside if one] == [
        one.strip() for one in re.split(ends, text) if one.strip()
    ]


def test_paragraphs_of_few_words_are_left_alone_and_white_space_does_not_count():
    way = paragraph.deduplicator(least_words=3)
    prints = [way.print_of(Document(text, "g")) for text in ("a b", "a b c", " a\tb\n c\n\n", "")]
    assert prints[0] == prints[3] == bytes(16)
    assert prints[1] == prints[2] != bytes(16)


# --- addresses


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("http://a.org/x", "https://A.org:443/x#part", True),
        ("http://a.org", "http://a.org/", True),
        ("http://a.org:80/?q=1", "https://a.org/?q=1", True),
        ("http://a.org/x", "http://a.org/X", False),
        ("http://a.org/x", "http://a.org/x/", False),
        ("http://a.org/?q=1", "http://a.org/?q=2", False),
        ("http://a.org:8080/", "http://a.org/", False),
        ("http://www.a.org/", "http://a.org/", False),
        ("ftp://a.org/x", "http://a.org/x", False),
        ("http://[broken", "http://[broken", True),
        ("http://a.org:port/", "http://a.org:other/", False),
    ],
)
def test_addresses_of_one_page_are_one(one, other, same):
    assert (url.address(one) == url.address(other)) is same


# --- options


@pytest.mark.parametrize("name", names(PACKAGE))
def test_a_deduplicator_says_its_options(name):
    function = find(PACKAGE, name).deduplicator
    every = inspect.signature(function).parameters.values()
    assert all(one.kind is one.KEYWORD_ONLY for one in every)
    assert isinstance(function(**options(function, {}, name)), Equal | Similar)
    with pytest.raises(Refused, match=f"{name}: unknown key 'no such option'"):
        options(function, {"no such option": 1}, name)


def test_a_name_names_and_tables_say_the_same():
    assert tables("exact", "f") == tables(["exact"], "f") == tables({"exact": {}}, "f")
    assert tables("", "f") == tables([], "f") == {}
    assert [*tables(["url", "exact", "minhash"], "f")] == ["url", "exact", "minhash"]


@pytest.mark.parametrize(
    ("given_", "message"),
    [
        ("minhsah", r"no 'minhsah' in dedup/.*Did you mean 'minhash'"),
        ([3], "no '3' in dedup/"),
        (3, "f: deduplicate must be a name, a list or tables, got 3"),
        (["exact", "exact"], "f: deduplicate names 'exact' twice"),
        ({"exact": 1}, "f: deduplicate.exact must be a table, got 1"),
        ({"minhash": {"bands": 0}}, "f: deduplicate.minhash: bands must be at least 1"),
        ({"minhash": {"keep": "last"}}, "keep must be one of first, longest, got 'last'"),
        ({"minhash": {"threshold": 1.5}}, "threshold must be at least 0 and at most 1, got 1.5"),
    ],
)
def test_a_mistake_is_refused_by_its_key(given_, message):
    with pytest.raises(Refused, match=message):
        checked(tables(given_, "f"), "f")


def test_more_memory_is_more_records():
    assert [record_limit(size) for size in (1e-9, 0.002, 1, 256)] == [1, 2, 1024, 2**18]


# --- files of sections


@pytest.mark.slow
@settings(max_examples=100, deadline=None)
@given(st.lists(st.lists(st.integers(0, 2**64 - 1), max_size=9), min_size=1, max_size=5), st.data())
def test_no_damage_of_a_section_is_read(tmp_path_factory, lists, data):
    path = tmp_path_factory.mktemp("sections") / "file"
    arrays = [np.array(one, np.uint64) for one in lists]
    assert sections.write(path, arrays) == path.stat().st_size
    whole = path.read_bytes()
    damaged = bytearray(whole)
    place = data.draw(st.integers(0, 8 * len(whole) - 1))
    damaged[place // 8] ^= 1 << place % 8
    for raw in (bytes(damaged), whole[: place // 8], b""):
        path.write_bytes(raw)
        for number, wanted in enumerate(arrays):
            with contextlib.suppress(DamagedFile):
                assert sections.read(path, number, np.dtype("<u8")).tolist() == wanted.tolist()
    path.unlink()
    with pytest.raises(DamagedFile):
        sections.read(path, 0, np.dtype("<u8"))
