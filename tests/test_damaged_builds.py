"""What lies in a corpus's folder may be damaged: it is made anew, or refused by name."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from data_tools import summaries
from data_tools.build import build
from data_tools.journal import DuplicatesFile, Journal, SealedGroup, Step, TokenizedPart
from data_tools.package_pairs import write
from data_tools.recipe import read
from januslm.config import Refused
from januslm.data import sealed
from januslm.data.shard_writer import Writer, write_manifest
from januslm.data.shards import Shard, open_corpus
from tests.test_data_tools import lines, recipe, sentences, shard_bytes, tokenizer

__all__ = ["tokenizer"]  # a fixture
IDENTITY = {"out": "x", "tokenizer": "y"}


def flip(path: Path, place: int) -> None:
    raw = bytearray(path.read_bytes())
    raw[place % len(raw)] ^= 1
    path.write_bytes(raw)


# --- the manifest


@pytest.fixture
def small(tmp_path) -> Path:
    """A corpus of one shard, with a manifest of few bytes."""
    writer = Writer(tmp_path / "corpus", "shard-0", "uint16", 2)
    writer.add([np.arange(5, 9), np.arange(5, 7)])
    write_manifest(
        tmp_path / "corpus", [writer.close()], dtype="uint16", vocabulary=9, tokenizer="ab", eos=2
    )
    return tmp_path / "corpus"


@pytest.mark.slow
def test_no_bit_of_a_manifest_is_believed_or_ends_in_a_traceback(small):
    path = small / "manifest.json"
    whole, sound = path.read_bytes(), open_corpus(small)
    for place in range(8 * len(whole)):
        flipped = bytearray(whole)
        flipped[place // 8] ^= 1 << place % 8
        path.write_bytes(flipped)
        try:
            found = open_corpus(small).manifest
        except Refused as error:
            found = str(error)
        # white space, or the like, may change
        assert found == sound.manifest or found.startswith(f"{path}: "), place


WRONG = [
    ({"dtype": 3}, "dtype must be a text, got 3"),
    ({"dtype": "uint32"}, "dtype 'uint32', possible are uint16, int32"),
    ({"dtype": "int32"}, "16 bytes are not 8 tokens"),
    ({"tokenizer": None}, "tokenizer must be a text, got None"),
    ({"eos": "2"}, "eos must be a whole number, got '2'"),
    ({"shards": {}}, "shards must be a list"),
    ({"shards": [3]}, r"shards\[0\] must be a table, got 3"),
    ({"shards": []}, "documents 2, its shards have 0"),
    ({"documents": 2**70}, "documents is a number of 71 bits"),
    ({"tokens": 9}, "tokens 9, its shards have 8"),
    ({"format": []}, r"format \[\], this version reads 2"),
]


@pytest.mark.parametrize(("changed", "message"), WRONG, ids=[message for _, message in WRONG])
def test_a_sealed_manifest_of_another_shape_is_refused_by_its_key(small, changed, message):
    table = sealed.read(small / "manifest.json") | changed
    (small / "manifest.json").write_text(json.dumps(sealed.sealed(table)))
    with pytest.raises(Refused, match=rf"corpus/manifest\.json: .*{message}"):
        open_corpus(small)


@pytest.mark.parametrize("key", ["dtype", "tokenizer", "eos", "documents", "shards"])
def test_a_sealed_manifest_without_a_key_is_refused_by_its_name(small, key):
    table = sealed.read(small / "manifest.json")
    del table[key]
    (small / "manifest.json").write_text(json.dumps(sealed.sealed(table)))
    with pytest.raises(Refused, match=rf"manifest\.json: {key} is missing"):
        open_corpus(small)


def test_a_shard_of_a_manifest_from_elsewhere_lies_in_its_corpus(small):
    table = sealed.read(small / "manifest.json")
    table["shards"][0]["name"] = "../../elsewhere"
    (small / "manifest.json").write_text(json.dumps(sealed.sealed(table)))
    with pytest.raises(Refused, match=r"shards\[0\]: name must be that of a file in the corpus"):
        open_corpus(small)


def test_a_corpus_of_an_earlier_version_is_to_be_built_again(small):
    table = sealed.read(small / "manifest.json") | {"format": 1, "self": "abc"}
    (small / "manifest.json").write_text(json.dumps(table))
    with pytest.raises(Refused, match="of an earlier version, without a seal; build it again"):
        open_corpus(small)


# --- the journal


def steps() -> list[Step]:
    shard = Shard("part-00000", 8, 2, 16, "aa", "bb", "cc")
    return [
        TokenizedPart(0, shard, {"read": 2}, {"split": "dd"}),
        TokenizedPart(1, shard, {"read": 2}, {"split": "ff", "exact": "gg"}),
        DuplicatesFile("duplicates-exact-8-run-00000", 24),
        SealedGroup(0, {"train": shard}, {"0": {"train": 2}, "1": {"train": 2}}),
    ]


def journal(out: Path) -> tuple[list[Step], list[str]]:
    """What a journal holds, and what was said when it was opened."""
    said: list[str] = []
    found = Journal(out, IDENTITY, said.append)
    found.close()
    return [*found.parts.values(), *found.duplicates.values(), *found.sealed.values()], said


@pytest.fixture
def noted(tmp_path) -> Path:
    """The folder of a build that has noted four steps."""
    made = Journal(tmp_path, IDENTITY, print)
    for step in steps():
        made.append(step)
    made.close()
    return tmp_path


@pytest.mark.slow
@pytest.mark.long
def test_no_bit_of_a_journal_is_believed_or_ends_in_a_traceback(noted):
    path = noted / "journal.jsonl"
    whole, wanted = path.read_bytes(), steps()
    for place in range(0, 8 * len(whole), 3):
        flipped = bytearray(whole)
        flipped[place // 8] ^= 1 << place % 8
        path.write_bytes(flipped)
        try:
            found, said = journal(noted)
        except Refused as error:
            found, said = [], [str(error)]
            assert f"{path}:1: " in said[0], place
        assert all(step in wanted for step in found), place
        # A line feed that is none any more makes one line of two; the last may also look cut.
        last = place // 8 >= whole.rindex(b"\n", 0, -1)
        assert found == wanted or said or last, place


def test_a_line_that_a_kill_cut_short_is_no_damage(noted):
    path = noted / "journal.jsonl"
    path.write_bytes(path.read_bytes()[:-9])
    assert journal(noted) == (steps()[:3], [])
    assert path.read_bytes().count(b"\n") == 4  # written anew, without the half line


def test_a_damaged_line_is_named_and_its_neighbours_hold(noted):
    path = noted / "journal.jsonl"
    path.write_text(path.read_text().replace('"dd"', '"dx"'))
    assert journal(noted) == (
        steps()[1:],
        [f"{path}:2: damaged; what it noted is done again"],
    )


@pytest.mark.parametrize("first", ["", "{}\n", '{"out": "x", "tokenizer": "y"}\n'])
def test_a_journal_that_does_not_say_its_recipe_is_refused(noted, first):
    rest = (noted / "journal.jsonl").read_text().partition("\n")[2] if first else ""
    (noted / "journal.jsonl").write_text(first + rest)
    with pytest.raises(Refused, match=r"journal\.jsonl:1: damaged, or of an earlier .* --fresh"):
        journal(noted)


@pytest.mark.parametrize(
    "line",
    [
        {"part": []},
        {"part": 0, "shard": 3, "counts": {}, "facts": {}},
        {"duplicates": 3, "bytes": 1},
        {"sealed": 0},
        {},
        {"sealed": 0, "shards": {}, "counts": {"x": {}}},
    ],
)
def test_a_sealed_line_of_another_shape_is_refused_by_its_number(noted, line):
    with (noted / "journal.jsonl").open("a") as file:
        file.write(sealed.line(line))
    with pytest.raises(Refused, match=r"journal\.jsonl:6: "):
        journal(noted)


# --- builds


@pytest.fixture(scope="module")
def built(tmp_path_factory, tokenizer) -> Path:
    """A corpus of three parts, its recipe, and half/: the same before its first shard."""
    folder = tmp_path_factory.mktemp("built")
    for number in range(3):
        near = [f"{text} and one" for text in sentences(60, 0)[number::7]]
        texts = [*sentences(60, number), *sentences(60, 0)[:9], *near]
        (folder / f"{number}.jsonl").write_bytes(lines(texts))
    sources = '[sources.jsonl]\nfiles = ["*.jsonl"]'
    more = 'validation = 0.3\npart_megabytes = 0.01\ndeduplicate = ["exact", "minhash"]'
    path = recipe(folder, tokenizer, sources, f"{more}\ndeduplicate_megabytes = 0.1")
    build(read(str(path)), lambda _: None)
    obstacle = folder / "half" / "train" / "shard-00000.bin.new"
    obstacle.mkdir(parents=True)
    with pytest.raises(IsADirectoryError):
        build(read(str(path), [f'out="{folder / "half"}"']), lambda _: None)
    obstacle.rmdir()
    return folder


def gone_on(built: Path, out: Path) -> list[str]:
    """What a build says that goes on in `out`; it must end in the bytes of the undamaged one."""
    said: list[str] = []
    build(read(str(built / "corpus.toml"), [f'out="{out}"']), said.append)
    assert shard_bytes(out) == shard_bytes(built / "out")
    return said


DAMAGE = ["bin", "idx", "split"]


@pytest.mark.slow
@pytest.mark.parametrize("suffix", DAMAGE)
def test_a_part_damaged_before_it_is_sealed_is_made_anew(built, tmp_path, suffix):
    shutil.copytree(built / "half", tmp_path / "out")
    damaged = tmp_path / "out" / "parts" / f"part-00001.{suffix}"
    flip(damaged, -3)
    said = gone_on(built, tmp_path / "out")
    assert f"{damaged}: damaged since it was written; its part is made anew" in said
    assert sum("made anew" in line for line in said) == 1


def undecided(built: Path, out: Path, *kinds: str) -> Path:
    """A build that stopped before these steps of the search for duplicates; its parts' folder."""
    shutil.copytree(built / "half", out)
    for kind in kinds:
        for path in (out / "parts").glob(f"duplicates-*-{kind}-*"):
            path.unlink()
    return out / "parts"


