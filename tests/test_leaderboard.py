"""All GLGE tasks in one table: which predictions count, the overall score, what is sent in."""

import contextlib
import io
import json
import os
import re
import shutil
import sys
from pathlib import Path

import pytest

from finetune.glge import leaderboard, prepare
from januslm.config import Refused
from januslm.registry import find
from tests.test_evaluate import refused, said, write

ARCHIVE = Path(__file__).parent / "fixtures" / "glge" / "data" / "easy"
WITHOUT = ("cnndm", "gigaword", "xsum", "msnews", "coqa", "personachat")  # need no METEOR


def answers(folder: Path, tasks, stem: str = "test.beam", data: Path = ARCHIVE, **settings) -> Path:
    """Perfect answers to some tasks, as runs keep them: FOLDER/TASK/predictions/STEM.jsonl."""
    for name in tasks:
        pairs = list(find("finetune.tasks", name).read(ARCHIVE, "test"))
        place = folder / name / "predictions" / f"{stem}.jsonl"
        known = {"task": name, "algorithm": stem.split(".")[1], "data": str(data)}
        write(place, pairs, [p.targets[0] for p in pairs], **known | settings)
        (folder / name / "valid.jsonl").write_text('{"step": 0}\n')  # a log, as runs have it
    return folder


@pytest.fixture(autouse=True)
def no_meteor(monkeypatch):
    """METEOR's package is not installed, as far as an import can tell, whether it is or not."""
    monkeypatch.setitem(sys.modules, "pycocoevalcap", None)


@pytest.fixture
def run(tmp_path) -> Path:
    """Perfect answers to all tasks, by beam search."""
    return answers(tmp_path / "run", leaderboard.COLUMNS)


def rows(text: str) -> dict[str, list[str]]:
    """The table's cells by task."""
    body = text[text.index("----") :].splitlines()[1:]
    return {line.split()[0]: line.split()[1:] for line in body[: len(leaderboard.COLUMNS) + 1]}


def test_the_table_has_both_modes_of_every_task_and_their_means(run, capsys):
    text = said(capsys, "glge", run)
    assert text.startswith("GLGE easy, beam\n")
    found = rows(text)
    perfect = "100.00/100.00/100.00"
    for name in ("cnndm", "gigaword", "xsum", "msnews"):
        assert found[name] == ["3", perfect, "100.00", perfect, "100.00", "rouge-1/rouge-2/rouge-l"]
    assert found["coqa"] == ["3", "100.00", "100.00", "100.00", "100.00", "f1"]
    assert found["squadqg"][1].startswith("100.00/100.00/")
    assert "personachat, official, not in its mean: bleu 100.00" in text
    assert "personachat, bleu: nrefs:1|" in text
    assert re.search(r"official test sets have other numbers of lines: .* xsum 11,333, ", text)
    assert "ids not checked" not in text


def test_every_leaderboard_row_has_the_tasks_that_archives_have():
    assert tuple(leaderboard.COLUMNS) == prepare.TASKS
    assert leaderboard.LINES.keys() == leaderboard.COLUMNS.keys()


def pretend(folder: Path, patch: pytest.MonkeyPatch) -> None:
    """A program in the place of METEOR's, which finds half of five words in every line."""
    numbers = "5 5 2 2 1.5 1.5 1 1 0 0 0 0 0 0 0 0 0 0 0 0 1 2.5 2.5"
    program = folder / "bin" / "java"
    program.parent.mkdir()
    program.write_text(f"#!/bin/sh\nwhile read -r line; do echo {numbers}; done\n")
    program.chmod(0o755)
    (folder / "lib" / "pycocoevalcap" / "meteor").mkdir(parents=True)
    (folder / "lib" / "pycocoevalcap" / "__init__.py").touch()
    patch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    patch.delitem(sys.modules, "pycocoevalcap", raising=False)
    patch.syspath_prepend(folder / "lib")


