"""What every task promises, what some read from real excerpts, and what they refuse."""

import gzip
import inspect
import json
from collections import Counter
from pathlib import Path

import pytest

from finetune.evaluation import scoring
from finetune.evaluation.predictions import Predictions
from finetune.settings import FinetuneRun
from finetune.tasks import docsum, multi30k, scitldr, squad_qa, xsum
from januslm import config
from januslm.config import Refused
from januslm.data import text_pairs
from januslm.registry import find, names
from tests.conftest import ROOT

TASKS = names("finetune.tasks")


# What every task promises


@pytest.mark.parametrize("name", TASKS)
def test_a_task_names_metrics_there_are_and_options_they_have(name):
    task = find("finetune.tasks", name)
    for metric in task.METRICS:
        known = inspect.signature(find("januslm.metrics", metric).score).parameters
        assert set(getattr(task, "OPTIONS", {}).get(metric, {})) <= set(known)
    assert isinstance(task.DECODE, dict)


@pytest.mark.parametrize("name", TASKS)
def test_published_settings_are_tables_of_a_run_file(name):
    least = {"out": "x", "task": name, "train": {"steps": 1}}
    usual = getattr(find("finetune.tasks", name), "FINETUNE", {})
    run = config.build(FinetuneRun, config.over(least, usual), name)
    assert (run.task, run.train.steps) == (name, 1)


@pytest.mark.parametrize("name", TASKS)
def test_a_task_without_its_data_says_where_it_looked(name, tmp_path):
    with pytest.raises(Refused, match=f"{tmp_path}: no .*{name}.* there; looked for "):
        list(find("finetune.tasks", name).read(tmp_path, "test"))


@pytest.mark.parametrize("name", TASKS)
def test_a_task_knows_three_splits_only(name, tmp_path):
    (tmp_path / "train.src").touch()
    with pytest.raises(Refused, match="no split 'dev'; there are train, valid, test"):
        list(find("finetune.tasks", name).read(tmp_path, "dev"))


def fixture_of(name: str) -> Path:
    """The root in tests/fixtures that the task finds its files in."""
    shared = (f"tasks/{name}", "", "tasks/bitext", "glge/data/easy")
    for root in (ROOT / "tests" / "fixtures" / place for place in shared):
        try:
            next(iter(find("finetune.tasks", name).read(root, "test")))
        except Refused:
            continue
        return root
    pytest.fail(f"write tests/fixtures/tasks/{name}/: a few lines of each split")


@pytest.mark.slow
@pytest.mark.parametrize("split", text_pairs.SPLITS)
@pytest.mark.parametrize("name", TASKS)
def test_a_task_reads_its_fixture_the_same_every_time(name, split):
    task, root = find("finetune.tasks", name), fixture_of(name)
    pairs = list(task.read(root, split))
    assert pairs == list(task.read(root, split))
    assert len({pair.id for pair in pairs}) == len(pairs) > 0
    for pair in pairs:
        assert pair.source.strip()
        assert all(text.strip() for text in pair.targets)
        assert 1 <= len(pair.targets) <= (9 if split == "test" else 1)


@pytest.mark.parametrize("name", TASKS)
def test_perfect_answers_to_a_task_score_a_hundred_in_every_mode(name):
    """What comes after writing treats predictions and references alike."""
    task = find("finetune.tasks", name)
    pairs = list(task.read(fixture_of(name), "test"))
    ids, sources = [pair.id for pair in pairs], [pair.source for pair in pairs]
    references = [list(pair.targets) for pair in pairs]
    run = Predictions(Path("x"), {}, ids, sources, [one[0] for one in references], references)
    chosen, _ = scoring.able(scoring.metrics(task, []))
    for mode in scoring.modes(task):
        assert max(scoring.scores(run, task, chosen, mode).values()) > 99


# The tasks with data at hand


def papers(data, name: str) -> list[dict]:
    """SciTLDR's own lines, by nothing of ours."""
    with gzip.open(data / "scitldr" / f"{name}.jsonl.gz", "rt", encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def test_a_paper_of_scitldr_trains_or_validates_even_if_it_is_there_twice(data):
    train, valid = ({p.id: p.source for p in scitldr.read(data, s)} for s in ("train", "valid"))
    published = {paper["id"]: " ".join(paper["source"]) for paper in papers(data, "train")}
    assert train | valid == published
    assert not set(train.values()) & set(valid.values())
    assert len(set(published.values())) == len(published) - 1  # one has two ids
    assert len(published) * 0.02 < len(valid) < len(published) * 0.2  # a tenth is meant


def test_scitldr_keeps_all_references_of_its_test_set(data):
    found = {pair.id: list(pair.targets) for pair in scitldr.read(data, "test")}
    assert found == {paper["id"]: paper["target"] for paper in papers(data, "dev")}
    assert set(map(len, found.values())) == {1, 2, 3, 4}


def test_multi30k_is_german_to_english(tmp_path):
    for language, text in (("de", "Ein Hund bellt.\n"), ("en", "A dog barks.\n")):
        path = tmp_path / f"test_2016_flickr.{language}.gz"
        path.write_bytes(gzip.compress(text.encode()))
    wanted = text_pairs.Pair("test-1", "Ein Hund bellt.", ("A dog barks.",))
    assert list(multi30k.read(tmp_path, "test")) == [wanted]


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
    assert docsum.BASELINES["lead-1"]("Does x. Then y.") == "Does x."


def test_an_empty_line_of_a_test_set_is_counted_but_never_moves_the_others(tmp_path):
    for end, text in (("src", "one\n\nthree\n"), ("tgt", "a\nb\nc\n")):
        (tmp_path / f"test.{end}").write_text(text)
    with pytest.raises(Refused, match=r"test.src: line 2: empty source; mend it, or have it count"):
        list(xsum.read(tmp_path, "test"))
    skipped = Counter()
    assert len(list(xsum.read(tmp_path, "test", skipped))) == 3
    assert skipped == {"empty source": 1}


# Files that would shift a score


def test_source_and_target_of_different_length_are_refused_before_the_first_pair(tmp_path):
    (tmp_path / "a").write_text("1\n2\n3\n")
    (tmp_path / "b").write_text("1\n2\n")
    with pytest.raises(Refused, match=r"a has 3 lines and .*b has 2"):
        next(text_pairs.aligned(tmp_path / "a", tmp_path / "b"))


def test_only_a_line_feed_ends_a_line(tmp_path):
    text = "a\u2028b\x0cc\x85d\r\ne\n"
    (tmp_path / "x").write_bytes(text.encode())
    with gzip.open(tmp_path / "x.gz", "wb") as file:
        file.write(text.encode())
    for name in ("x", "x.gz"):
        assert list(text_pairs.lines(tmp_path / name)) == ["a\u2028b\x0cc\x85d", "e"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{"id": 1}\n', r"x.jsonl:1: no 'source'; a line has id, source"),
        (b'{"id": \n', r"x.jsonl:1: not JSON"),
        (b"[1]\n", r"x.jsonl:1: no 'id'"),
        (b"\xff\xfe", r"x.jsonl:1: not UTF-8 text"),
    ],
)
def test_a_broken_record_is_named_with_its_line(tmp_path, content, message):
    (tmp_path / "x.jsonl").write_bytes(content)
    with pytest.raises(Refused, match=message):
        list(text_pairs.records(tmp_path / "x.jsonl", "id", "source"))


