"""GLGE: its archives, what its scripts do before they score, and its overall score."""

import io
import shutil
import tarfile
import zipfile
from pathlib import Path

import pytest

from finetune import glge, pairs
from finetune.tasks import _glge, cnndm, gigaword, personachat, squadqg, xsum
from januslm.config import Refused
from januslm.folder import find

FIXTURE = Path(__file__).parent / "fixtures" / "glge"
ARCHIVE = FIXTURE / "data"


# The archive


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


# What the official scripts do before they score


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


# Scores


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