@pytest.fixture
def java(tmp_path, monkeypatch):
    """METEOR, as far as the table is concerned."""
    pretend(tmp_path, monkeypatch)


@pytest.mark.slow
def test_the_overall_score_is_printed_where_every_metric_is_there(run, capsys, java):
    text = said(capsys, "glge", run)
    assert 0 < float(rows(text)["msqg"][1].split("/")[2]) < 100
    found = json.loads((run / "scores.beam.json").read_text())
    for mode, column in (("official", 2), ("plain", 4)):
        total = leaderboard.overall(found[mode])
        assert f"overall, {mode}: {total:.2f}" in text
        means = [float(cells[column]) for name, cells in rows(text).items() if name != "overall"]
        assert sum(means) / 8 == pytest.approx(total, abs=0.005)
        assert f"{total:.2f}" in rows(text)["overall"]


def test_without_meteor_all_else_is_printed_and_what_to_install(run, capsys):
    text = said(capsys, "glge", run)
    assert "left out: meteor: pycocoevalcap is not installed; " in text
    assert rows(text)["msqg"][1:3] == ["100.00/100.00/-", "-"]
    assert "overall, official: none, a metric of squadqg and msqg missing" in text


def test_missing_tasks_are_named(tmp_path, capsys):
    text = said(capsys, "glge", answers(tmp_path, WITHOUT))
    assert "overall, official: none, squadqg, msqg missing" in text


def test_a_line_of_the_test_set_without_words_is_counted(tmp_path, capsys):
    folder = answers(tmp_path, ["coqa"], data=Path("elsewhere/easy"))
    place = folder / "coqa" / "predictions" / "test.beam.jsonl"
    place.write_text(place.read_text().replace('"references": ["a map"]', '"references": [""]'))
    assert "\ncoqa: 1 empty reference kept\n" in said(capsys, "glge", folder)


# Test sets without references


def withheld(folder: Path, *names: str) -> Path:
    """Take the references out of predictions, and the targets out of a copy of the data."""
    data = folder / "secret" / "easy"
    shutil.copytree(ARCHIVE, data)
    for name in names:
        (data / f"{name}_data" / "org_data" / "test.tgt").unlink()
        place = folder / name / "predictions" / "test.beam.jsonl"
        rows = [json.loads(line) | {"references": []} for line in place.read_text().splitlines()]
        place.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return data


def test_what_has_no_references_is_sent_in_and_said_not_to_be_scored(run, capsys):
    data = withheld(run, "xsum", "coqa")
    text = said(capsys, "glge", run, "--data", data)
    assert "not scored, since their test sets have no references: xsum, coqa\n" in text
    assert rows(text)["xsum"] == ["3", "-/-/-", "-", "-/-/-", "-", "rouge-1/rouge-2/rouge-l"]
    assert rows(text)["cnndm"][2] == "100.00"
    assert "overall, official: none, no references of xsum, coqa\n" in text
    assert f"8 submission files written to {run / 'submission' / 'beam'}" in text
    wanted = (ARCHIVE / "xsum_data" / "org_data" / "test.tgt").read_text()
    assert (run / "submission" / "beam" / "xsum.easy.test").read_text() == wanted
    assert json.loads((run / "scores.beam.json").read_text())["official"]["xsum"] == {}


def test_a_benchmark_without_any_reference_is_only_written_to_be_sent_in(run, capsys):
    data = withheld(run, *leaderboard.COLUMNS)
    text = said(capsys, "glge", run, "--data", data, "--intervals")
    assert f"no references: {', '.join(leaderboard.COLUMNS)}\n" in text
    assert "8 submission files written" in text
    assert "left out: meteor" not in text
    assert "\u00b1" not in text
    assert rows(text)["overall"] == ["none", "none"]


def test_references_that_came_later_are_taken_from_the_data(tmp_path, capsys):
    folder = answers(tmp_path, WITHOUT)
    before = said(capsys, "glge", folder)
    withheld(folder, *WITHOUT)
    assert said(capsys, "glge", folder) == before  # its settings name the whole data


