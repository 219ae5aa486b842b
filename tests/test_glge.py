"""GLGE: its archives, what its scripts do before they score, and its overall score."""

import io
import shutil
import tarfile
import zipfile
from pathlib import Path

import pytest

from finetune.glge import leaderboard, prepare
from finetune.tasks import _glge, cnndm, gigaword, squadqg, xsum
from januslm.config import Refused
from januslm.data import text_pairs
from januslm.metrics import qg_bleu
from januslm.registry import find

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


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["folder", "zip", "tar"])
@pytest.mark.parametrize("name", leaderboard.COLUMNS)
def test_a_prepared_archive_reads_as_the_official_layout_does(kind, name, tmp_path):
    made = prepare.prepare([packed(kind, tmp_path)], tmp_path / "out")
    assert made.lines["easy", name] == {"dev": 2, "test": 3, "train": 3}
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["easy"]
    task = find("finetune.tasks", name)
    for split in text_pairs.SPLITS:
        ready = list(task.read(tmp_path / "out" / "easy", split))
        assert ready == list(task.read(ARCHIVE / "easy", split))
        assert len(ready) == (2 if split == "valid" else 3)


def test_a_version_must_be_named(tmp_path):
    prepare.prepare([ARCHIVE], tmp_path)
    for root in (tmp_path, ARCHIVE):
        with pytest.raises(Refused, match=r"has easy; name one of them, .*easy"):
            list(xsum.read(root, "test"))


def halves(folder: Path) -> tuple[Path, Path]:
    """Training and validation data as one archive, the test sets as another, as they are loaded."""
    for name in ("first", "second"):
        shutil.copytree(ARCHIVE, folder / name)
    for path in (folder / "first").rglob("test.*"):
        path.unlink()
    for path in [*(folder / "second").rglob("train.*"), *(folder / "second").rglob("dev.*")]:
        path.unlink()
    return folder / "first", folder / "second"


def test_training_and_test_archives_may_come_apart(tmp_path):
    first, second = halves(tmp_path)
    with pytest.raises(Refused) as caught:
        prepare.prepare([first], tmp_path / "out")
    assert "missing easy/cnndm/test.src, easy/gigaword/test.src" in str(caught.value)
    assert "and 2 more; the test sets are a separate download, name it" in str(caught.value)
    assert not list(tmp_path.glob("out*"))
    with pytest.raises(Refused, match="training and validation data are a separate download"):
        prepare.prepare([second], tmp_path / "out")
    alone = prepare.prepare([first], tmp_path / "out", partial=True)
    assert all(splits == {"dev": 2, "train": 3} for splits in alone.lines.values())
    both = prepare.prepare([first, second], tmp_path / "whole")
    assert both.lines == prepare.prepare([ARCHIVE], tmp_path / "at once").lines


def bare(folder: Path, *parts: str) -> Path:
    """The stand-in archive without the targets of every test set, or without these parts."""
    shutil.copytree(ARCHIVE, folder)
    for path in folder.rglob("test.tgt"):
        if not parts:
            path.unlink()
    for part in parts:
        (folder / part).unlink()
    return folder


@pytest.mark.parametrize("name", leaderboard.COLUMNS)
def test_a_test_set_may_come_without_targets_and_is_read_line_by_line(name, tmp_path):
    made = prepare.prepare([bare(tmp_path / "a")], tmp_path / "out")
    assert made.lines["easy", name] == {"dev": 2, "test": 3, "train": 3}
    assert (made.left_out, len(made.unanswered)) == ([], 8)
    task = find("finetune.tasks", name)
    for split in text_pairs.SPLITS:
        wanted = list(task.read(ARCHIVE / "easy", split))
        if split == "test":
            wanted = [text_pairs.Pair(one.id, one.source, ()) for one in wanted]
        assert list(task.read(tmp_path / "out" / "easy", split)) == wanted


def test_test_sets_without_targets_are_named(tmp_path, capsys):
    archive = bare(tmp_path / "a", *(f"easy/{n}_data/org_data/test.tgt" for n in ("coqa", "xsum")))
    words = ["prepare", "--archive", str(archive), "--out", str(tmp_path / "out")]
    assert prepare.main(words) == 0
    said = capsys.readouterr().out
    assert "without targets, to be sent in and not scored here: easy/xsum, easy/coqa\n" in said
    assert "left out" not in said


