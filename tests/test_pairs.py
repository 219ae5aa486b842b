"""A task without Python: files and columns of a run file, read, split, refused by name."""

import csv
import json
import os
import re
import subprocess
import sys
from collections import Counter

import pytest

from finetune.tasks.pairs import configured
from januslm.config import Refused
from januslm.data import tasks, tokenizer
from januslm.data.text_pairs import SPLITS, Pair
from januslm.data.token_pairs import Limits, prepare, summary
from januslm.interop import native
from januslm.model.config import configure
from januslm.model.transformer import Seq2Seq
from tests.conftest import ROOT

ROWS = [(f"satz {n} ist kurz", f"sentence {n} is short") for n in range(40)]
ALL = {"valid": "data.valid", "test": "data.test"}  # so that train's file is train's alone


def written(folder, kind: str, rows=ROWS) -> str:
    """A file of that kind with columns de and en; its name."""
    name = f"data.{kind}"
    path = folder / name
    if kind == "jsonl":
        path.write_text("".join(json.dumps({"de": a, "en": b}) + "\n" for a, b in rows))
    elif kind in ("csv", "tsv"):
        with path.open("w", newline="") as file:
            writer = csv.writer(file, delimiter="," if kind == "csv" else "\t")
            writer.writerows([("de", "en"), *rows])
    elif kind == "parquet":
        import pyarrow
        import pyarrow.parquet

        table = pyarrow.table({"de": [a for a, _ in rows], "en": [b for _, b in rows]})
        pyarrow.parquet.write_table(table, path, row_group_size=7)
    elif kind == "dataset":
        import datasets

        made = {"de": [a for a, _ in rows], "en": [b for _, b in rows]}
        datasets.Dataset.from_dict(made).save_to_disk(str(path))
    else:
        for side, language in enumerate(("de", "en")):
            (folder / f"data.{language}").write_text("".join(f"{row[side]}\n" for row in rows))
        name = "data.{de,en}"
    return name


def task(train: str, **options):
    return configured(train=train, source="de", target="en", **options)


def read(made, root, split: str) -> list[tuple[str, tuple[str, ...]]]:
    return [(pair.source, pair.targets) for pair in made.read(root, split)]


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["jsonl", "csv", "tsv", "parquet", "dataset", "text"])
def test_every_kind_of_file_gives_the_same_pairs(kind, tmp_path):
    name = written(tmp_path, kind)
    made = task(name, valid=name, test=name)
    for split in SPLITS:
        assert read(made, tmp_path, split) == [(a, (b,)) for a, b in ROWS]


def test_a_cell_may_hold_what_a_line_may_not(tmp_path):
    rows = [('er sagte "ja",\ndann ging er', "yes, he said"), ("a" * 200_000, "long")]
    name = written(tmp_path, "csv", rows)
    assert read(task(name, valid=name), tmp_path, "valid") == [(a, (b,)) for a, b in rows]


def test_quotes_of_a_tsv_are_letters(tmp_path):
    (tmp_path / "x.tsv").write_text('de\ten\n"Ja\t5" pipe\n')
    assert read(task("x.tsv", valid="x.tsv"), tmp_path, "valid") == [('"Ja', ('5" pipe',))]


def test_a_file_without_a_heading_is_read_by_the_names_given(tmp_path):
    (tmp_path / "x.csv").write_text("eins,one\nzwei,two\n")
    made = task("x.csv", valid="x.csv", header=["de", "en"])
    assert read(made, tmp_path, "valid") == [("eins", ("one",)), ("zwei", ("two",))]


def test_a_column_may_lie_in_a_nested_object(tmp_path):
    (tmp_path / "x.jsonl").write_text('{"translation": {"de": "eins", "en": "one"}}\n')
    made = configured(
        train="x.jsonl", valid="x.jsonl", source="translation.de", target="translation.en"
    )
    assert read(made, tmp_path, "valid") == [("eins", ("one",))]


