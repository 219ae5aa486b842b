"""The command `generate`: what it writes and says, and how it answers mistakes."""

import json
import re
import subprocess
import sys

import pytest
import torch

from finetune import generate
from finetune.tasks import iwslt14
from januslm.decoding import greedy
from tests.conftest import ROOT
from tests.test_distill import ENGLISH, GERMAN, root, teach  # noqa: F401
from tests.test_translation import lay


def main(capsys, monkeypatch, *words) -> tuple[int, list[str], str]:
    """Exit code, lines on stdout, stderr of the command."""
    monkeypatch.setattr(sys, "argv", ["generate", "--threads", "1", *map(str, words)])
    code = generate.main()
    said = capsys.readouterr()
    return code, said.out.splitlines(), said.err


@pytest.fixture
def said(capsys, monkeypatch):
    """What a call that succeeds prints."""

    def call(*words) -> list[str]:
        code, lines, error = main(capsys, monkeypatch, *words)
        assert code == 0, error
        return lines

    return call


@pytest.fixture
def refused(capsys, monkeypatch):
    """The one line on stderr of a call that exits with 2."""

    def call(*words) -> str:
        code, _, error = main(capsys, monkeypatch, *words)
        assert code == 2
        assert error.startswith("error: ")
        assert error.count("\n") == 1
        return error

    return call


