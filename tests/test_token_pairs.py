"""Task texts become token pairs: nothing is lost uncounted, and the order needs no state."""

import gzip
import json
import re
import tracemalloc
from collections import Counter
from types import SimpleNamespace

import numpy as np
import pytest

from finetune.tasks import docsum, scitldr, wmt16
from januslm.cli import progress
from januslm.config import Refused
from januslm.data import tokenizer
from januslm.data.text_pairs import Pair, checked, lines, opened
from januslm.data.token_pairs import CHUNK, Limits, Pairs, prepare, sources, summary
from januslm.data.tokenizer import Special

WORDS = [
    "the",
    "quick",
    "brown",
    "fox",
    "jumps",
    "over",
    "the",
    "lazy",
    "dog",
    "and",
    "runs",
    "away",
    "from",
    "all",
    "of",
    "it",
]


@pytest.fixture
def words(tmp_path):
    """A small tokenizer."""
    return tokenizer.train_tokenizer([" ".join(WORDS)] * 3, 300, tmp_path / "tokenizer.json")


def task(pairs):
    """A task of the given (source, target) texts."""

    def read(root, split, skipped=None):
        for number, (source, target) in enumerate(pairs):
            yield Pair(f"{split}-{number}", source, (target,))

    return SimpleNamespace(__name__="made", read=read)


def sentences(count):
    """Random texts of 1 to 12 words, source and target different."""
    rng = np.random.default_rng(0)
    make = lambda: " ".join(rng.choice(WORDS, rng.integers(1, 13)))  # noqa: E731
    return [(make(), make()) for _ in range(count)]


def test_every_pair_comes_back_whole_and_in_a_shuffled_order(tmp_path, words):
    pairs = sentences(50)
    prepare(task(pairs), tmp_path, "train", words, Limits(64, 64, "cut"), tmp_path / "d")
    read = Pairs(tmp_path / "d", 3, Special()).read(np.arange(50))
    texts = [tuple(words.decode(side) for side in pair) for pair in read]
    assert sorted(texts) == sorted(pairs)
    assert texts != pairs
    assert all(side[0] == 0 and side[-1] == 2 for pair in read for side in pair)


def test_ids_give_the_same_pairs_alone_and_together(tmp_path, words):
    prepare(task(sentences(20)), tmp_path, "train", words, Limits(64, 64, "cut"), tmp_path / "d")
    data = Pairs(tmp_path / "d", 3, Special())
    together = data.read(np.arange(15, 45))
    for i, pair in zip(range(15, 45), together, strict=True):
        alone = data.read(np.array([i]))[0]
        assert all(np.array_equal(a, b) for a, b in zip(alone, pair, strict=True))


def test_what_is_cut_is_counted(tmp_path, words):
    pairs = sentences(40)
    limits = Limits(8, 6, "cut")
    counts = prepare(task(pairs), tmp_path, "train", words, limits, tmp_path / "d")["counts"]
    for side, most, column in (("source", 8, 0), ("target", 6, 1)):
        sizes = np.array([len(e) for e in words.encode([pair[column] for pair in pairs])])
        assert counts[f"{side}s cut"] == (sizes > most - 2).sum() > 0
        assert counts[f"{side} tokens cut"] == np.maximum(sizes - (most - 2), 0).sum()
    longest = [
        max(len(s) for s in side)
        for side in zip(*Pairs(tmp_path / "d", 0, Special()).read(np.arange(40)), strict=True)
    ]
    assert longest == [8, 6]


@pytest.mark.slow
def test_a_long_text_is_refused_by_name_if_asked_for(tmp_path, words):
    """Beyond the first chunk too: the message counts neither chunks nor the pairs inside one."""
    short, long = ("the fox", "the fox"), ("the fox", " ".join(WORDS))
    for place in (0, 7, CHUNK + 5):
        pairs = task([short] * place + [long])
        message = (
            rf"{tmp_path}: train-{place}: its target has \d+ tokens, and data.max_target = 8 has "
            'room for 6; raise it, or set data.longer = "cut"'
        )
        with pytest.raises(Refused, match=message):
            prepare(pairs, tmp_path, "train", words, Limits(64, 8, "refuse"), tmp_path / "d")
        assert not list((tmp_path / "d").iterdir())


def test_a_long_preparation_says_how_far_it_is(tmp_path, words, monkeypatch, capsys):
    monkeypatch.setattr(progress, "EVERY", 0.0)  # else it would have to take seconds
    texts = [("fox", "dog")] * (2 * CHUNK + 5)
    prepare(task(texts), tmp_path, "train", words, Limits(8, 8, "cut"), tmp_path / "d")
    pattern = r"(.*)/8,197 pairs prepared \| [\d,]+ a second \| eta \d+ s\n"
    said = re.findall(pattern, capsys.readouterr().err)
    assert said == [f"{tmp_path}: train: {number}" for number in ("4,096", "8,192", "8,197")]