def test_several_references_are_all_scored_and_each_right_answer_is_learnt(tmp_path):
    rows = [{"q": "1", "a": ["one", "uno"], "b": "eins"}, {"q": 2, "a": ["two"], "b": None}]
    (tmp_path / "x.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    made = configured(
        train="x.jsonl",
        valid="x.jsonl",
        test="x.jsonl",
        source="q",
        target="a",
        references=["a", "b"],
    )
    assert read(made, tmp_path, "test") == [("1", ("one", "uno", "eins")), ("2", ("two",))]
    assert read(made, tmp_path, "train") == [("1", ("one",)), ("1", ("uno",)), ("2", ("two",))]
    ids = [pair.id for pair in made.read(tmp_path, "train")]
    assert ids == ["train-1", "train-1-2", "train-2"]


def test_a_test_set_without_answers_is_read_as_such(tmp_path):
    name = written(tmp_path, "csv")
    made = task(name, valid=name, test=name, references=[])
    assert all(pair.targets == () for pair in made.read(tmp_path, "test"))


@pytest.mark.slow
def test_one_file_is_split_by_the_source_so_that_equal_sources_are_on_one_side(tmp_path):
    """Also if they differ in white space; and the share is about what was asked for."""
    rows = [(f"satz  {n % 1500}" if n % 2 else f"satz {n % 1500} ", f"{n}") for n in range(6000)]
    name = written(tmp_path, "jsonl", rows)
    made = task(name, valid_share=0.1, test_share=0.2)
    sides = {split: read(made, tmp_path, split) for split in SPLITS}
    assert sum(map(len, sides.values())) == len(rows)
    sources = [{" ".join(source.split()) for source, _ in pairs} for pairs in sides.values()]
    assert sum(map(len, sources)) == len(set.union(*sources)) == 1500
    assert 0.08 < len(sides["valid"]) / len(rows) < 0.12
    assert 0.17 < len(sides["test"]) / len(rows) < 0.23


def test_the_split_of_a_row_does_not_depend_on_the_rows_around_it(tmp_path):
    name = written(tmp_path, "jsonl")
    before = set(read(task(name, valid_share=0.3), tmp_path, "valid"))
    written(tmp_path, "jsonl", [("ein neuer satz", "new"), *reversed(ROWS)])
    again = set(read(task(name, valid_share=0.3), tmp_path, "valid"))
    assert before
    assert before <= again <= before | {("ein neuer satz", ("new",))}


def test_a_file_of_its_own_leaves_the_training_rows_alone(tmp_path):
    name = written(tmp_path, "jsonl")
    made = task(name, valid=name, test_share=0.0)
    assert len(read(made, tmp_path, "train")) == len(ROWS)
    with pytest.raises(Refused, match=r"no test set: name its file, test = \.\.\., or test_share"):
        read(made, tmp_path, "test")


def test_rows_without_text_are_counted_and_said(tmp_path):
    rows = [*ROWS, ("", "nothing"), ("nichts", " "), ("  ", "nothing")]
    written(tmp_path, "csv", rows)
    made = task("data.csv", valid="data.csv")
    skipped: Counter = Counter()
    assert len(list(made.read(tmp_path, "train", skipped=skipped))) <= len(ROWS)
    assert skipped["empty target"] <= 1
    words = tokenizer.train_tokenizer([b for row in rows for b in row], 300, tmp_path / "t.json")
    made = task("data.csv", valid="data.csv", test="data.csv")
    limits = Limits(64, 64, "cut")
    line = summary(prepare(made, tmp_path, "train", words, limits, tmp_path / "prepared"))
    assert line.startswith("40 pairs of ")
    assert "2 empty source left out, 1 empty target left out, from" in line