SEARCH = ["run", "join", "clusters", "mask"]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["exact", "minhash", "idx"])
def test_what_is_known_of_the_documents_of_a_part_is_made_anew_if_damaged(built, tmp_path, name):
    damaged = undecided(built, tmp_path / "out", *SEARCH) / f"part-00001.{name}"
    flip(damaged, -3)
    said = gone_on(built, tmp_path / "out")
    assert f"{damaged}: damaged since it was written; its part is made anew" in said


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "kind"),
    [*[("exact", kind) for kind in ("run", "join", "mask")], *[("minhash", k) for k in SEARCH]],
)
def test_a_file_of_the_search_for_duplicates_is_made_anew_if_damaged(built, tmp_path, name, kind):
    folder = undecided(built, tmp_path / "out", *SEARCH[SEARCH.index(kind) + 1 :])
    if name == "exact":
        for path in folder.glob("duplicates-minhash-*"):
            path.unlink()
    files = folder.glob(f"duplicates-{name}-*-{kind}-*")
    damaged = max(files, key=lambda path: path.stat().st_size)
    flip(damaged, -3)
    said = gone_on(built, tmp_path / "out")
    assert f"{damaged}: damaged since it was written; it is made anew" in said


@pytest.mark.slow
def test_more_memory_for_the_search_is_another_way_to_the_same_shards(built, tmp_path):
    """Also where a build goes on that had less."""
    out = tmp_path / "out"
    undecided(built, out, "mask")
    path = str(built / "corpus.toml")
    build(read(path, [f'out="{out}"', "deduplicate_megabytes=9"]), lambda _: None)
    assert shard_bytes(out) == shard_bytes(built / "out")


