"""The rows of the Multi30k claim are runs that can start, and its records say what they hold."""

import json
from collections import defaultdict
from statistics import fmean

import numpy as np
import pytest

from benchmarks import multi30k
from benchmarks.cli_runs import ROOT
from benchmarks.record import FOLDER
from finetune.settings import load
from januslm.config import Refused
from januslm.data.tokenizer import Special
from januslm.metrics import bleu
from januslm.model.config import PRESETS, ModelConfig
from januslm.objective import resolve_objective

RECORDS = sorted(FOLDER.glob("multi30k_*.json"))


@pytest.mark.slow
@pytest.mark.parametrize("row", multi30k.ROWS)
def test_every_row_is_a_run_with_terms_that_exist(row):
    file, changes = multi30k.ROWS[row]
    run = load(ROOT / "finetune" / "runs" / f"{file}.toml", changes)
    objective = resolve_objective(run.objective, run.noise, run.loss, "nmt", Special(), row)
    assert objective.loss.weights


def test_rows_are_of_one_size_on_the_same_data_for_as_many_updates():
    """Dropout is each row's own; rows of twelve narrow layers have as many parameters."""
    same = [load(ROOT / "finetune" / "runs" / f"{f}.toml", c) for f, c in multi30k.ROWS.values()]
    sizes = []
    for run in same:
        run.model.pop("dropout")
        preset = PRESETS[run.model["preset"]]
        rest = {key: value for key, value in run.model.items() if key != "preset"}
        config = ModelConfig(**(preset | rest | {"vocabulary": 8000}))
        sizes.append(config.least_parameters)
        for change in multi30k.DEEP:
            run.model.pop(change.partition("=")[0].removeprefix("model."))
        for table in ("model", "data", "optimizer", "schedule", "tokenizer", "train", "ds"):
            assert getattr(run, table) == getattr(same[0], table), table
    assert len(set(sizes)) == 2
    assert max(sizes) < 1.02 * min(sizes)


@pytest.mark.parametrize("path", RECORDS, ids=lambda path: path.stem)
def test_a_recorded_score_is_that_of_its_recorded_sentences(path):
    ways = json.loads(path.read_text(encoding="utf-8"))["results"]["ways"]
    lines = np.load(path.with_suffix(".npz"))
    assert set(lines) == set(ways)
    for way, made in ways.items():
        sums = lines[way].astype(float).sum(0, keepdims=True)
        assert bleu.total(sums)[0] == pytest.approx(made["bleu"], abs=1e-9)


@pytest.mark.slow
def test_the_table_has_every_record_and_the_mean_over_seeds():
    lines = multi30k.table().splitlines()
    found = defaultdict(dict)
    for path in RECORDS:
        results = json.loads(path.read_text(encoding="utf-8"))["results"]
        for way, made in results["ways"].items():
            found[f"{results['row']}, {way}  "][results["seed"]] = made["bleu"]
    assert max(map(len, found.values())) > 1
    for name, scores in found.items():
        (line,) = [line for line in lines if line.startswith(name)]
        assert f" {fmean(scores.values()):.2f} ±" in line
        for seed, score in scores.items():
            assert f" {seed}: {score:.2f} " in line


def test_an_unknown_row_and_a_run_not_ended_are_refused(tmp_path):
    with pytest.raises(Refused, match=r"no row 'jnus'; there are .* Did you mean 'janus'"):
        multi30k._named("jnus")
    with pytest.raises(Refused, match="seed 1 is the row without a number"):
        multi30k._named("janus-1")
    with pytest.raises(Refused, match="is not trained to its end"):
        multi30k.score("ar", 1, tmp_path)