@pytest.mark.slow
def test_pairs_are_checked_without_remembering_them():
    """WMT14 has 4.5 million: their ids alone took half a gigabyte."""
    many = (Pair(f"train-{number}", "x", ("y",)) for number in range(30_000))
    tracemalloc.start()
    try:
        assert sum(1 for _ in checked(many, "f", "train")) == 30_000
        assert tracemalloc.get_traced_memory()[1] < 100_000
    finally:
        tracemalloc.stop()


def test_a_damaged_shard_is_named_and_can_be_prepared_anew(tmp_path, words):
    given = (task(sentences(20)), tmp_path, "train", words, Limits(64, 64, "cut"), tmp_path / "d")
    prepare(*given)
    path = tmp_path / "d" / "target.bin"
    sound = path.read_bytes()
    path.write_bytes(sound[:10] + bytes([sound[10] ^ 1]) + sound[11:])
    prepare(*given)  # nothing has changed but the damage, which is found when it is opened
    with pytest.raises(Refused, match=r"target\.bin: bytes 0 to .*hash; .*prepared anew"):
        Pairs(tmp_path / "d", 0, Special())
    (tmp_path / "d" / "manifest.json").unlink()
    prepare(*given)
    assert len(Pairs(tmp_path / "d", 0, Special())) == 20
    assert path.read_bytes() == sound


def test_a_split_without_pairs_is_refused(tmp_path, words):
    with pytest.raises(Refused, match="split 'train' of made has no pairs"):
        prepare(task([]), tmp_path, "train", words, Limits(8, 8, "cut"), tmp_path / "d")


def lay(folder, texts) -> None:
    """texts as FOLDER/wmt16/en-ro/train/corpus.bpe.{en,ro}, two folders below where a root is."""
    place = folder / "wmt16" / "en-ro" / "train"
    place.mkdir(parents=True, exist_ok=True)
    for end, side in zip(("en", "ro"), zip(*texts, strict=True), strict=True):
        (place / f"corpus.bpe.{end}").write_text("".join(f"{one}\n" for one in side))


def test_other_limits_or_files_prepare_anew_and_the_same_ones_do_not(tmp_path, words):
    def prepared(limits, tokenizer=words):
        lay_before = [path.stat().st_mtime_ns for path in (tmp_path / "d").glob("*.bin")]
        about = prepare(wmt16, tmp_path, "train", tokenizer, limits, tmp_path / "d")
        return about["counts"]["pairs"], lay_before == [
            path.stat().st_mtime_ns for path in (tmp_path / "d").glob("*.bin")
        ]

    limits = Limits(64, 64, "cut")
    lay(tmp_path, sentences(9))
    assert [prepared(limits), prepared(limits)] == [(9, False), (9, True)]
    (tmp_path / "wmt16" / "notes.txt").write_text("not a file that the task reads")
    assert prepared(limits) == (9, True)
    lay(tmp_path, sentences(7))
    assert prepared(limits) == (7, False)
    assert prepared(Limits(64, 32, "cut")) == (7, False)
    other = tokenizer.train_tokenizer([" ".join(WORDS)], 290, tmp_path / "other.json")
    assert prepared(Limits(64, 32, "cut"), other) == (7, False)
    (tmp_path / "d" / "manifest.json").write_text('{"counts": ')
    assert prepared(Limits(64, 32, "cut"), other) == (7, False)


def test_a_preparation_that_was_stopped_is_never_taken_for_the_one_before_it(tmp_path, words):
    """Else shards of two preparations could lie beside the counts of one."""
    first, second = Limits(64, 64, "cut"), Limits(8, 8, "cut")
    lay(tmp_path, sentences(9))
    prepare(wmt16, tmp_path, "train", words, first, tmp_path / "d")
    in_the_way = tmp_path / "d" / "target.bin"
    in_the_way.unlink()
    in_the_way.mkdir()
    with pytest.raises(OSError, match=in_the_way.name):
        prepare(wmt16, tmp_path, "train", words, second, tmp_path / "d")
    in_the_way.rmdir()
    prepare(wmt16, tmp_path, "train", words, first, tmp_path / "d")
    found = Pairs(tmp_path / "d", 0, Special()).read(np.arange(9))
    assert sorted(words.decode(source) for source, _ in found) == sorted(
        source for source, _ in sentences(9)
    )


def test_the_line_for_people_says_all_that_was_changed(tmp_path, words):
    texts = [("the fox", "the fox"), ("", "the dog"), (" ".join(WORDS), "the dog"), ("it", "it")]
    lay(tmp_path, texts)
    about = prepare(wmt16, tmp_path, "train", words, Limits(8, 8, "cut"), tmp_path / "d")
    sizes = [
        np.mean([min(len(e) + 2, 8) for e in words.encode([t[side] for t in texts if t[0]])])
        for side in (0, 1)
    ]
    place = tmp_path / "wmt16" / "en-ro" / "train"
    assert summary(about) == (
        f"3 pairs of {sizes[0]:.1f} source and {sizes[1]:.1f} target tokens, 1 sources cut, "
        "2 targets equal to their source, 1 empty source left out, "
        f"from {place / 'corpus.bpe.en'} + corpus.bpe.ro"
    )
    assert "empty source kept" in summary(about | {"split": "valid"})