@pytest.mark.slow
@pytest.mark.parametrize("suffix", [*DAMAGE, "exact", "minhash"])
def test_a_part_of_which_a_file_is_missing_is_made_anew(built, tmp_path, suffix):
    shutil.copytree(built / "half", tmp_path / "out")
    (tmp_path / "out" / "parts" / f"part-00001.{suffix}").unlink()
    assert f"{tmp_path / 'out'}: 2 of 3 parts are there already" in gone_on(built, tmp_path / "out")


@pytest.mark.slow
def test_a_missing_index_of_a_shard_is_made_anew_before_the_end_and_refused_after(built, tmp_path):
    out = tmp_path / "out"
    shutil.copytree(built / "out", out)
    (out / "train" / "manifest.json").unlink()  # killed before the end
    (out / "train" / "shard-00000.idx").unlink()
    gone_on(built, out)
    (out / "train" / "shard-00000.idx").unlink()
    with pytest.raises(Refused, match=r"shard-00000\.idx: missing.*--fresh deletes what was built"):
        gone_on(built, out)
    build(read(str(built / "corpus.toml"), [f'out="{out}"']), lambda _: None, fresh=True)
    assert shard_bytes(out) == shard_bytes(built / "out")


@pytest.mark.slow
def test_a_step_whose_line_is_damaged_is_done_again(built, tmp_path):
    out = tmp_path / "out"
    shutil.copytree(built / "half", out)
    path = out / "journal.jsonl"
    flip(path, path.read_bytes().index(b'"part"'))
    assert f"{path}:2: damaged; what it noted is done again" in gone_on(built, out)


@pytest.mark.slow
def test_summaries_whose_files_were_changed_are_written_again(tmp_path):
    packages = {"train": ["tqdm"], "valid": ["markdown"], "test": ["packaging"]}
    said: list[str] = []
    write(str(tmp_path), "summaries", summaries.pairs, packages, said.append, processes=1)
    whole = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    for name in ("train.jsonl", "made.json"):
        flip(tmp_path / name, 100)
        write(str(tmp_path), "summaries", summaries.pairs, packages, said.append, processes=1)
        assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == whole
    assert not any("reused" in line for line in said)
    write(str(tmp_path), "summaries", summaries.pairs, packages, said.append, processes=1)
    assert "reused" in said[-1]