@pytest.mark.parametrize("split", ["train", "valid"])
def test_what_is_learnt_from_needs_its_targets(split, tmp_path):
    name = _glge.FILES[split]
    archive = bare(tmp_path / "a", f"easy/xsum_data/org_data/{name}.tgt")
    with pytest.raises(Refused, match=f"missing easy/xsum/{name}.tgt; training and validation"):
        prepare.prepare([archive], tmp_path / "out")
    made = prepare.prepare([archive], tmp_path / "out", partial=True)
    assert (made.left_out, made.unanswered) == ([f"easy/xsum/{name}.src"], [])
    assert f"left out, since their other side is missing: easy/xsum/{name}.src" in prepare.summary(
        made, tmp_path
    )
    with pytest.raises(Refused, match=rf"{name}\.tgt: no such file"):
        list(xsum.read(archive / "easy", split))


def test_targets_never_come_to_lie_beside_another_test_set(tmp_path):
    prepare.prepare([ARCHIVE], tmp_path / "out")
    archive = bare(tmp_path / "a")
    assert prepare.prepare([archive], tmp_path / "out").unanswered == []  # the same test sets
    source = archive / "easy" / "msqg_data" / "org_data" / "test.src"
    source.write_text("another\ntest\nset\n")
    with pytest.raises(Refused, match=r"easy/msqg/test.tgt: of another test.src than the archive"):
        prepare.prepare([archive], tmp_path / "out")
    read = find("finetune.tasks", "msqg").read
    assert list(read(tmp_path / "out" / "easy", "test")) == list(read(ARCHIVE / "easy", "test"))