def test_sources_are_checked_where_there_are_no_references(tmp_path, capsys):
    folder = answers(tmp_path, ["msnews"])
    data = withheld(folder, "msnews")
    path = data / "msnews_data" / "org_data" / "test.src"
    path.write_text("".join(reversed(path.read_text().splitlines(keepends=True))))
    message = refused(capsys, "glge", folder, "--data", data)
    assert "jsonl:1: id 'msnews-test-1' has another source than msnews's test split" in message
    assert not (folder / "submission").exists()


# Intervals


def uneven(folder: Path) -> Path:
    """Answers of 20 lines a task, of which every other one is right."""
    data = folder / "easy"
    for name in leaderboard.COLUMNS:
        place = data / name
        place.mkdir(parents=True)
        for end in ("src", "tgt"):
            lines = [f"{end} number {n} of {name} has a word {n * n}\n" for n in range(20)]
            (place / f"test.{end}").write_text("".join(lines))
        pairs = list(find("finetune.tasks", name).read(data, "test"))
        texts = [p.targets[0] if n % 2 else f"{p.id} is it" for n, p in enumerate(pairs)]
        known = {"task": name, "algorithm": "beam", "data": str(data)}
        write(folder / "run" / name / "predictions" / "test.beam.jsonl", pairs, texts, **known)
    return folder / "run"


@pytest.fixture(scope="module")
def widths(tmp_path_factory) -> tuple[dict, str]:
    """What the scores have under "intervals", and what was printed."""
    folder = tmp_path_factory.mktemp("uneven")
    run, out = uneven(folder), io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(out):
        pretend(folder, patch)
        assert leaderboard.main([str(run), "--intervals"]) == 0
    return json.loads((run / "scores.beam.json").read_text())["intervals"], out.getvalue()


def test_of_a_few_lines_there_are_no_intervals(run, capsys):
    text = said(capsys, "glge", run, "--intervals")
    assert "\u00b1" not in text
    assert f"no intervals, which need 20 lines: {', '.join(leaderboard.COLUMNS)}\n" in text


@pytest.mark.slow
def test_scores_means_and_the_overall_score_have_their_intervals(widths):
    found, text = widths
    for mode, column in (("official", 1), ("plain", 5)):
        for name, keys in leaderboard.COLUMNS.items():
            cells = rows(text)[name]
            half = found[mode][name]
            halves = ["-" if key.startswith("distinct") else f"{half[key]:.2f}" for key in keys]
            assert cells[column + 1] == "\u00b1" + "/".join(halves)
            assert cells[column + 3] == f"\u00b1{half['mean']:.2f}"
        whole = f"\u00b1{found[mode]['overall']['mean']:.2f}"
        assert re.search(rf"^overall, {mode}: \d+\.\d\d {whole}$", text, re.MULTILINE)
        assert whole in rows(text)["overall"]
    assert "95 % of 2,000 resampled test sets, drawn for each task by itself; distinct has" in text


@pytest.mark.slow
def test_tasks_are_resampled_each_for_itself_and_metrics_of_a_task_together(widths):
    """All tasks have as many lines here: drawn together, their errors would not even out."""
    found = widths[0]["official"]
    alone = [found[name]["mean"] for name in leaderboard.COLUMNS]
    assert found["overall"]["mean"] == pytest.approx(sum(h * h for h in alone) ** 0.5 / 8, rel=0.1)
    lines = found["cnndm"]  # right or wrong in all of its metrics at once
    three = [lines[key] for key in leaderboard.COLUMNS["cnndm"]]
    assert lines["mean"] == pytest.approx(sum(three) / 3, rel=0.02)
    assert found["coqa"]["mean"] == found["coqa"]["f1"]