@pytest.mark.parametrize("packed", [False, True])
def test_a_byte_that_is_not_utf8_is_refused_with_its_line(tmp_path, packed):
    rng = np.random.default_rng(0)
    path = tmp_path / ("x.gz" if packed else "x")
    for _ in range(20):
        rows = [bytes(rng.integers(97, 123, rng.integers(0, 2000))) for _ in range(20)]
        bad = int(rng.integers(20))
        place = int(rng.integers(len(rows[bad]) + 1))
        rows[bad] = rows[bad][:place] + b"\xff" + rows[bad][place:]
        whole = b"\n".join(rows) + b"\n"
        path.write_bytes(gzip.compress(whole, 1) if packed else whole)
        message = f"{path}:{bad + 1}: not UTF-8 text: invalid start byte 0xff, byte {place + 1}"
        with pytest.raises(Refused) as error:
            list(lines(path))
        assert str(error.value) == message


@pytest.mark.slow
def test_a_packed_file_with_a_flipped_bit_or_a_lost_end_is_refused_or_reads_the_same(tmp_path):
    texts = [source for source, _ in sentences(25)]
    packed = gzip.compress("".join(f"{text}\n" for text in texts).encode())
    path, wrong = tmp_path / "x.gz", []
    for place in range(1, len(packed)):
        flipped = packed[:place] + bytes([packed[place] ^ 4]) + packed[place + 1 :]
        for damaged in (packed[:place], flipped):
            path.write_bytes(damaged)
            try:
                found = str(list(lines(path)) == texts)
            except Refused as error:
                found = str(error)
            wrong.append(found)
    kinds = Counter("refused" if f.startswith(f"{path}: a damaged .gz: ") else f for f in wrong)
    assert set(kinds) == {"refused", "True"}  # "True": a bit of the header, such as its time
    assert kinds["refused"] > 1.9 * len(packed)


def test_a_byte_order_mark_is_no_text_and_a_no_break_space_is(tmp_path):
    (tmp_path / "x").write_bytes("\ufeffone\r\n\u00a0two\u2028\n\n".encode())
    assert list(lines(tmp_path / "x")) == ["one", "\u00a0two\u2028", ""]


def test_a_file_without_a_line_is_no_test_set(tmp_path):
    """Else a score of nothing would be printed as 0."""
    for end in ("en", "ro"):
        (tmp_path / f"test.{end}").write_text("")
    with pytest.raises(Refused, match=r"test\.en: nothing in it"):
        list(wmt16.read(tmp_path, "test"))


@pytest.mark.parametrize(
    ("task", "file", "record", "message"),
    [
        (
            docsum,
            "test.jsonl",
            {"source": None, "target": "a"},
            "'source' must be a text, got No",
        ),
        (docsum, "test.jsonl", {"source": "a", "target": ["b"]}, r"a text, got \['b'\]"),
        (docsum, "test.jsonl", {"source": "a"}, "no 'target'; a line has id, source, target"),
        # Joined letter by letter it would look like text.
        (
            scitldr,
            "dev.jsonl",
            {"source": "a text", "target": ["b"]},
            "a list of texts, got 'a text'",
        ),
        (scitldr, "dev.jsonl", {"source": ["a"], "target": [1]}, r"'target' must be .* got \[1\]"),
    ],
)
def test_a_record_whose_values_are_no_texts_is_refused_with_its_line(
    tmp_path, task, file, record, message
):
    right = {"source": "x", "target": "y"} if task is docsum else {"source": ["x"], "target": ["y"]}
    rows = [{"id": 1, **right}, {"id": 2, **record}]
    (tmp_path / file).write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(Refused, match=rf"{file}:2: .*{message}"):
        list(task.read(tmp_path, "test"))


def test_files_are_noted_while_somebody_asks(tmp_path):
    lay(tmp_path, sentences(3))
    with opened() as outer:
        list(wmt16.read(tmp_path, "train"))
        with opened() as inner:
            next(iter(wmt16.read(tmp_path, "train")))
    list(lines(tmp_path / "wmt16" / "en-ro" / "train" / "corpus.bpe.en"))
    assert [path.suffix for path in inner] == [path.suffix for path in outer] == [".en", ".ro"]


def test_sources_to_decode_are_cut_and_named(words):
    texts = [source for source, _ in sentences(30)]
    arrays, cut = sources(texts, words, 7)
    assert cut == [i for i, e in enumerate(words.encode(texts)) if len(e) > 5] != []
    assert max(map(len, arrays)) == 7