def test_prepared_pairs_are_made_anew_for_other_columns_and_for_another_file(tmp_path):
    name = written(tmp_path, "csv", [(a, f"{b} and {b}") for a, b in ROWS])
    words = tokenizer.train_tokenizer([b for row in ROWS for b in row], 300, tmp_path / "t.json")

    def made(**options):
        chosen = configured(**{"train": name, "valid": name, "test": name} | options)
        return prepare(
            chosen, tmp_path, "train", words, Limits(64, 64, "cut"), tmp_path / "prepared"
        )

    there, back = made(source="de", target="en"), made(source="en", target="de")
    assert there["counts"]["source tokens"] == back["counts"]["target tokens"]
    assert there["counts"]["source tokens"] != back["counts"]["source tokens"]
    written(tmp_path, "csv", ROWS[:9])
    assert made(source="en", target="de")["counts"]["pairs"] == 9


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"train": "gone.csv"}, "no data of task 'pairs' there; looked for .*gone.csv"),
        ({"train": "no.{de,en}"}, "no data of task 'pairs' there; looked for .*no.de"),
        (
            {"source": "germna", "target": "english"},
            r"data.csv:2: no column 'germna'; there are english, german. Did you mean 'german'\?",
        ),
        ({"train": "empty.csv"}, "empty.csv: nothing in it for the train split"),
        ({"train": "short.csv"}, "short.csv:3: 1 cells, and the columns are german, english"),
        ({"train": "open.csv"}, "open.csv:.*: not a row of cells"),
        ({"train": "twice.csv"}, "twice.csv:1: two columns are called 'german'"),
        ({"train": "x.xlsx"}, r"x.xlsx: what is it\? It may be .jsonl, "),
        ({"train": "list.json"}, "list.json:1: must be one object a line, got"),
        ({"train": "folder"}, "folder: a folder without state.json is no Hugging Face dataset"),
        ({"train": "bad.parquet"}, "bad.parquet: not a readable parquet file"),
        ({"train": "number.jsonl"}, "number.jsonl:1: 'english' must be a text, got 0.5"),
        ({"train": "uneven.{german,english}"}, "uneven.german has 2 lines and .*english has 1"),
    ],
)
def test_what_cannot_be_read_is_refused_by_name(options, message, tmp_path):
    (tmp_path / "data.csv").write_text("german,english\neins,one\n")
    (tmp_path / "empty.csv").write_text("german,english\n")
    (tmp_path / "short.csv").write_text("german,english\neins,one\nzwei\n")
    (tmp_path / "open.csv").write_text('german,english\neins,"one\n')
    (tmp_path / "twice.csv").write_text("german,german\neins,one\n")
    (tmp_path / "x.xlsx").write_text("")
    (tmp_path / "list.json").write_text('[{"german": "eins"}]\n')
    (tmp_path / "folder").mkdir()
    (tmp_path / "bad.parquet").write_text("no")
    (tmp_path / "number.jsonl").write_text('{"german": "halb", "english": 0.5}\n')
    (tmp_path / "uneven.german").write_text("a\nb\n")
    (tmp_path / "uneven.english").write_text("a\n")
    usual = {"train": "data.csv", "source": "german", "target": "english", **ALL}
    with pytest.raises(Refused, match=message):
        list(configured(**usual | options).read(tmp_path, "train"))