@pytest.mark.slow
def test_distinct_adds_nothing_to_the_interval_of_its_mean(widths):
    half = widths[0]["official"]["personachat"]
    assert set(half) == {"bleu-1", "bleu-2", "mean"}
    assert 0 < half["mean"] <= (half["bleu-1"] + half["bleu-2"]) / 4 + 1e-9


@pytest.mark.slow
def test_intervals_need_no_meteor_but_its_means_do(tmp_path, capsys):
    run = uneven(tmp_path)
    text = said(capsys, "glge", run, "--intervals")
    assert re.search(r"^msqg +20 +\S+/- \u00b1[\d.]+/[\d.]+/- +- ", text, re.MULTILINE)
    assert "overall, official: none, a metric of squadqg and msqg missing\n" in text
    found = json.loads((run / "scores.beam.json").read_text())["intervals"]["plain"]
    assert set(found["msqg"]) == {"rouge-l", "bleu-4"}
    assert "overall" not in found


def test_without_being_asked_no_interval_is_printed(tmp_path, capsys):
    folder = answers(tmp_path, WITHOUT)
    assert "\u00b1" not in said(capsys, "glge", folder)
    assert "intervals" not in json.loads((folder / "scores.beam.json").read_text())


# What is sent in


def test_submission_files_have_the_official_names_and_one_line_per_example(run, capsys):
    text = said(capsys, "glge", run)
    folder = run / "submission" / "beam"
    assert f"8 submission files written to {folder}" in text
    files = sorted(f.name for f in folder.iterdir())
    assert files == sorted(f"{task}.easy.test" for task in leaderboard.COLUMNS)
    lines = (folder / "cnndm.easy.test").read_text().split("\n")
    assert len(lines) == 4
    assert "[X_SEP]" in lines[0]
    wanted = (ARCHIVE / "xsum_data" / "org_data" / "test.tgt").read_text()
    assert (folder / "xsum.easy.test").read_text() == wanted


def test_predictions_of_a_part_of_the_test_set_are_scored_but_not_sent_in(tmp_path, capsys):
    folder = answers(tmp_path, WITHOUT)
    place = folder / "xsum" / "predictions" / "test.beam.jsonl"
    place.write_text(place.read_text().splitlines(keepends=True)[0])
    known = json.loads(place.with_suffix(".json").read_text()) | {"limit": 1, "sentences": 1}
    place.with_suffix(".json").write_text(json.dumps(known))
    text = said(capsys, "glge", folder)
    assert "xsum: decoded with --limit 1, so no submission file" in text
    assert not (folder / "submission" / "beam" / "xsum.easy.test").exists()


@pytest.mark.parametrize("end", [r"\n", r"\r"])  # the official readers break at both
def test_a_prediction_of_two_lines_cannot_be_sent_in(tmp_path, capsys, end):
    folder = answers(tmp_path, ["coqa"])
    place = folder / "coqa" / "predictions" / "test.beam.jsonl"
    place.write_text(
        place.read_text().replace('"prediction": "a map"', rf'"prediction": "a{end}map"')
    )
    assert "test.beam.jsonl:2: a prediction has a line break" in refused(capsys, "glge", folder)


# Which version, which system


@pytest.mark.parametrize(
    ("data", "version"),
    [("data/glge/hard", "hard"), ("x/easy/medium+", "medium+"), ("g/medium/xsum", "medium")],
)
def test_the_version_is_how_the_data_folder_is_called(data, version, tmp_path, capsys):
    folder = answers(tmp_path, WITHOUT, data=Path(data))
    text = said(capsys, "glge", folder)
    assert text.startswith(f"GLGE {version}, beam")
    assert "ids not checked against the data (name it with --data): cnndm, gigaword" in text


def test_a_version_that_nothing_says_must_be_named(tmp_path, capsys):
    folder = answers(tmp_path, WITHOUT, data=Path("somewhere"))
    assert refused(capsys, "glge", folder) == (
        "--version must be one of easy, medium, medium+, hard, got None"
    )
    assert said(capsys, "glge", folder, "--version", "hard").startswith("GLGE hard")
    assert "must be one of easy" in refused(capsys, "glge", folder, "--version", "simple")


