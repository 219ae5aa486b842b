"""How much of a whole-sentence draft is verified: by simulation, and at the ends."""

import numpy as np
import pytest

from januslm.decoding._readings import BLOCKS, FIRST, Readings


def free(rows: float) -> float:
    """A pass costs the same, whatever it reads."""
    return 1.0


def taught(first, share: float, passes: int = 20000) -> Readings:
    """After many passes in which reading n was right so often, and words after it so often."""
    rng, seen = np.random.default_rng(0), Readings()
    for _ in range(passes):
        reading = rng.choice([*range(len(first)), None], p=[*first, 1 - sum(first)])
        right = 0 if reading is None else 1
        while reading is not None and right < 8 and rng.random() < share:
            right += 1
        seen.count(len(first), reading, right, 8)
    return seen


@pytest.mark.slow
def test_a_pass_promises_what_passes_gave():
    first, share = (0.5, 0.2, 0.1, 0.05, 0.05), 0.7
    seen = taught(first, share)
    for block in (1, 4, 8):
        for readings in (1, 3, 5):
            hits = sum(first[:readings])
            want = 1 + hits * sum(share**n for n in range(block))
            assert seen.words(block, readings) == pytest.approx(want, rel=0.03)


def test_before_any_pass_the_prior_is_believed():
    assert Readings().words(1, 5) == pytest.approx(1 + sum(FIRST))


def test_where_rows_cost_nothing_all_readings_of_the_longest_block_are_verified():
    assert Readings().best(20, 1, free, 0, 0) == (max(BLOCKS), len(FIRST))


def test_where_each_row_costs_as_much_greedy_writes():
    assert Readings().best(20, 1, float, 0, 0) is None


def test_what_is_given_stays_and_greedy_is_then_no_choice():
    assert Readings().best(20, 1, free, 4, 0) == (4, len(FIRST))
    assert Readings().best(20, 1, free, 0, 2) == (max(BLOCKS), 2)
    block, readings = Readings().best(20, 1, float, 0, 3)
    assert (block, readings) == (min(BLOCKS), 3)


def test_drafts_of_which_nothing_is_accepted_end_in_greedy():
    seen = taught((0.0,) * 5, 0.0, 9000)
    assert seen.best(20, 1, free, 0, 0) is None


def test_batches_that_took_longer_than_their_passes_end_in_greedy():
    seen = Readings()
    for _ in range(20):
        seen.took("draft", 9.0, 1.0)
    assert seen.best(20, 1, free, 0, 0) is None


def test_what_greedy_takes_beside_its_passes_is_no_reason_to_draft():
    seen = Readings()
    for _ in range(20):
        seen.took("greedy", 9.0, 1.0)
    assert seen.best(20, 1, float, 0, 0) is None


def test_readings_that_were_not_tried_are_thought_to_be_as_before():
    seen = Readings()
    for _ in range(5000):
        seen.count(1, 0, 1, 8)  # the first reading alone, right for one word each time
        seen.count(1, None, 0, 8)
    assert seen.words(1, 1) == pytest.approx(1.5, abs=0.01)
    assert seen.words(1, 3) == pytest.approx(1.5 + sum(FIRST[1:3]), abs=0.01)