def test_an_id_that_comes_twice_is_refused():
    two = [text_pairs.Pair("a", "x", ("y",)), text_pairs.Pair("a", "z", ("y",))]
    with pytest.raises(Refused, match="f: id 'a' comes twice"):
        list(text_pairs.distinct(two, "f"))


@pytest.mark.parametrize("task", [docsum, scitldr], ids=["docsum", "scitldr"])
def test_a_file_with_ids_of_its_own_may_not_have_one_twice(task, tmp_path):
    several = task is scitldr
    row = {"source": ["x"] if several else "x", "target": ["y"] if several else "y"}
    path = tmp_path / ("dev.jsonl" if several else "test.jsonl")
    path.write_text("".join(json.dumps({"id": name, **row}) + "\n" for name in "aba"))
    with pytest.raises(Refused, match=rf"{path}: id 'a' comes twice \(second time in line 3\)"):
        list(task.read(tmp_path, "test"))


@pytest.mark.parametrize(
    ("split", "targets", "message"),
    [
        ("train", ["y", ""], "line 2: no target; only a test set may have none"),
        ("valid", ["", ""], "line 1: no target; only a test set may have none"),
        ("test", ["y", ""], "line 2: targets in some lines and none in others"),
        ("test", ["", "", "y"], "line 3: targets in some lines and none in others"),
        ("test", ["", ""], None),
    ],
)
def test_only_a_test_set_and_only_a_whole_one_may_have_no_targets(split, targets, message):
    """A target of "" here: none at all."""
    some = [text_pairs.Pair(str(n), "x", (one,) if one else ()) for n, one in enumerate(targets)]
    if message is None:
        assert list(text_pairs.checked(some, "f", split)) == some
        return
    with pytest.raises(Refused) as caught:
        list(text_pairs.checked(some, "f", split, Counter()))
    assert str(caught.value) == f"f: {message}"


# SQuAD


def test_squads_dev_is_the_test_set_with_every_different_gold_answer(data):
    pairs = list(squad_qa.read(data / "tasks", "test"))
    question, _, passage = pairs[2].source.partition(" [SEP] ")
    assert question == "Where did Super Bowl 50 take place?"
    assert passage.startswith("Super Bowl 50 was an American football game")
    assert pairs[2].targets[:2] == ("Santa Clara, California", "Levi's Stadium")
    assert [len(pair.targets) for pair in pairs] == [1, 1, 3, 1]
    assert pairs[0].id == "56be4db0acb8001400a502ec"


def test_squads_articles_train_or_validate_as_a_whole(data):
    sides = [{p.id[0] for p in squad_qa.read(data / "tasks", side)} for side in ("train", "valid")]
    assert sides == [{"a"}, {"b"}]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"version": "1.1"}', "no list of tables 'data': not a file of SQuAD"),
        ('{"data": [{"title": "x", "paragraphs": [{"context": "c", "qas": [{"id": "q"}]}]}]}',
         "question 'q': not as SQuAD has them"),
        ('{"data": [{"title": "x", "paragraphs": [{"context": "c", "qas": [{"id": "q", '
         '"question": "w", "answers": []}]}]}]}', "question 'q' has no answer; SQuAD 2.0's"),
        ('[]', "must be one table"),
    ],
)  # fmt: skip
def test_a_file_that_is_not_squads_is_refused(text, message, tmp_path):
    (tmp_path / "dev-v1.1.json").write_text(text)
    with pytest.raises(Refused, match=message):
        list(squad_qa.read(tmp_path, "test"))


def test_what_a_teacher_of_squad_wrote_is_read_back(data, tmp_path):
    for split in text_pairs.SPLITS:
        pairs = list(squad_qa.read(data / "tasks", split))
        assert squad_qa.save(tmp_path, split, pairs) == len(pairs)
    (tmp_path / "distill.json").write_text('{"about": {"task": "squad_qa"}}')
    for split in text_pairs.SPLITS:
        assert list(squad_qa.read(tmp_path, split)) == list(squad_qa.read(data / "tasks", split))