def test_a_dataset_of_several_splits_is_refused_with_their_names(tmp_path):
    import datasets

    one = datasets.Dataset.from_dict({"de": ["eins"], "en": ["one"]})
    datasets.DatasetDict(train=one, validation=one).save_to_disk(str(tmp_path / "all"))
    with pytest.raises(Refused, match=r"all: has train, validation; name one of them, .*all/train"):
        read(task("all", **ALL), tmp_path, "train")
    assert read(task("all/train", **ALL), tmp_path, "train") == [("eins", ("one",))]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sorce": "x"}, "r.toml: task_options: unknown key 'sorce'; there are .*'source'"),
        ({"metrics": ["blue"]}, "r.toml: task_options: no 'blue' in metrics/.*Did you mean 'bleu'"),
        ({"metrics": ["bleu:mod=x"]}, "task_options: metrics: bleu: unknown key 'mod'"),
        ({"decode": {"beem": 3}}, "decode: no algorithm has an option 'beem'; .*mean 'beam'"),
        (
            {"decode": {"beam": 0}},
            "decode: beam must be at least 1 and at most 1024, got 0",
        ),
        ({"valid_share": 0.6, "test_share": 0.5}, "leave nothing to train on"),
        ({"valid_share": 0.0}, "valid_share must be more than 0 where `valid` names no file"),
        ({"baseline": "first"}, "baseline must be one of copy, lead, sentence, none, got 'first'"),
    ],
)
def test_a_wrong_option_is_refused_by_name(options, message):
    with pytest.raises(Refused, match=message):
        tasks.find("pairs", options, "r.toml")


def test_a_task_that_has_no_options_refuses_the_table():
    with pytest.raises(Refused, match=r"r: task 'docsum' has no options: take out \[task_options"):
        tasks.find("docsum", {"train": "x"}, "r")


def test_metrics_and_decoding_are_those_of_the_run_file():
    made = tasks.find("pairs", {"metrics": ["bleu:mode=compound"], "decode": {"beam": 2}}, "r")
    assert made.METRICS == ("bleu",)
    assert made.OPTIONS == {"bleu": {"mode": "compound"}}
    assert made.DECODE["beam"] == 2


def test_the_baseline_is_the_one_that_was_chosen():
    assert configured().BASELINES["copy"]("Ein Satz. Noch einer.") == "Ein Satz. Noch einer."
    assert configured(baseline="lead").BASELINES["lead-1"]("Ein Satz. Noch einer.") == "Ein Satz."
    assert configured(baseline="none").BASELINES == {}


def test_a_teachers_folder_is_read_as_it_is_and_only_for_the_same_pairs(tmp_path):
    made, out = task("data.csv", **ALL), tmp_path / "out"
    pairs = [Pair("a", "eins", ("one",)), Pair("b", "zwei", ("two",))]
    for split in SPLITS:
        assert made.save(out, split, pairs) == 2
    (out / "distill.json").write_text(
        json.dumps({"about": {"task": "pairs", **tasks.texts_of(made)}, "counts": {}})
    )
    assert list(made.read(out, "train")) == pairs
    with pytest.raises(Refused, match="a distillation of other pairs: there source = 'de', here"):
        list(configured(train="data.csv", source="en", target="de", **ALL).read(out, "train"))


@pytest.fixture(scope="module")
def tuned(tmp_path_factory):
    """The example's run file, trained for three updates from a model of random weights."""
    home = tmp_path_factory.mktemp("pairs")
    (home / "docs").symlink_to(ROOT / "docs")
    with (ROOT / "docs/examples/speeches.csv").open(newline="") as file:
        texts = [row["original"] for row in csv.DictReader(file)][:200]
    words = tokenizer.train_tokenizer(texts, 400, home / "tokenizer.json")
    sizes = {"width": 16, "ffn": 32, "heads": 2, "encoder_layers": 1, "decoder_layers": 1}
    model = Seq2Seq(configure({**sizes, "max_positions": 64, "max_length": 64}, words.size, "t"))
    native.write(
        home / "runs/tiny/pretrain/export", model, home / "tokenizer.json", "janus", {}, {}
    )
    small = ("train.steps=3", "train.batch=4", "train.validate_every=3", "packing.samples=0")
    small += ("schedule.warmup=1", "data.valid_samples=4")
    command(home, "finetune", "pairs", *small, "task_options.decode.max_length=9")
    return home


def command(home, *words: str, code: int = 0) -> str:
    """januslm WORDS, run in `home`; what it wrote."""
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-m", "januslm.launch", *words],
        cwd=home,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.mark.slow