def rows(path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.mark.slow
def test_the_command_tells_sentences_tokens_passes_and_time(root):  # noqa: F811
    run = teach(root)
    words = [run, "--algorithm", "speculative", "max_length=9", "--verify", "--batch", "3"]
    found = subprocess.run(
        [sys.executable, "-m", "finetune.generate", *map(str, words)],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert found.returncode == 0, found.stderr
    *_, cost, against, wrote = found.stdout.splitlines()
    out = run / "predictions" / "test.speculative.max_length-9.jsonl"
    assert wrote == f"wrote {out}"
    facts = json.loads(out.with_suffix(".json").read_text())
    tokens, passes = facts["tokens"], facts["passes"]
    assert cost.startswith(
        f"speculative: 7 sentences, {tokens} tokens, {passes:.1f} passes a sentence, "
        f"{tokens / 7 / passes:.2f} tokens a pass, "
    )
    slow = facts["verified"]["passes_greedy"]
    assert against.startswith(
        f"against greedy: identical 7 of 7 | passes {passes:.1f} against {slow:.1f} a sentence: "
        f"{slow / passes:.2f}x fewer | time "
    )
    assert sum(row["passes"] for row in rows(out)) == pytest.approx(7 * passes)


@pytest.mark.slow
def test_a_model_of_another_task_is_reported(root, said):  # noqa: F811
    run = teach(root)
    lay(root, "test", {"de": ENGLISH, "en": GERMAN})
    lines = said(run, "--task", "iwslt14_en_de")
    assert lines[-2].endswith("| by a model of task 'iwslt14'")
    assert "by a model of task" not in said(run)[-2]


@pytest.mark.slow
def test_what_is_written_by_name_lies_where_the_user_stands(root, said, monkeypatch, tmp_path):  # noqa: F811
    run = teach(root)
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    assert said(run, "--out", "new/x.jsonl")[-1] == "wrote new/x.jsonl"
    assert len(rows(tmp_path / "here" / "new" / "x.jsonl")) == 7
    assert said(run, "--out", str(tmp_path / "y.jsonl"))[-1] == f"wrote {tmp_path / 'y.jsonl'}"


@pytest.mark.slow
def test_verify_compares_with_what_greedy_writes_alone(root, said):  # noqa: F811
    run = teach(root)
    said(run, "--algorithm", "speculative", "max_length=9", "no_repeat_ngram=2", "--verify")
    said(run, "max_length=9", "no_repeat_ngram=2")
    fast, slow = (
        run / "predictions" / f"test.{name}.max_length-9.no_repeat_ngram-2.jsonl"
        for name in ("speculative", "greedy")
    )
    assert [r["prediction"] for r in rows(fast)] == [r["prediction"] for r in rows(slow)]
    about = [json.loads(path.with_suffix(".json").read_text()) for path in (fast, slow)]
    assert about[0]["verified"]["passes_greedy"] == about[1]["passes"]
    assert about[0]["verified"]["identical"] == 7


@pytest.mark.slow
def test_a_difference_is_reported_by_id_and_ends_with_1(root, capsys, monkeypatch):  # noqa: F811
    def other(decoder, sources, special, **given):
        outputs = greedy.decode(decoder, sources, special, max_length=5)
        return outputs

    monkeypatch.setattr("januslm.decoding.speculative.decode", other)
    run = teach(root)
    code, lines, _ = main(
        capsys, monkeypatch, run, "--algorithm", "speculative", "--verify", "--batch", "7"
    )
    assert code == 1
    facts = json.loads((run / "predictions" / "test.speculative.json").read_text())["verified"]
    assert facts["identical"] == 7 - len(facts["different"]) < 7
    assert lines[-2].startswith(f"different: {facts['different'][0]}, ")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("algorithm", "options", "others"),
    [
        ("beam", ("beam=4", "n_best=3", "max_length=6"), 2),
        ("sample", ("samples=3", "max_length=6", "seed=2"), 2),
        ("mask_predict", ("iterations=2", "length_beam=4"), 3),
        ("greedy", ("max_length=6",), 0),
    ],
)
def test_every_further_text_is_written_beside_the_first(
    root,  # noqa: F811
    said,
    algorithm,
    options,
    others,
):
    run, out = teach(root), root.parent / "made.jsonl"
    said(run, "--algorithm", algorithm, *options, "--out", out)
    for row in rows(out):
        assert len(row.get("others", [])) == others
        if algorithm != "sample":
            scores = [row["score"], *(o["score"] for o in row.get("others", []))]
            assert scores == sorted(scores, reverse=True)
        if algorithm == "beam":
            texts = [row["prediction"], *(o["prediction"] for o in row["others"])]
            assert len(set(texts)) > 1


@pytest.mark.slow
def test_predictions_come_in_the_order_of_the_test_set(root, said):  # noqa: F811
    run = teach(root)
    said(run, "--batch", "2", "--limit", "5")
    pairs = list(iwslt14.read(root, "test"))[:5]
    made = rows(run / "predictions" / "test.greedy.limit-5.jsonl")
    assert [(r["id"], r["source"], r["references"]) for r in made] == [
        (p.id, p.source, list(p.targets)) for p in pairs
    ]


def test_an_empty_line_is_counted_and_shifts_nothing(root, said):  # noqa: F811
    run = teach(root)
    lay(root, "test", {"de": ("", *GERMAN[1:]), "en": ENGLISH})
    lines = said(run)
    assert lines[-2].endswith("| 1 empty source kept")
    made = rows(run / "predictions" / "test.greedy.jsonl")
    assert [row["source"] for row in made] == ["", *GERMAN[1:]]
    about = json.loads((run / "predictions" / "test.greedy.json").read_text())
    assert about["empty"] == {"empty source": 1}


@pytest.mark.slow
def test_a_long_source_is_cut_and_counted_or_refused(root, said, refused):  # noqa: F811
    run = teach(root)
    lay(root, "test", {"de": (*GERMAN[:-1], "wort " * 60), "en": ENGLISH})
    assert said(run)[-2].endswith("| 1 sources cut")
    assert json.loads((run / "predictions" / "test.greedy.json").read_text())["truncated"] == 1
    assert refused(run, "--longer", "refuse") == (
        "error: test: 1 of 7 sources, test-7 the first, are longer than the 40 tokens the model "
        "was trained for; shorten them, or cut them with --longer cut\n"
    )


@pytest.mark.slow
def test_predictions_of_other_data_have_a_name_of_their_own(root, said, tmp_path):  # noqa: F811
    run = teach(root)
    said(run)
    said(run, "--data", root)  # the run's own
    said(run, "--data", root.parent / root.name / ".." / root.name)
    for place in ("a", "b"):
        lay(tmp_path / place / "data", "test", {"de": [place, *GERMAN], "en": [place, *ENGLISH]})
        said(run, "--data", tmp_path / place / "data")
    names = sorted(path.name for path in (run / "predictions").glob("*.jsonl"))
    assert len(names) == 3
    assert names[-1] == "test.greedy.jsonl"
    assert all(re.fullmatch(r"test\.greedy\.data-data-[0-9a-f]{6}\.jsonl", n) for n in names[:2])
    assert {rows(run / "predictions" / name)[0]["source"] for name in names} == {
        "a",
        "b",
        GERMAN[0],
    }


@pytest.mark.slow
def test_an_option_that_only_others_have_is_left_out_with_a_warning(root, capsys, monkeypatch):  # noqa: F811
    run = teach(root)
    for name in ("beam", "greedy", "mask_predict", "sample", "semi", "speculative"):
        words = [run, "--algorithm", name, "max_length=9", "iterations=2"]
        code, _, error = main(capsys, monkeypatch, *words)
        lacks = {"mask_predict": "max_length", "semi": "max_length, iterations"}
        unused = lacks.get(name, "iterations")
        assert (code, error) == (0, f"warning: {name} has no use for {unused}: left out\n")
    names = {path.name for path in (run / "predictions").glob("*.jsonl")}
    assert {"test.semi.jsonl", "test.mask_predict.iterations-2.jsonl"} < names
    assert "test.greedy.max_length-9.jsonl" in names


def test_a_whole_number_may_have_an_exponent(root, said):  # noqa: F811
    run = teach(root)
    said(run, "--batch", "1e1", "--limit", "0.3e1", "max_length=1e1")
    facts = json.loads((run / "predictions" / "test.greedy.limit-3.max_length-10.json").read_text())
    assert (facts["batch"], facts["limit"], facts["settings"]["max_length"]) == (10, 3, 10)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--column", "x"), "--column is for texts of your own: name them with --input"),
        (("--output", "-"), "--output -: predictions of a task are a file with its .json"),
        (
            ("--algorithm", "beem"),
            "no 'beem' in decoding/; there are any_order, beam, blockwise",
        ),
        (("beem=3",), "greedy: unknown key 'beem'; there are "),
        (
            ("--algorithm", "beam", "beam=0"),
            "beam must be at least 1 and at most 1024, got 0",
        ),
        (("--algorithm", "beam", "beam=2", "n_best=3"), "n_best 3 is more than beam 2 can give"),
        (("--algorithm", "sample", "top_p=1.5"), "sample: top_p must be more than 0 and at most 1"),
        (("max_length=3", "min_length=4"), "min_length 4 is above the longest possible output, 3"),
        (("max_ratio=inf",), "greedy: max_ratio must be a finite number, got inf"),
        (("--algorithm", "beam", "length_penalty=1000"), "must be at least -10 and at most 10"),
        (("--algorithm", "beam", "length_penalty=nan"), "length_penalty must be a finite number"),
        (("--algorithm", "sample", "seed=-1"), "sample: seed must be at least 0"),
        (("--algorithm", "sample", "temperature=1001"), "temperature must be at least 0.001 and"),
        (("--algorithm", "semi", "block=1000000000000"), "semi: block must be at least 1 and at"),
        (("--out", "{root}/x.json"), "x.json: settings and times go to the .json"),
        (("--precision", "fp16"), "--precision must be fp32 or bf16, got 'fp16'"),
        (
            ("verify",),
            "'verify' is not a change: write key=value, e.g. max_length=",
        ),
        (
            ("--verify",),
            "--verify compares --algorithm speculative or draft with greedy; the",
        ),
        (("--longer", "skip"), "--longer must be one of cut, refuse, got 'skip'"),
        (("--limit", "0"), "--limit must be at least 1, got 0"),
        (("--threads", "99999999999"), "cores, got 99,999,999,999"),
        (("--batch", "-1"), "--batch must be at least 1, got -1"),
        (("--split", "dev"), "no split 'dev'; there are train, valid, test"),
        (("--task", "wmt41"), "no 'wmt41' in tasks/; there are cnndm"),
        (("--data", "nowhere"), "nowhere: no data of task 'iwslt14' there"),
        (("--out", "{root}"), "data: cannot be written (it is a folder)"),
        (("--out", "{root}/test.de/x.jsonl"), "x.jsonl: cannot be written ("),
    ],
)
def test_a_mistake_is_one_line(root, refused, words, message):  # noqa: F811
    run = teach(root)
    (root / "test.de").touch()
    assert message in refused(run, *(word.format(root=root) for word in words))
    assert not (run / "predictions").exists() or not list((run / "predictions").iterdir())


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_graphs_without_a_gpu_are_refused(root, refused):  # noqa: F811
    assert "--graphs: there is no CUDA device" in refused(teach(root), "--graphs")


def test_a_foreign_tokenizer_is_refused_by_name(root, refused):  # noqa: F811
    run = teach(root)
    path = run / "export" / "tokenizer.json"
    path.write_text(path.read_text() + "\n")
    assert refused(run) == (f"error: {path}: not the tokenizer that config.json names\n")


@pytest.mark.slow
def test_a_checkpoint_that_never_learnt_a_way_says_which_it_knows(root, refused):  # noqa: F811
    run = teach(root, objective="cmlm")
    assert "cannot write or rescore word by word; it can mask_predict, semi" in refused(run)
    assert not (run / "predictions").exists()