def test_two_archives_may_share_a_file_but_not_disagree_on_it(tmp_path):
    assert prepare.prepare([ARCHIVE, ARCHIVE], tmp_path / "out").left_out == []
    shutil.copytree(ARCHIVE, tmp_path / "b")
    (tmp_path / "b" / "easy" / "xsum_data" / "org_data" / "dev.src").write_text("x\ny\n")
    with pytest.raises(Refused, match=r"and .*b: have different easy/xsum/dev.src"):
        prepare.prepare([ARCHIVE, tmp_path / "b"], tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_an_archive_of_something_else_is_refused_with_the_expected_layout(tmp_path):
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as box:
        box.writestr("easy/cnndm/train.src", "a")
    with pytest.raises(Refused, match=r"not a GLGE archive; no \{easy,medium,hard\}/TASK_data"):
        prepare.prepare([tmp_path / "x.zip"], tmp_path / "out")
    with pytest.raises(Refused, match="nothing: no such file or folder"):
        prepare.prepare([tmp_path / "nothing"], tmp_path / "out")
    (tmp_path / "text").write_text("no archive")
    with pytest.raises(Refused, match="neither a folder nor a zip nor a tar file"):
        prepare.prepare([tmp_path / "text"], tmp_path / "out")


@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_an_archive_that_was_not_loaded_to_its_end_is_refused(kind, tmp_path):
    whole = packed(kind, tmp_path).read_bytes()
    (tmp_path / "half").write_bytes(whole[: len(whole) * 4 // 5])
    with pytest.raises(Refused, match=r"half: (cannot be read to its end|neither a folder)"):
        prepare.prepare([tmp_path / "half"], tmp_path / "out")
    assert not list(tmp_path.glob("out*"))


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        (8, 1, "is encrypted, password required.*; unpack it yourself"),
        (10, 9, "compression method is not supported; unpack it yourself"),
    ],
)
def test_a_zip_that_python_cannot_unpack_is_refused(place, value, message, tmp_path):
    """Its directory is edited, where flags and methods stand (APPNOTE.TXT 4.3.12)."""
    path = packed("zip", tmp_path)
    data = bytearray(path.read_bytes())
    data[data.index(b"PK\x01\x02") + place] = value
    path.write_bytes(data)
    with pytest.raises(Refused, match=rf"archive.zip: .*{message}"):
        prepare.prepare([path], tmp_path / "out")
    assert not list(tmp_path.glob("out*"))


@pytest.mark.parametrize("named", ["test.src", "rest.src"])
def test_a_hard_link_in_a_tar_is_the_file_it_names(named, tmp_path):
    path = tmp_path / "x.tar"
    with tarfile.open(path, "w") as box:
        for file in sorted(ARCHIVE.rglob("*.*")):
            inside = file.relative_to(ARCHIVE).as_posix()
            if inside == "easy/xsum_data/org_data/test.tgt":
                entry = tarfile.TarInfo(inside)
                entry.type = tarfile.LNKTYPE
                entry.linkname = f"easy/xsum_data/org_data/{named}"
                box.addfile(entry)
            else:
                box.add(file, inside)
    if named == "rest.src":
        with pytest.raises(Refused, match=r"x.tar: cannot be read to its end .*rest.src' not fou"):
            prepare.prepare([path], tmp_path / "out")
        return
    assert not prepare.prepare([path], tmp_path / "out").left_out
    source, target = (tmp_path / "out" / "easy" / "xsum" / f"test.{x}" for x in ("src", "tgt"))
    assert source.read_text() == target.read_text() != ""


@pytest.mark.parametrize("inside", ["", "easy", "easy/xsum"])
def test_what_cannot_be_written_is_refused_by_name(inside, tmp_path, capsys):
    file = tmp_path / "out" / inside
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("somebody's")
    words = ["prepare", "--archive", str(ARCHIVE), "--out", str(tmp_path / "out")]
    assert prepare.main(words) == 2
    assert capsys.readouterr().err.startswith(f"error: {file}")
    assert file.read_text() == "somebody's"
    assert len(list(tmp_path.rglob("*"))) == 1 + inside.count("/") + bool(inside)


def test_a_folder_is_not_replaced_by_a_file(tmp_path):
    taken = tmp_path / "easy" / "xsum" / "test.tgt"
    taken.mkdir(parents=True)
    with pytest.raises(Refused, match=r"xsum/test.tgt: is in the way of .*xsum/test.tgt"):
        prepare.prepare([ARCHIVE], tmp_path)
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_the_folder_may_be_the_one_that_one_is_in(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert prepare.main(["prepare", "--archive", str(ARCHIVE), "--out", "."]) == 0
    assert (tmp_path / "easy" / "xsum" / "test.src").is_file()


def test_bytes_that_are_no_text_are_refused_with_archive_and_line(tmp_path):
    shutil.copytree(ARCHIVE, tmp_path / "a")
    source = tmp_path / "a" / "easy" / "coqa_data" / "org_data" / "dev.src"
    source.write_bytes(b"one\n\xff\n")
    with pytest.raises(Refused) as caught:
        prepare.prepare([tmp_path / "a"], tmp_path / "out")
    assert str(caught.value).startswith(f"{tmp_path / 'a'}: easy/coqa/dev.src:2: not UTF-8 text")


def test_an_archive_whose_sides_disagree_is_refused(tmp_path):
    shutil.copytree(ARCHIVE, tmp_path / "a")
    target = tmp_path / "a" / "easy" / "coqa_data" / "org_data" / "dev.tgt"
    target.write_text("only one\n")
    with pytest.raises(Refused, match=r"easy/coqa: dev.src has 2 lines, dev.tgt 1"):
        prepare.prepare([tmp_path / "a"], tmp_path / "out")
    for side in ("src", "tgt"):
        target.with_suffix(f".{side}").write_text("")
    with pytest.raises(Refused, match=r"easy/coqa: nothing in dev.src and dev.tgt"):
        prepare.prepare([tmp_path / "a"], tmp_path / "out")


def test_a_name_that_leads_out_of_the_archive_leads_nowhere(tmp_path):
    path = tmp_path / "x.tar"
    with tarfile.open(path, "w") as box:
        entry = tarfile.TarInfo("../../easy/coqa_data/org_data/dev.src")
        entry.size = 2
        box.addfile(entry, io.BytesIO(b"a\n"))
    made = prepare.prepare([path], tmp_path / "out", partial=True)
    assert made.left_out == ["easy/coqa/dev.src"]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["x.tar"]
    assert not list(tmp_path.parent.glob("easy"))


def test_the_command_prints_what_was_made_and_what_to_type_next(tmp_path, capsys):
    out = tmp_path / "out"
    assert prepare.main(["prepare", "--archive", str(ARCHIVE), "--out", str(out)]) == 0
    said = capsys.readouterr().out
    assert "easy/personachat      3    2     3" in said
    assert said.splitlines()[-1] == (
        f"next: januslm finetune glge_janus task=xsum data.root={out / 'easy'}"
    )
    assert prepare.main(["prepare", "--archive", str(tmp_path / "x")]) == 2
    assert capsys.readouterr().err == f"error: {tmp_path / 'x'}: no such file or folder\n"
    with pytest.raises(SystemExit):
        prepare.main(["prepare", "--help"])
    assert "januslm data glge --archive glge_public.tgz" in capsys.readouterr().out


@pytest.mark.parametrize("name", leaderboard.COLUMNS)
def test_a_task_reads_what_it_saves(name, tmp_path):
    task = find("finetune.tasks", name)
    for split in text_pairs.SPLITS:
        wanted = list(task.read(ARCHIVE / "easy", split))
        assert task.save(tmp_path / name, split, wanted) == len(wanted)
        assert list(task.read(tmp_path, split)) == wanted
    unanswered = [text_pairs.Pair(one.id, one.source, ()) for one in wanted]
    task.save(tmp_path / name, "test", unanswered)
    assert list(task.read(tmp_path, "test")) == unanswered


def test_what_a_teacher_of_another_task_wrote_is_refused(tmp_path):
    xsum.save(tmp_path, "train", xsum.read(ARCHIVE / "easy", "train"))
    (tmp_path / text_pairs.MADE).write_text('{"about": {"task": "xsum"}}')
    assert len(list(xsum.read(tmp_path, "train"))) == 3
    with pytest.raises(Refused, match="a distillation of task 'xsum', not of 'gigaword'"):
        list(gigaword.read(tmp_path, "train"))
    for text, message in (("{", "not a JSON file"), ("[]", "must be one table"), ("{}", "None")):
        (tmp_path / text_pairs.MADE).write_text(text)
        with pytest.raises(Refused, match=rf"distill.json: .*{message}"):
            list(xsum.read(tmp_path, "train"))


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


def test_squadqg_is_read_byte_by_byte_where_that_is_official():
    """Its script is of Python 2: letters beyond ASCII keep their case, and U+00A0 is no space."""
    assert squadqg.tidy("Was É . B . A ?", "official") == "was É . b . a ?"
    assert squadqg.tidy("Was U . N . A ?", "official") == "was u.n. . a ?"
    assert squadqg.tidy("Was É A ?", "plain") == "was é a ?"
    assert squadqg.tidy("1\u00a0A , 2 ?", "official") == "1\u00a0a , 2 ?"
    assert squadqg.tidy_reference(" ÉA ", "official") == "Éa"
    assert squadqg.tidy_reference(" ÉA ", "plain") == "éa"
    assert squadqg.key("ÉA b") == "Éa b"
    assert qg_bleu.score(["a\u00a0b c d e"], [["a b c d e"]])["bleu-4"] < 1


# Scores


def published() -> list[dict[str, str]]:
    head, *rows = (FIXTURE / "leaderboard.tsv").read_text().splitlines()
    return [dict(zip(head.split("\t"), row.split("\t"), strict=True)) for row in rows]


@pytest.mark.parametrize("row", published(), ids=lambda row: f"{row['version']} {row['model']}")
def test_the_overall_score_follows_from_the_parts_of_every_leaderboard_row(row):
    parts = {
        task: dict(zip(keys, map(float, row[task].split("/")), strict=True))
        for task, keys in leaderboard.COLUMNS.items()
    }
    assert leaderboard.overall(parts) == pytest.approx(float(row["score"]), abs=0.05)


def test_the_leaderboard_has_23_complete_rows_of_all_versions():
    rows = published()
    assert [sum(row["version"] == v for row in rows) for v in ("easy", "medium", "hard")] == [
        9,
        7,
        7,
    ]
    assert len({(row["version"], row["model"]) for row in rows}) == 23