def test_the_example_goes_from_its_csv_to_a_table(tuned, tmp_path):
    """From another folder too: what is relative in the run file is found again."""
    decoding = ("--limit", "12", "--threads", "1")
    command(tmp_path, "generate", str(tuned / "runs/pairs"), "--algorithm", "beam", *decoding)
    command(
        tmp_path, "generate", str(tuned / "runs/pairs"), "--algorithm", "mask_predict", *decoding
    )
    predictions = tuned / "runs/pairs/predictions"
    facts = json.loads((predictions / "test.beam.limit-12.json").read_text())
    assert facts["settings"]["beam"] == 4
    assert facts["settings"]["max_length"] == 9
    table = command(tmp_path, "evaluate", str(predictions))
    assert "pairs (damaged -> original, docs/examples/speeches.csv), test: 12 sentences" in table
    assert f"ids as in {tuned}" in table
    heading = next(line for line in table.splitlines() if line.startswith("algorithm"))
    assert heading.split()[1] == "exact"
    rows = {line.split("  ")[0] for line in table.splitlines()}
    assert {"AR beam 4", "NAR 10 iterations, 3 lengths", "copy"} <= rows


@pytest.mark.slow
def test_a_report_and_a_comparison_tell_the_example(tuned, tmp_path):
    run = str(tuned / "runs/pairs")
    said = command(tuned, "report", run, "-o", str(tmp_path / "r.html"), "--examples", "1")
    assert f"wrote {tmp_path / 'r.html'}" in said
    page = (tmp_path / "r.html").read_text()
    for part in ("Cross-entropy of each distribution", "done (exit code 0)", 'data-label="draft"',
                 "the texts that the run was trained on, by their hashes"):  # fmt: skip
        assert part in page, part
    assert "Damaged or missing" not in page
    assert "No examples" not in page
    table = command(tuned, "runs", "compare", run, run)
    assert "settings that differ" in table
    assert table.count(" pairs, ") == 4


@pytest.mark.slow
def test_the_run_file_that_the_documents_show_is_accepted(tuned):
    text = (ROOT / "docs" / "tasks.md").read_text(encoding="utf-8")
    [shown] = re.findall(r"```toml\n(.*?)```", text, re.DOTALL)
    (tuned / "mine.toml").write_text(shown)
    rows = [("question", "answer"), *((f"what is {n} ?", f"a number , {n}") for n in range(99))]
    with (tuned / "mine.csv").open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    sizes = ("data.max_source=60", "data.max_target=60")  # of the model in this test
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    words = [sys.executable, "-m", "finetune", "mine.toml", *sizes, "--check", "1"]
    done = subprocess.run(words, cwd=tuned, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["folder"] == "runs/mine"
    wrong = [*words, "task_options.source=qestion"]
    done = subprocess.run(wrong, cwd=tuned, env=environment, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr == (
        "error: mine.csv:2: no column 'qestion'; there are answer, question. "
        "Did you mean 'question'?\n"
    )


@pytest.mark.slow
@pytest.mark.long
def test_a_teacher_of_the_example_trains_a_student(tuned):
    command(tuned, "distill", "runs/pairs", "taught", "beam=1", "max_length=5", "--limit", "8")
    made = [json.loads(line) for line in (tuned / "taught/train.jsonl").read_text().splitlines()]
    assert 0 < len(made) <= 8
    small = ("train.steps=1", "train.batch=2", "packing.samples=0", "schedule.warmup=0")
    said = command(
        tuned, "finetune", "pairs", "out=runs/student", "data.root=taught", *small,
        "data.valid_samples=2",
    )  # fmt: skip
    assert f"train: {len(made)} pairs of" in said
    assert "taught/train.jsonl" in said


@pytest.mark.slow
def test_a_data_root_on_the_command_line_is_refused_for_files_that_are_named(tuned):
    said = command(tuned, "finetune", "pairs", "--data", "elsewhere", code=2)
    assert "task 'pairs' names its files from where you stand; say data.root=elsewhere" in said
