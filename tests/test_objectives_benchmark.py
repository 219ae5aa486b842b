"""The comparison of objectives: every objective has a row, and every row can be resolved."""

import pytest

from benchmarks import objectives
from januslm.registry import names
from tests.samples import resolved


def test_every_objective_that_reads_word_by_word_or_all_at_once_has_a_row():
    pretrained = {
        change.partition("=")[2] for row, _ in objectives.ROWS.values() for change in row[:1]
    }
    assert pretrained == set(names("januslm.objectives"))


@pytest.mark.parametrize("row", objectives.ROWS)
def test_a_row_names_objectives_and_ways_that_there_are(row):
    changes, readers = objectives.ROWS[row]
    for each in filter(None, (changes, *(reader.changes for reader in readers))):
        given = dict(change.removeprefix("objective.").split("=") for change in each)
        name = given.pop("name")
        resolved(name, **{key: {"true": True}.get(value, value) for key, value in given.items()})
    for reader in readers:
        for way in reader.ways:
            assert way.algorithm in names("januslm.decoding")


def test_an_unknown_row_is_refused_in_one_line(capsys):
    assert objectives.main(["run", "janusz"]) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: no row 'janusz'")
    assert said.count("\n") == 1
