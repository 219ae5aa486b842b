"""Every task on its real data or on a stand-in of the same layout, and what it refuses."""

import gzip
import inspect
import io
import json
import shutil
import tarfile
import zipfile
from collections import Counter
from pathlib import Path

import pytest

from finetune import glge, pairs
from finetune.tasks import (
    _glge,
    cnndm,
    docsum,
    gigaword,
    multi30k,
    personachat,
    scitldr,
    squadqg,
    xsum,
)
from januslm.config import Refused
from januslm.folder import find, names

FIXTURE = Path(__file__).parent / "fixtures" / "glge"
ARCHIVE = FIXTURE / "data"
TASKS = names("finetune.tasks")


# What every task promises


@pytest.mark.parametrize("name", TASKS)
def test_a_task_names_metrics_there_are_and_options_they_have(name):
    task = find("finetune.tasks", name)
    for metric in task.METRICS:
        known = inspect.signature(find("januslm.metrics", metric).score).parameters
        assert set(getattr(task, "OPTIONS", {}).get(metric, {})) <= set(known)
    assert isinstance(task.DECODE, dict)
    assert isinstance(task.FINETUNE, dict)


@pytest.mark.parametrize("name", TASKS)
def test_a_task_without_its_data_says_where_it_looked(name, tmp_path):
    with pytest.raises(Refused, match=f"{tmp_path}: no .*{name}.* there; looked for "):
        list(find("finetune.tasks", name).read(tmp_path, "test"))


@pytest.mark.parametrize("name", TASKS)
def test_a_task_knows_three_splits_only(name, tmp_path):
    (tmp_path / "train.src").touch()
    with pytest.raises(Refused, match="no split 'dev'; there are train, valid, test"):
        list(find("finetune.tasks", name).read(tmp_path, "dev"))


# The tasks with data at hand


@pytest.mark.parametrize(
    ("task", "counts"), [(scitldr, (1800, 192, 619)), (multi30k, (29000, 1014, 1000))]
)
def test_the_splits_of_real_data_have_their_published_sizes(task, counts, data):
    assert tuple(sum(1 for _ in task.read(data, split)) for split in pairs.SPLITS) == counts


def test_no_paper_is_in_training_and_in_validation(data):
    train = {pair.source for pair in scitldr.read(data, "train")}
    assert train.isdisjoint(pair.source for pair in scitldr.read(data, "valid"))


def test_scitldr_keeps_all_references_of_its_test_set(data):
    counts = Counter(len(pair.targets) for pair in scitldr.read(data, "test"))
    assert counts == {1: 94, 2: 237, 3: 267, 4: 21}


def test_multi30k_is_german_to_english(data):
    first = next(multi30k.read(data, "test"))
    assert first.id == "test-1"
    assert first.source == "Ein Mann mit einem orangefarbenen Hut, der etwas anstarrt."
    assert first.targets == ("A man in an orange hat starring at something.",)


def test_a_task_reads_its_folder_and_a_root_that_holds_it(data):
    inside = list(scitldr.read(data / "scitldr", "valid"))
    assert inside == list(scitldr.read(data, "valid"))


def test_docsum_reads_ids_and_keeps_empty_targets_out(tmp_path):
    rows = [
        {"id": "a.b", "package": "a", "source": "Does x. Then y.", "target": "Does x."},
        {"id": "a.c", "package": "a", "source": "Does z.", "target": " "},
    ]
    (tmp_path / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(Refused, match=r"train.jsonl: line 2: empty target"):
        list(docsum.read(tmp_path, "train"))
    skipped = Counter()
    assert [pair.id for pair in docsum.read(tmp_path, "train", skipped)] == ["a.b"]
    assert skipped == {"empty target": 1}
    assert docsum.lead("Does x. Then y.") == "Does x."


def test_an_empty_line_of_a_test_set_is_counted_but_never_moves_the_others(tmp_path):
    for end, text in (("src", "one\n\nthree\n"), ("tgt", "a\nb\nc\n")):
        (tmp_path / f"test.{end}").write_text(text)
    with pytest.raises(Refused, match=r"test.src: line 2: empty source"):
        list(xsum.read(tmp_path, "test"))
    skipped = Counter()
    assert len(list(xsum.read(tmp_path, "test", skipped))) == 3
    assert skipped == {"empty source": 1}


# Files that would shift a score


def test_source_and_target_of_different_length_are_refused_before_the_first_pair(tmp_path):
    (tmp_path / "a").write_text("1\n2\n3\n")
    (tmp_path / "b").write_text("1\n2\n")
    with pytest.raises(Refused, match=r"a has 3 lines and .*b has 2"):
        next(pairs.aligned(tmp_path / "a", tmp_path / "b"))


def test_only_a_line_feed_ends_a_line(tmp_path):
    text = "a\u2028b\x0cc\x85d\r\ne\n"
    (tmp_path / "x").write_bytes(text.encode())
    with gzip.open(tmp_path / "x.gz", "wb") as file:
        file.write(text.encode())
    for name in ("x", "x.gz"):
        assert list(pairs.lines(tmp_path / name)) == ["a\u2028b\x0cc\x85d", "e"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{"id": 1}\n', r"x.jsonl:1: no 'source'; a line has id, source"),
        (b'{"id": \n', r"x.jsonl:1: not JSON"),
        (b"[1]\n", r"x.jsonl:1: no 'id'"),
        (b"\xff\xfe", r"x.jsonl: not readable as UTF-8"),
    ],
)
def test_a_broken_record_is_named_with_its_line(tmp_path, content, message):
    (tmp_path / "x.jsonl").write_bytes(content)
    with pytest.raises(Refused, match=message):
        list(pairs.records(tmp_path / "x.jsonl", "id", "source"))


