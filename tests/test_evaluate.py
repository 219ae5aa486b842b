"""The evaluate command on real predictions files: its table, its verdicts, and what it refuses."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from finetune import evaluate
from finetune.evaluation import scoring
from finetune.evaluation.facts import Facts
from finetune.evaluation.predictions import Predictions
from finetune.tasks import docsum
from januslm.data.text_pairs import Pair
from januslm.metrics._bootstrap import Difference
from januslm.registry import find

ROOT = Path(__file__).resolve().parents[1]
SOURCES = [
    "Open a file and read it. The name is given.",
    "Close the file. Nothing is returned.",
    "Return the size of a file in bytes. Links are followed.",
    "Delete a folder. It must be empty.",
]
TARGETS = ["Read a whole file.", "Close the file.", "Size of a file.", "Delete an empty folder."]


@pytest.fixture
def corpus(tmp_path) -> Path:
    """A docsum test set of four lines."""
    rows = [
        {"id": f"m.{i}", "package": "m", "source": source, "target": target}
        for i, (source, target) in enumerate(zip(SOURCES, TARGETS, strict=True))
    ]
    (tmp_path / "docsum").mkdir()
    text = "".join(json.dumps(row) + "\n" for row in rows)
    (tmp_path / "docsum" / "test.jsonl").write_text(text)
    return tmp_path


def write(path: Path, pairs: list[Pair], texts: list[str], **settings) -> Path:
    """A predictions file and its settings, as `generate` writes them."""
    rows = [
        {"id": p.id, "source": p.source, "prediction": text, "references": list(p.targets)}
        for p, text in zip(pairs, texts, strict=True)
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    known = {"split": "test", "sentences": len(rows), "settings": {}, "truncated": 0}
    path.with_suffix(".json").write_text(json.dumps(known | settings))
    return path


@pytest.fixture
def runs(corpus) -> Path:
    """A folder with greedy, beam and mask-predict predictions of that test set."""
    pairs = list(docsum.read(corpus, "test"))
    out = corpus / "run"
    made = [
        ("greedy", ["File.", "File.", "File.", "File."], {}, 20.0),
        ("beam", TARGETS, {"beam": 5}, 60.0),
        ("mask_predict", ["Read.", "Close.", "Size.", "Delete."], {"iterations": 4}, 5.0),
    ]
    for name, texts, settings, ms in made:
        write(
            out / f"test.{name}.jsonl",
            pairs,
            texts,
            algorithm=name,
            settings=settings,
            task="docsum",
            ms_per_sentence=ms,
            tokens=12,
            passes=3.0,
            truncated=1,
        )
    return out


def said(capsys, *arguments) -> str:
    assert evaluate.main([str(a) for a in arguments]) == 0
    return capsys.readouterr().out


def refused(capsys, *arguments) -> str:
    """The one line on stderr of a call that exits with 2."""
    assert evaluate.main([str(a) for a in arguments]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    return error.strip().removeprefix("error: ")


# The table


def test_the_table_has_a_row_per_algorithm_and_one_of_lead_1(runs, capsys):
    text = said(capsys, runs, "--examples", "0")
    rows = {line[:16].strip(): line.split() for line in reversed(text.splitlines())}
    assert rows["AR beam 5"][-7:] == ["100.00", "100.00", "100.00", "60.0", "1.0x", "1.0", "1"]
    assert rows["AR greedy"][-4:] == ["20.0", "3.0x", "1.0", "1"]
    assert rows["NAR 4 iterations"][-4:] == ["5.0", "12.0x", "1.0", "1"]
    assert "-" in rows["lead-1"]


def test_times_of_other_batches_or_threads_are_not_compared(runs, capsys):
    settings = runs / "test.greedy.json"
    facts = json.loads(settings.read_text())
    for path in runs.glob("test.*.json"):
        path.write_text(json.dumps(json.loads(path.read_text()) | {"batch": 1, "threads": 1}))
    text = said(capsys, runs, "--examples", "0")
    assert "3.0x" in text
    assert "speed -" not in text
    for other in ({"batch": 16, "threads": 1}, {"batch": 1, "threads": 2}):
        settings.write_text(json.dumps(facts | other))
        text = said(capsys, runs, "--examples", "0")
        (row,) = [line.split() for line in text.splitlines() if line.startswith("AR greedy  ")]
        assert row[-4:] == ["20.0", "-", "1.0", "1"]
        assert "speed -: another batch or threads or precision or graphs than AR beam 5\n" in text


@pytest.mark.parametrize(
    ("settings", "label"),
    [
        ({"iterations": 1, "length_beam": 1}, "NAR 1 iteration, 1 length"),
        ({"iterations": 4, "length_beam": 5}, "NAR 4 iterations, 5 lengths"),
        (
            {"iterations": 4, "length_beam": 5, "rescore": True},
            "NAR 4 iterations, 5 lengths, AR chooses",
        ),
    ],
)
def test_a_row_says_over_how_many_lengths_and_who_chooses(settings, label):
    facts = Facts(algorithm="mask_predict", settings=settings)
    assert Predictions(Path("x.jsonl"), facts, [], [], [], []).label == label


def test_the_table_says_plainly_who_beats_lead_1(runs, capsys):
    text = said(capsys, runs)
    assert re.search(r"^AR beam 5 beats lead-1: 100.00 > \d\d\.\d\d ROUGE-1$", text, re.M)
    assert re.search(
        r"^AR greedy does not beat lead-1: \d\d\.\d\d < \d\d\.\d\d ROUGE-1$", text, re.M
    )


def test_where_no_beam_was_decoded_speed_is_compared_with_greedy(runs, capsys):
    (runs / "test.beam.jsonl").unlink()
    text = said(capsys, runs, "--examples", "0")
    assert "speed vs AR greedy" in text
    rows = {line[:16].strip(): line.split() for line in reversed(text.splitlines())}
    assert rows["AR greedy"][-3] == "1.0x"
    assert rows["NAR 4 iterations"][-3] == "4.0x"


def test_of_several_baselines_the_best_is_to_be_beaten():
    rows = {"AR greedy": {"bleu": 60.0, "exact": 1.0}}
    bases = {"copy": {"bleu": 40.0, "exact": 9.0}, "rule": {"bleu": 50.0, "exact": 0.0}}
    assert evaluate.verdicts(rows, bases) == ["AR greedy beats rule: 60.00 > 50.00 BLEU"]
    assert evaluate.verdicts(rows, {}) == []


def test_an_equal_score_does_not_beat():
    sentence = evaluate.beats("AR greedy", 22.701, "lead-1", 22.699, "rouge-1")
    assert sentence == "AR greedy does not beat lead-1: 22.70 = 22.70 ROUGE-1"


def test_examples_show_source_reference_and_every_system_within_the_width(runs, capsys):
    text = said(capsys, runs, "--examples", "2")
    block = text[text.index("example m.") : text.index("\nalgorithm ")]
    for word in ("source", "reference", "AR greedy", "AR beam 5", "NAR 4 iterations"):
        assert block.count(f"\n{word} ") == 2
    assert max(map(len, block.splitlines()[:-1])) <= 80


def test_scores_are_written_beside_the_predictions(runs, capsys):
    said(capsys, runs)
    (found,) = json.loads((runs / "scores.json").read_text())
    assert found["task"] == "docsum"
    assert found["modes"]["plain"]["AR beam 5"]["rouge-1"] == 100
    assert set(found["modes"]["plain"]) == {"AR beam 5", "AR greedy", "NAR 4 iterations", "lead-1"}


def repeated(runs: Path, times: int) -> Path:
    """The same predictions with every line so many times, each with an id of its own."""
    for path in runs.glob("*.jsonl"):
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        lines = [json.dumps(row | {"id": f"{row['id']}.{n}"}) for n in range(times) for row in rows]
        path.write_text("".join(line + "\n" for line in lines))
        beside = path.with_suffix(".json")
        beside.write_text(json.dumps(json.loads(beside.read_text()) | {"sentences": len(lines)}))
    return runs


def test_scores_have_their_intervals_where_they_are_asked_for(runs, capsys):
    assert "\u00b1" not in said(capsys, runs)
    assert not re.search("\\d \u00b1", said(capsys, runs, "--intervals")), "of four lines"
    repeated(runs, 5)
    text = said(capsys, runs, "--intervals")
    lines = text[text.index("\nalgorithm ") :].splitlines()
    row = next(line for line in lines if line.startswith("AR greedy"))
    found = re.findall(r"(\d+\.\d\d) \u00b1(\d+\.\d\d)", row)
    assert len(found) == 3
    assert 0 < float(found[0][1]) < 50
    (written,) = json.loads((runs / "scores.json").read_text())
    half = written["modes"]["plain"]["AR greedy"]["intervals"]["rouge-1"]
    assert f"{half:.2f}" == found[0][1]


def test_a_run_folder_has_its_predictions_scored_and_not_its_logs(runs, corpus, capsys):
    whole = corpus / "whole"
    whole.mkdir()
    runs.rename(whole / "predictions")
    (whole / "valid.jsonl").write_text('{"step": 0}\n')
    assert "AR beam 5" in said(capsys, whole)
    assert (whole / "scores.json").is_file()


def test_a_comparison_prints_an_interval_and_a_verdict(runs, capsys):
    text = said(capsys, runs, "--compare", "AR beam 5", "greedy")
    assert re.search(r"rouge-1 100.00 - .* 95 % interval \+.*: 4 lines are too few to tell", text)
    text = said(capsys, repeated(runs, 5), "--compare", "AR beam 5", "greedy")
    assert re.search(r"rouge-1 100.00 - .* 95 % interval \+.* a real difference", text)


def test_a_metric_asked_for_says_what_it_was_called_with(runs, capsys):
    asked = [
        word
        for name in ("bleu", "bleu:lowercase=true", "rouge:stem=true", "rouge:level=summary")
        for word in ("--metric", name)
    ]
    text = said(capsys, runs, *asked, "--compare", "beam", "greedy")
    for name in ("bleu", "bleu lowercase", "rouge-1 stem", "rouge-l summary"):
        assert re.search(rf"^  {name} 100\.00 - ", text, re.MULTILINE), name
    assert "|case:lc|" in text
    (written,) = json.loads((runs / "scores.json").read_text())
    columns = written["modes"]["plain"]["AR greedy"].keys()
    assert columns >= {"bleu", "bleu lowercase", "rouge-1 stem", "rouge-1 summary"}


def test_two_metrics_with_numbers_of_one_name_are_refused(runs, capsys):
    message = refused(capsys, runs, "--metric", "rouge", "--metric", "qg_rouge")
    assert message == "--metric: qg_rouge and one before it both give rouge-l; one only"


@pytest.mark.parametrize(
    ("beside", "why"),
    [
        ([1], "must be one table, got [1]"),
        ({"task": 5}, "task must be a text, got 5"),
        ({"task": "docsum", "ms_per_sentence": "fast"}, "ms_per_sentence must be a number, got"),
        ({"task": "docsum", "sentences": "4"}, "sentences must be a whole number, got '4'"),
    ],
)
def test_settings_that_are_none_are_refused(runs, capsys, beside, why):
    (runs / "test.beam.json").write_text(json.dumps(beside))
    assert f"test.beam.json: {why}" in refused(capsys, runs)


def test_half_a_letter_is_refused_by_its_line(runs, capsys):
    path = runs / "test.beam.jsonl"
    path.write_text(path.read_text().replace('Close the file.", "ref', 'Close \\ud83d", "ref', 1))
    assert "test.beam.jsonl:2: 'prediction' has half of a surrogate pair" in refused(capsys, path)


def test_two_runs_of_one_algorithm_keep_their_rows(corpus, capsys):
    pairs = list(docsum.read(corpus, "test"))
    for name, texts in (("ar", ["File."] * 4), ("janus", TARGETS)):
        place = corpus / name / "predictions" / "test.greedy.jsonl"
        write(place, pairs, texts, task="docsum", algorithm="greedy")
        beam = {"task": "docsum", "algorithm": "beam", "settings": {"beam": 5}}
        write(place.with_name("test.beam.jsonl"), pairs, texts, **beam)
    both = [str(corpus / "ar"), str(corpus / "janus")]
    compared = ["--compare", "janus/predictions/test.greedy", "AR greedy (ar)"]
    assert evaluate.main([*both, *compared]) == 0
    text = capsys.readouterr().out
    rouge = dict(re.findall(r"^(AR greedy \(\w+\)) +([\d.]+)", text, re.MULTILINE))
    assert rouge["AR greedy (janus)"] == "100.00"
    assert float(rouge["AR greedy (ar)"]) < 50
    assert re.search(r"^AR beam 5 \(ar\)  ", text, re.MULTILINE)
    assert "AR greedy (janus) - AR greedy (ar), paired bootstrap" in text
    assert evaluate.main([*both, "--compare", "greedy", "AR greedy (ar)"]) == 2
    assert "2 predictions 'greedy' among these" in capsys.readouterr().err


def test_other_metrics_and_modes_can_be_asked_for(runs, capsys):
    text = said(capsys, runs, "--metric", "bleu:mode=compound", "--metric", "exact_match")
    assert "bleu compound" in text
    assert "bleu: compound|nrefs:1|" in text
    assert "exact" in text


def test_two_runs_with_the_same_name_are_reported_apart_by_their_files(runs, capsys):
    for end in ("jsonl", "json"):
        (runs / f"test.beam-b.{end}").write_text((runs / f"test.beam.{end}").read_text())
    text = said(capsys, runs)
    assert "AR beam 5 (test.beam) " in text
    assert "AR beam 5 (test.beam-b) " in text


def test_the_references_of_the_task_are_used_where_its_data_is_at_hand(runs, corpus, capsys):
    assert f"ids as in {corpus}" in said(capsys, runs, "--data", corpus)
    assert "ids not checked" in said(capsys, runs)


def test_the_verdict_comes_last_after_examples_and_table(runs, capsys):
    text = said(capsys, runs)
    places = [text.index(words) for words in ("example m.", "\nalgorithm ", "does not beat lead-1")]
    assert places == sorted(places)


def limited(runs: Path, name: str, count: int) -> Path:
    """The first lines of a predictions file, as --limit leaves them."""
    path = runs / f"test.{name}.jsonl"
    made = path.with_name(f"test.{name}.limit-{count}.jsonl")
    made.write_text("".join(path.read_text().splitlines(keepends=True)[:count]))
    facts = json.loads(path.with_suffix(".json").read_text())
    made.with_suffix(".json").write_text(json.dumps(facts | {"limit": count, "sentences": count}))
    return made


def test_a_file_of_a_few_texts_in_a_folder_is_left_out_and_said_so(runs, capsys):
    before = said(capsys, runs)
    path = limited(runs, "greedy", 2)
    line = f"left out: {path.name}, decoded with --limit 2; name it alone to have it scored\n"
    text = said(capsys, runs)
    assert line in text
    assert text.replace(line, "") == before
    assert "AR greedy" in said(capsys, path)
    assert "4 predictions" in refused(capsys, path, runs / "test.beam.jsonl")


def test_files_of_one_limit_are_scored_and_those_of_a_smaller_one_are_left_out(runs, capsys):
    for name in ("greedy", "beam", "mask_predict"):
        limited(runs, name, 3)
        (runs / f"test.{name}.jsonl").unlink()
    text = said(capsys, runs)
    assert "docsum, test: 3 sentences" in text
    assert "left out" not in text
    few = limited(runs, "greedy.limit-3", 1)
    assert f"left out: {few.name}, decoded with --limit 1" in said(capsys, runs)
    # More was asked for than there is: nothing is missing.
    facts = json.loads((runs / "test.beam.limit-3.json").read_text())
    (runs / "test.beam.limit-3.json").write_text(json.dumps(facts | {"limit": 500}))
    assert "beam" not in re.findall(r"left out: (.*)", said(capsys, runs))[0]


def test_predictions_of_other_data_have_a_table_of_their_own(runs, corpus, capsys, tmp_path):
    other = [Pair(f"o.{i}", f"Text {i}. More.", (f"Text {i}.",)) for i in range(3)]
    facts = {"task": "docsum", "algorithm": "greedy", "data": str(tmp_path / "other")}
    write(runs / "test.greedy.data-other-123456.jsonl", other, ["Text."] * 3, **facts)
    for path in runs.glob("test.*.json"):
        known = json.loads(path.read_text())
        path.write_text(json.dumps({"data": str(corpus)} | known))
    text = said(capsys, runs, "--compare", "beam", "mask_predict")
    assert re.findall(r"^docsum, test: (\d) sentences", text, re.MULTILINE) == ["4", "3"]
    assert text.count("paired bootstrap") == 1
    assert [one["data"] for one in json.loads((runs / "scores.json").read_text())] == [
        str(corpus),
        str(tmp_path / "other"),
    ]


def test_the_same_texts_from_another_place_share_a_table(runs, capsys):
    for number, path in enumerate(sorted(runs.glob("test.*.json"))):
        path.write_text(json.dumps(json.loads(path.read_text()) | {"data": f"/nowhere/{number}"}))
    assert said(capsys, runs).count("4 sentences") == 1


def test_files_to_compare_are_named_once(runs, capsys, monkeypatch):
    monkeypatch.chdir(runs)
    for ours in ("test.beam.jsonl", "./test.beam.jsonl", str(runs / "test.beam.jsonl")):
        text = said(capsys, "--compare", ours, "test.greedy.jsonl")
        assert "AR beam 5 - AR greedy, paired bootstrap" in text
        assert "NAR" not in text
    assert "NAR" in said(capsys, ".", "--compare", "./test.beam.jsonl", "test.greedy.jsonl")
    with pytest.raises(SystemExit) as caught:
        evaluate.main(["--compare", "beam", "greedy"])
    assert caught.value.code == 2


def test_a_difference_that_no_decimal_shows_is_none(runs, capsys):
    nothing = Difference("bleu", 3e-8, 1e-8, 1e-9, 4e-8, 95.0)
    assert not nothing.real
    assert str(nothing).endswith("no difference in two decimals")
    assert Difference("bleu", 30.01, 30.0, 0.005, 0.02, 95.0).real


# What is refused


def test_predictions_that_miss_a_line_are_refused(runs, corpus, capsys):
    path = runs / "test.greedy.jsonl"
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:-1]))
    assert refused(capsys, path) == f"{path}: has 3 predictions; test.greedy.json says 4"
    path.with_suffix(".json").write_text('{"task": "docsum"}')
    message = f"{path}: 3 predictions, but docsum's test split has 4"
    assert refused(capsys, path, "--data", corpus) == message


def test_predictions_in_another_order_are_refused(runs, corpus, capsys):
    path = runs / "test.greedy.jsonl"
    path.write_text("".join(reversed(path.read_text().splitlines(keepends=True))))
    message = f"{path}:1: id 'm.3' where docsum's test split has 'm.0': the order differs"
    assert refused(capsys, path, "--data", corpus).startswith(message)
    assert "test.beam.jsonl has 'm.0': the order differs" in refused(capsys, runs)


def test_predictions_of_another_source_are_refused(runs, corpus, capsys):
    path = runs / "test.greedy.jsonl"
    path.write_text(path.read_text().replace("Close the file. Nothing", "Close it. Nothing"))
    message = f"{path}:2: id 'm.1' has another source than docsum's test split"
    assert refused(capsys, path, "--data", corpus) == message


def test_an_extra_prediction_and_one_that_comes_twice_are_refused(runs, corpus, capsys):
    path = runs / "test.greedy.jsonl"
    path.with_suffix(".json").write_text('{"task": "docsum"}')
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join([*lines, lines[-1].replace("m.3", "m.4")]))
    message = f"{path}: 5 predictions, but docsum's test split has 4"
    assert refused(capsys, path, "--data", corpus) == message
    path.write_text("".join([*lines, lines[1]]))
    assert refused(capsys, path) == f"{path}:5: id 'm.1' comes twice"


def test_shifted_predictions_are_refused(runs, corpus, capsys):
    path = runs / "test.greedy.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    for row, name in zip(rows, ["m.1", "m.2", "m.3", "m.4"], strict=True):
        row["id"] = name
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    message = f"{path}:1: id 'm.1' where docsum's test split has 'm.0': a line is missing; "
    assert refused(capsys, path, "--data", corpus) == message + "nothing was scored"


def test_predictions_with_other_references_are_refused(runs, corpus, capsys):
    path = runs / "test.greedy.jsonl"
    path.write_text(path.read_text().replace('["Size of a file."]', '["Size of a fire."]'))
    message = f"{path}:3: id 'm.2' has other references than "
    assert refused(capsys, path, "--data", corpus) == message + "docsum's test split"
    assert refused(capsys, runs).endswith(f"has other references than {runs / 'test.beam.jsonl'}")


def test_predictions_without_references_are_refused_or_get_those_of_the_data(runs, corpus, capsys):
    before = said(capsys, runs, "--data", corpus, "--examples", "0")
    for path in runs.glob("*.jsonl"):
        rows = [json.loads(line) | {"references": []} for line in path.read_text().splitlines()]
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert refused(capsys, runs) == (
        f"{runs / 'test.beam.jsonl'}: no references to score by; name the task's data with --data "
        "if it has them by now, or let `evaluate glge` write what GLGE's leaderboard scores"
    )
    assert said(capsys, runs, "--data", corpus, "--examples", "0") == before


def test_a_test_set_with_empty_lines_is_scored_as_it_is_and_says_so(runs, corpus, capsys):
    place = corpus / "docsum" / "test.jsonl"
    for path in (place, *runs.glob("*.jsonl")):
        text = path.read_text().replace(json.dumps(SOURCES[1]), '""')
        path.write_text(text.replace(json.dumps(TARGETS[3]), '" "'))
    note = ", 1 empty source kept, 1 empty reference kept\n"
    assert f"4 sentences, ids as in {corpus}{note}" in said(capsys, runs, "--data", corpus)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("prediction", None, "'prediction' must be a text, got None"),
        ("source", 3, "'source' must be a text, got 3"),
        ("references", [], "'references' is empty, and not so in every line"),
        ("references", "a text", "'references' must be a list of texts, got 'a text'"),
        ("references", ["a", 1], "'references' must be a list of texts, got ['a', 1]"),
    ],
)
def test_a_line_of_another_form_is_refused(key, value, message, runs, capsys):
    path = runs / "test.greedy.jsonl"
    first, *rest = path.read_text().splitlines(keepends=True)
    path.write_text(json.dumps(json.loads(first) | {key: value}) + "\n" + "".join(rest))
    assert refused(capsys, path) == f"{path}:1: {message}"


def test_empty_predictions_are_scored_and_counted(runs, capsys):
    path = runs / "test.greedy.jsonl"
    assert " empty\n" not in said(capsys, path)
    path.write_text(path.read_text().replace('"prediction": "File."', '"prediction": " "', 2))
    head, _, row = re.search(r"algorithm.*\n.*\n.*", said(capsys, path))[0].splitlines()
    assert (head.split()[-1], row.split()[-1]) == ("empty", "2")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("nowhere",), "nowhere: no such file or folder"),
        (("{run}", "--metric", "rogue"), "no 'rogue' in metrics/; there are bleu, .*Did you mean"),
        (("{run}", "--metric", "bleu:mdoe=x"), "metric bleu: unknown key 'mdoe'; there are"),
        (("{run}", "--metric", "bleu:mode"), "'mode' is not a change: write key=value, e.g. mode="),
        (("{run}", "--metric", "rouge:stem=1"), "metric rouge: stem must be true or false, got 1"),
        (("{run}", "--compare", "beam", "x"), "--compare: 0 predictions 'x' among these; there"),
        (("{run}", "--task", "xsum"), "predictions of task 'docsum', not of 'xsum'"),
        (("{run}", "--data", "{run}"), "no data of task 'docsum' there; looked for test.jsonl"),
        (("glge",), "evaluate glge: name a folder"),
        (("glge", "{run}"), "'docsum' is no GLGE task; there are cnndm, coqa"),
    ],
)
def test_mistakes_get_one_line(arguments, message, runs, capsys):
    given = [a.format(run=runs) for a in arguments]
    if given[1:2] == ["--data"]:
        given[2] = str(runs)
    one = runs / "test.greedy.jsonl"
    given = [str(one) if a == str(runs) and given[0] == "glge" else a for a in given]
    assert re.search(message, refused(capsys, *given))


@pytest.mark.slow
def test_the_command_ends_with_2_and_no_traceback(tmp_path):
    command = [sys.executable, "-m", "finetune.evaluate", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr == f"error: {tmp_path}: no predictions (*.jsonl) in it\n"


def test_help_teaches(capsys):
    with pytest.raises(SystemExit) as caught:
        evaluate.main(["--help"])
    assert caught.value.code == 0
    text = capsys.readouterr().out
    assert "januslm evaluate runs/demo/restore" in text
    assert "in the order of the test set" in text


@pytest.mark.parametrize("name", ["squadqg", "msqg"])
def test_lines_with_one_source_become_one_with_all_references_and_the_last_prediction(name):
    task = find("finetune.tasks", name)
    sources = ["May [SEP] It opens in May .", "x [SEP] y", "May [SEP] It opens in May ."]
    run = Predictions(
        Path("x.jsonl"),
        Facts(task=name),
        ["1", "2", "3"],
        sources,
        ["first - hand", "other", "second - hand"],
        [["a"], ["b"], ["c"]],
    )
    ours, theirs = scoring.texts(run, task, "official")
    assert ours == ["second-hand" if name == "squadqg" else "second - hand", "other"]
    assert theirs == [["a", "c"], ["b"]]
