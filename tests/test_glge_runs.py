"""GLGE's run files: published settings reach every task, and the whole path runs on a stand-in."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from finetune import evaluate, generate
from finetune.glge import leaderboard, prepare
from finetune.settings import FinetuneSettings, load, resolve
from januslm.config import Refused
from januslm.data import tokenizer
from januslm.interop import native
from januslm.model.config import configure
from januslm.model.transformer import Seq2Seq
from tests.conftest import ROOT

ARCHIVE = Path(__file__).parent / "fixtures" / "glge" / "data" / "easy"
RUNS = sorted((ROOT / "finetune" / "runs").glob("glge_*.toml"))
TASKS = tuple(leaderboard.COLUMNS)


@pytest.fixture(scope="module")
def start(tmp_path_factory) -> Path:
    """A pretrained JANUS model, tiny and untaught, that knows the stand-in's words."""
    folder = tmp_path_factory.mktemp("start")
    texts = [path.read_text() for path in sorted(ARCHIVE.rglob("*.src"))]
    words = tokenizer.train_tokenizer(texts, 400, folder / "words.json")
    table = {"width": 16, "ffn": 32, "heads": 2, "encoder_layers": 1, "decoder_layers": 1}
    table["positions"] = "learned"  # as base and large have them; cmlm refuses the others
    model = Seq2Seq(configure(table, words.size, "test"))
    options = {"query_position": "target"}
    native.write(folder / "export", model, folder / "words.json", "janus", options, {})
    return folder


def asked(name: Path, task: str, start: Path, *changes: str):
    return load(name, [f"task={task}", f"start={start}", f"data.root={ARCHIVE}", *changes])


# What a run file says


def test_there_is_a_run_file_for_each_way_of_writing():
    assert {path.stem: load(path).objective["name"] for path in RUNS} == {
        "glge_ar": "ar",
        "glge_janus": "janus",
        "glge_nar": "cmlm",
    }


@pytest.mark.parametrize("path", RUNS, ids=lambda path: path.stem)
@pytest.mark.parametrize("task", TASKS)
def test_a_run_file_can_be_built_for_every_task_up_to_its_data(path, task, start):
    run = asked(path, task, start)
    assert resolve(run, str(path), "").task.__name__ == f"finetune.tasks.{task}"
    assert run.out == f"runs/glge/{path.stem.removeprefix('glge_')}/{task}"
    assert path.read_text().startswith("# GLGE")
    assert f"./launch.sh finetune finetune/runs/{path.name} task=$task" in path.read_text()


def test_published_settings_are_those_of_the_baselines_scripts(start):
    found = {task: asked(ROOT / "finetune/runs/glge_ar.toml", task, start) for task in TASKS}
    for task, run in found.items():
        late = task in ("msqg", "coqa", "personachat")
        assert run.optimizer.lr == (5e-4 if late else 1e-4)
        assert run.optimizer.betas == ((0.9, 0.98) if late else (0.9, 0.999))
        assert run.optimizer.weight_decay == (0 if late else 0.01)
        assert (run.schedule.name, run.schedule.start) == ("inverse_sqrt", 1e-7)
        assert run.schedule.warmup == (4000 if late else 1000)
        assert run.train.clip == (0 if late else 0.1)
        assert run.train.epochs == (25 if late else 10)
        assert (run.loss.smoothing, run.model["dropout"]) == (0.1, 0.1)
        assert run.data.max_source == 512
        assert run.train.batch % 8 == 0  # eight GPUs
        assert run.train.batch <= 16 * (80 if late else 8) or task == "cnndm"
    assert found["cnndm"].train.batch == 512


def test_a_run_file_and_a_change_go_over_what_is_published(start):
    nar = ROOT / "finetune/runs/glge_nar.toml"
    run = asked(nar, "msqg", start, "optimizer.lr=2e-4")
    assert (run.train.epochs, run.optimizer.lr) == (50, 2e-4)
    assert run.optimizer.betas == (0.9, 0.98)
    assert run.model == {"dropout": 0.1, "attention_dropout": 0.0}
    with pytest.raises(Refused, match="published = true, but task 'docsum' has no FINETUNE"):
        asked(nar, "docsum", start)
    with pytest.raises(Refused, match=r"no 'xsumm' in tasks/; .* Did you mean 'xsum'"):
        asked(nar, "xsumm", start)