def test_an_id_that_comes_twice_is_refused():
    two = [pairs.Pair("a", "x", ("y",)), pairs.Pair("a", "z", ("y",))]
    with pytest.raises(Refused, match="f: id 'a' comes twice"):
        list(pairs.checked(two, "f", "train"))


# GLGE: the archive


def packed(kind: str, folder: Path) -> Path:
    """The stand-in archive as a folder, a zip or a tar.gz."""
    path = folder / f"archive.{kind}"
    if kind == "folder":
        shutil.copytree(ARCHIVE, path / "data")
        return path
    with zipfile.ZipFile(path, "w") if kind == "zip" else tarfile.open(path, "w:gz") as box:
        for file in sorted(ARCHIVE.rglob("*.*")):
            inside = Path("glge_public") / "data" / file.relative_to(ARCHIVE)
            (box.write if kind == "zip" else box.add)(file, inside)
    return path


@pytest.mark.parametrize("kind", ["folder", "zip", "tar"])
@pytest.mark.parametrize("name", glge.COLUMNS)
def test_a_prepared_archive_reads_as_the_official_layout_does(kind, name, tmp_path):
    counts = glge.prepare([packed(kind, tmp_path)], tmp_path / "out")
    assert counts[f"easy/{name}/dev"] == 2
    task = find("finetune.tasks", name)
    for split in pairs.SPLITS:
        ready = list(task.read(tmp_path / "out" / "easy", split))
        assert ready == list(task.read(ARCHIVE / "easy", split))
        assert len(ready) == (2 if split == "valid" else 3)


def test_a_version_must_be_named(tmp_path):
    glge.prepare([ARCHIVE], tmp_path)
    with pytest.raises(Refused, match=r"has easy; name one of them, .*easy"):
        list(xsum.read(tmp_path, "test"))


def test_training_and_test_archives_may_come_apart(tmp_path):
    for name in ("first", "second"):
        shutil.copytree(ARCHIVE, tmp_path / name)
    for path in (tmp_path / "first").rglob("test.*"):
        path.unlink()
    for path in [*(tmp_path / "second").rglob("train.*"), *(tmp_path / "second").rglob("dev.*")]:
        path.unlink()
    with pytest.raises(Refused) as caught:
        glge.prepare([tmp_path / "first"], tmp_path / "out")
    assert "missing easy/cnndm/test.src, easy/cnndm/test.tgt" in str(caught.value)
    assert "and 10 more; the test sets are a separate download" in str(caught.value)
    assert not (tmp_path / "out").exists()
    assert len(glge.prepare([tmp_path / "first"], tmp_path / "out", partial=True)) == 16
    both = glge.prepare([tmp_path / "first", tmp_path / "second"], tmp_path / "whole")
    assert len(both) == 24


def test_an_archive_of_something_else_is_refused_with_the_expected_layout(tmp_path):
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as box:
        box.writestr("easy/cnndm/train.src", "a")
    with pytest.raises(Refused, match=r"not a GLGE archive; no \{easy,medium,hard\}/TASK_data"):
        glge.prepare([tmp_path / "x.zip"], tmp_path / "out")
    with pytest.raises(Refused, match="neither a folder nor a zip nor a tar file"):
        glge.prepare([tmp_path / "nothing"], tmp_path / "out")


def test_an_archive_whose_sides_disagree_is_refused(tmp_path):
    shutil.copytree(ARCHIVE, tmp_path / "a")
    target = tmp_path / "a" / "easy" / "coqa_data" / "org_data" / "dev.tgt"
    target.write_text("only one\n")
    with pytest.raises(Refused, match=r"easy/coqa: dev.src has 2 lines, dev.tgt has 1"):
        glge.prepare([tmp_path / "a"], tmp_path / "out")
    target.unlink()
    with pytest.raises(Refused, match=r"easy/coqa: dev.src is there but dev.tgt is not"):
        glge.prepare([tmp_path / "a"], tmp_path / "out", partial=True)