def test_versions_are_not_mixed(tmp_path, capsys):
    folder = answers(tmp_path, WITHOUT[:2], data=Path("g/easy"))
    answers(folder, WITHOUT[2:3], data=Path("g/hard"))
    message = "one table is of one version, these are of easy or hard: cnndm easy, gigaword easy"
    assert refused(capsys, "glge", folder) == f"{message}, xsum hard"
    easy = folder / "cnndm"
    assert "cnndm easy, --version hard" in refused(capsys, "glge", easy, "--version", "hard")


def test_of_several_systems_one_must_be_chosen(run, capsys):
    for name in ("test.mask_predict.iterations-4", "test.mask_predict.iterations-10"):
        answers(run, leaderboard.COLUMNS, name)
    message = refused(capsys, "glge", run)
    assert message.startswith("3 predictions of cnndm: test.beam, test.mask_predict.iterations-4, ")
    assert message.endswith("a pattern of file names, e.g. --algorithm test.beam")
    assert "2 predictions of cnndm" in refused(capsys, "glge", run, "--algorithm", "mask_predict")
    for choice, name in (("*-4", "mask_predict.iterations-4"), ("beam", "beam")):
        text = said(capsys, "glge", run, "--algorithm", choice)
        assert text.startswith(f"GLGE easy, {name}\n")
        assert (run / "submission" / name / "xsum.easy.test").is_file()
        assert (run / f"scores.{name}.json").is_file()
    assert refused(capsys, "glge", run, "--algorithm", "greedy") == (
        "--algorithm: no predictions 'greedy'; there are beam, mask_predict"
    )


def test_two_runs_at_once_are_refused(tmp_path, capsys):
    for name in ("ar", "nar"):
        answers(tmp_path / name, WITHOUT)
    assert "name the folder of one run" in refused(capsys, "glge", tmp_path)


def test_other_splits_than_test_are_left_out_and_counted(tmp_path, capsys):
    folder = answers(tmp_path, WITHOUT)
    answers(folder, ["xsum"], "valid.beam", split="valid")
    assert "left out, since not of the test set: 1 files" in said(capsys, "glge", folder)


def test_a_line_that_is_missing_is_found_before_anything_is_written(run, capsys):
    place = run / "msqg" / "predictions" / "test.beam.jsonl"
    first, _, last = place.read_text().splitlines(keepends=True)
    place.write_text(first + last)
    place.with_suffix(".json").write_text(json.dumps({"task": "msqg", "data": str(ARCHIVE)}))
    message = refused(capsys, "glge", run)
    assert re.search("jsonl:2: id 'msqg-test-3' where msqg's test split has 'msqg-test-2'", message)
    assert not (run / "submission").exists()


def test_empty_predictions_are_counted(tmp_path, capsys):
    folder = answers(tmp_path, ["coqa"])
    place = folder / "coqa" / "predictions" / "test.beam.jsonl"
    place.write_text(place.read_text().replace('"prediction": "a map"', '"prediction": ""'))
    text = said(capsys, "glge", folder)
    assert "coqa: predictions without words, taken as they are: 1" in text
    assert (folder / "submission" / "beam" / "coqa.easy.test").read_text().split("\n")[1] == ""


def test_an_overall_score_needs_every_task_and_every_metric():
    parts = {task: dict.fromkeys(keys, 10.0) for task, keys in leaderboard.COLUMNS.items()}
    assert leaderboard.overall(parts) == pytest.approx(10)
    del parts["msqg"]["meteor"]
    with pytest.raises(Refused, match="msqg: no meteor; its score is made of rouge-l, bleu-4"):
        leaderboard.overall(parts)
    del parts["xsum"]
    with pytest.raises(Refused, match="needs all eight tasks; missing: xsum"):
        leaderboard.overall(parts)