@pytest.mark.parametrize(
    ("steps", "epochs", "updates"), [(0, 2, 50), (7, 2, 7), (70, 2, 50), (7, 0, 7), (0, 0.01, 1)]
)
def test_a_run_ends_at_the_first_of_its_limits(steps, epochs, updates):
    length = FinetuneSettings(steps=steps, epochs=epochs, batch=40).until(pairs=1000)
    assert (length.steps, length.batch) == (updates, 40)


def test_a_run_without_an_end_is_refused(tmp_path):
    path = tmp_path / "run.toml"
    path.write_text('out = "x"\ntask = "xsum"\n[train]\nbatch = 8\n')
    with pytest.raises(Refused) as caught:
        load(path)
    assert str(caught.value) == f"{path}: train: steps is missing, or epochs"


# The whole path


def tune(name: Path, task: str, start: Path, base: Path) -> Path:
    """Fine-tune for two updates as a user would, in a process of its own."""
    out = base / task
    changes = ["train.steps=2", "train.batch=2", "train.accumulate=1", "packing.samples=0"]
    given = [f"task={task}", f"start={start}", f"data.root={ARCHIVE}", f"out={out}"]
    command = [sys.executable, "-m", "finetune", str(name), *given, *changes]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "train: 3 pairs" in done.stdout
    return out


@pytest.mark.slow
def test_a_test_set_without_targets_is_prepared_decoded_and_sent_in(
    start, tmp_path, capsys, monkeypatch
):
    archive, root, runs = tmp_path / "archive", tmp_path / "glge", tmp_path / "run"
    shutil.copytree(ARCHIVE, archive / "easy")
    for path in archive.rglob("test.tgt"):
        path.unlink()
    assert prepare.main(["prepare", "--archive", str(archive), "--out", str(root)]) == 0
    for task in TASKS:
        out = runs / task / "predictions" / "test.greedy.jsonl"
        words = [start, "max_length=4", "min_length=0", "--out", out]
        words += ["--task", task, "--data", root / "easy"]
        monkeypatch.setattr(sys, "argv", ["generate", *map(str, words), "--threads", "1"])
        capsys.readouterr()
        assert generate.main() == 0
        assert " | 3 without references: not to be scored here\n" in capsys.readouterr().out
    assert evaluate.main([str(runs / "xsum")]) == 2
    assert "no references to score by" in capsys.readouterr().err
    assert evaluate.main(["glge", str(runs)]) == 0
    said = capsys.readouterr().out
    assert f"not scored, since their test sets have no references: {', '.join(TASKS)}\n" in said
    for task in TASKS:
        lines = (runs / task / "predictions" / "test.greedy.jsonl").read_text().splitlines()
        wanted = "".join(json.loads(line)["prediction"] + "\n" for line in lines)
        assert (runs / "submission" / "greedy" / f"{task}.easy.test").read_text() == wanted
        assert wanted.count("\n") == 3


@pytest.mark.slow
@pytest.mark.long
def test_all_tasks_are_trained_decoded_and_scored_as_one_benchmark(
    start, tmp_path, capsys, monkeypatch
):
    """Of each group of published settings and with each run file one task is trained."""
    trained = dict(zip(("cnndm", "squadqg", "personachat"), RUNS, strict=True))
    for task, path in trained.items():
        out = tune(path, task, start, tmp_path / "run")
        config = json.loads((out / "config.json").read_text())
        assert (config["task"], config["train"]["epochs"] > 0) == (task, True)
    for task in TASKS:
        path = trained.get(task)
        algorithm = "mask_predict" if path and path.stem == "glge_nar" else "beam"
        words = [tmp_path / "run" / (task if path else "cnndm"), "--algorithm", algorithm]
        if path is None:
            out = tmp_path / "run" / task / "predictions" / "test.beam.jsonl"
            words += ["--task", task, "--data", ARCHIVE, "--out", out]
        monkeypatch.setattr(sys, "argv", ["generate", *map(str, words), "--threads", "1"])
        assert generate.main() == 0
    capsys.readouterr()
    assert leaderboard.main([str(tmp_path / "run")]) == 0
    said = capsys.readouterr().out
    assert said.startswith("GLGE easy, beam+mask_predict\n")
    assert all(f"\n{task} " in said for task in TASKS)
    files = sorted((tmp_path / "run" / "submission" / "beam+mask_predict").iterdir())
    assert [file.name for file in files] == sorted(f"{task}.easy.test" for task in TASKS)
    assert all(file.read_text().count("\n") == 3 for file in files)