def test_a_name_that_leads_out_of_the_archive_leads_nowhere(tmp_path):
    path = tmp_path / "x.tar"
    with tarfile.open(path, "w") as box:
        entry = tarfile.TarInfo("../../easy/coqa_data/org_data/dev.src")
        entry.size = 2
        box.addfile(entry, io.BytesIO(b"a\n"))
    with pytest.raises(Refused, match=r"dev.src is there but dev.tgt is not"):
        glge.prepare([path], tmp_path / "out", partial=True)
    assert not list(tmp_path.parent.glob("easy"))


# GLGE: what the official scripts do before they score


@pytest.mark.parametrize(
    ("text", "fixed"),
    [
        ("it cost $ 3 , 000 ( or 2 . 50 )", "it cost $ 3,000 -LRB- or 2.50 -RRB-"),
        ('he didn \' t say " yes " . . .', "he did n't say `` yes '' ..."),
        ("the king ' s well - known son", "the king 's well-known son"),
        ("they ' ll see -- or - - not -", "they 'll see -- or -- not -"),
        ("the U . N . met", "the U.N. . met"),  # as the official script has it
        ("a ' quoted ' word", "a ` quoted ' word"),
        ("- 5 , x", "- 5 , x"),
        ("", ""),
    ],
)
def test_official_tokenization_is_mended_as_the_scripts_do(text, fixed):
    assert _glge.fix_tokenization(text, _glge.UPPER) == fixed


def test_cnndm_drops_short_and_repeated_sentences_in_official_mode_only():
    text = "the bridge opens again in may [X_SEP] so he says [X_SEP] in may the bridge opens again"
    assert cnndm.tidy(text, "official") == "the bridge opens again in may"
    assert cnndm.tidy(text, "plain").count("\n") == 2
    assert cnndm.tidy("too short", "official") == ""


def test_cnndm_references_become_lines_with_brackets_as_signs():
    pair = next(cnndm.read(ARCHIVE / "easy", "test"))
    assert "<S_SEP>" not in pair.source + pair.targets[0]
    assert cnndm.tidy_reference("A -LRB- b -RRB- . [X_SEP] `` C ''", "plain") == 'a ( b ) .\n" c "'


def test_gigaword_turns_ones_into_number_signs_in_official_mode_only():
    assert gigaword.tidy("storm closes 1 ##1 ports & more", "official") == (
        "storm closes ## ports &amp; more"
    )
    assert gigaword.tidy("storm closes 1 ##1 ports", "plain") == "storm closes 11 ports"


def test_xsum_sentences_stand_on_lines_of_their_own_in_official_mode():
    assert xsum.tidy("one . two . three .", "official") == "one .\ntwo .\nthree ."
    assert xsum.tidy_reference("one . two .", "official") == "one .\ntwo ."
    assert xsum.tidy("one . two .", "plain") == "one . two ."


def test_squadqg_is_lower_case_in_both_modes_and_mended_in_one():
    assert squadqg.tidy("What Cost 1 , 000 ?", "official") == "what cost 1,000 ?"
    assert squadqg.tidy("What Cost 1 , 000 ?", "plain") == "what cost 1 , 000 ?"


# GLGE: scores


def leaderboard() -> list[dict[str, str]]:
    head, *rows = (FIXTURE / "leaderboard.tsv").read_text().splitlines()
    return [dict(zip(head.split("\t"), row.split("\t"), strict=True)) for row in rows]


@pytest.mark.parametrize("row", leaderboard(), ids=lambda row: f"{row['version']} {row['model']}")
def test_the_overall_score_follows_from_the_parts_of_every_leaderboard_row(row):
    parts = {
        task: dict(zip(keys, map(float, row[task].split("/")), strict=True))
        for task, keys in glge.COLUMNS.items()
    }
    assert glge.overall(parts) == pytest.approx(float(row["score"]), abs=0.05)


def test_an_overall_score_needs_every_task_and_every_metric():
    parts = {task: dict.fromkeys(keys, 10.0) for task, keys in glge.COLUMNS.items()}
    assert glge.overall(parts) == pytest.approx(10)
    del parts["msqg"]["meteor"]
    with pytest.raises(Refused, match="msqg: no meteor; its score is made of rouge-l, bleu-4"):
        glge.overall(parts)
    del parts["xsum"]
    with pytest.raises(Refused, match="needs all eight tasks; missing: xsum"):
        glge.overall(parts)


def test_published_settings_are_those_of_the_baselines():
    assert personachat.FINETUNE["lr"] == 5e-4
    assert personachat.FINETUNE["tokens"] * personachat.FINETUNE["accumulation"] == 104000
    assert xsum.FINETUNE["lr"] == 1e-4
    assert cnndm.FINETUNE["sentences"] * cnndm.FINETUNE["accumulation"] == 512
    assert (cnndm.DECODE["beam"], cnndm.DECODE["min_length"]) == (5, 45)
