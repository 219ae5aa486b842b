"""Which form of a draft is chosen: by simulation, by trying all, and at the ends."""

import itertools

import numpy as np
import pytest

from januslm.decoding._costs import Costs
from januslm.decoding._forms import CHOICES, Acceptance, Chooser, Form, lines, widest
from januslm.decoding._trees import Tree, tree

SHARES = [[0.7, 0.1, 0.05, 0.0], [0.5, 0.2, 0.1, 0.1], [0.9, 0.05, 0.0, 0.0]]


def right_words(nodes: Tree, rights: list[int | None]) -> int:
    """Words that one round accepts, where at each place the choice of that rank is right."""
    choices = [[place * 10 + rank for rank in range(CHOICES)] for place in range(len(rights))]
    truth = [-1 if r is None else place * 10 + r for place, r in enumerate(rights)]
    words = nodes.words(choices)
    ways = nodes.before(words)
    chosen = [(*truth, -1)[len(way)] for way in ways]
    return len(nodes.walk(words, chosen, eos=99))


@pytest.mark.slow
@pytest.mark.parametrize("most", [0, 1, 2, 5])
def test_lines_promise_what_rounds_give(most):
    rng = np.random.default_rng(most)
    drawn = [
        [rng.choice([0, 1, 2, 3, None], p=[*row, 1 - sum(row)]) for row in SHARES]
        for _ in range(4000)
    ]
    for swaps, promised in lines(SHARES, most):
        given = [right_words(tree(len(SHARES), swaps), rights) for rights in drawn]
        error = 4 * np.std(given) / np.sqrt(len(given))
        assert np.mean(given) == pytest.approx(promised, abs=error + 1e-9), swaps


def test_each_line_more_saves_less_than_the_one_before():
    found = [right for _, right in lines(SHARES, 6)]
    gains = np.diff(found)
    assert len(found) == 7
    assert (gains > 0).all()
    assert (np.diff(gains) <= 1e-12).all()


def test_a_tree_holds_the_first_line_and_each_line_with_a_word_replaced():
    choices = [["a", "A"], ["b", "B"], ["c", "C"]]
    nodes = tree(3, ((1, 1), (0, 1)))
    ways = ["".join(way) for way in nodes.before(nodes.words(choices))]
    assert ways == ["", "a", "ab", "abc", "aB", "aBc", "A", "Ab", "Abc"]
    assert nodes.behind(2) == (-1, 0, 1, 2, 3, 2, 5, 1, 7, 8)
    assert not nodes.is_chain
    assert tree(3).is_chain


def test_shares_are_of_places_whose_words_before_were_right():
    seen = Acceptance()
    for _ in range(1000):
        seen.count(0, 0)
        seen.count(1, 2)
    seen.count(3, None)
    first, second, third, _ = seen.shares(4)
    assert first[0] > 0.99
    assert second[0] < 0.02 < 0.98 < second[2]
    assert third == Acceptance().shares(1)[0]  # never seen: the prior


@pytest.mark.parametrize("seed", range(20))
def test_no_other_form_promises_more_words_a_second(seed):
    rng = np.random.default_rng(seed)
    chooser, most, limit = Chooser(), int(rng.integers(2, 6)), int(rng.integers(1, 4))
    for _ in range(int(rng.integers(0, 50))):
        chooser.acceptance.count(int(rng.integers(most)), rng.choice([0, 0, 1, None]))
    cost = Costs([1, 9, 40], np.cumsum(rng.random(3) ** 3))
    shares, plain = chooser.acceptance.shares(most - 1), Form("greedy")
    rates = {
        Form(kind, words, swaps): chooser.rate(Form(kind, words, swaps), right, cost)
        for kind, words in itertools.product(("one", "two"), range(1, most))
        for swaps, right in lines(shares[:words], limit - 1)
    }
    highest = max(rates, key=rates.__getitem__)
    pays = rates[highest] > 1.15 * chooser.rate(plain, 0.0, cost)
    assert chooser.best(cost, most, limit) == (highest if pays else plain)


def test_where_rows_cost_nothing_the_widest_form_in_one_pass_is_best():
    best = Chooser().best(Costs([1, 500], [1.0, 1.0]), 8, 6)
    assert (best.kind, best.words, len(best.swaps)) == ("one", 7, 5)


def test_where_each_row_costs_as_much_nothing_is_drafted():
    assert Chooser().best(Costs([1, 500], [1.0, 500.0]), 8, 6) == Form("greedy")


def test_where_few_rows_are_cheap_two_passes_are_better_than_one():
    best = Chooser().best(Costs([1, 10, 100], [1.0, 1.1, 30.0]), 8, 1)
    assert best.kind == "two"


def test_passes_that_take_longer_than_measured_end_a_form():
    chooser, cost = Chooser(), Costs([1, 500], [1.0, 1.0])
    for _ in range(60):
        chooser.took("one", 3.0, 1.0)
        chooser.took("two", 3.0, 1.0)
    assert chooser.best(cost, 8, 1).kind == "one"  # 4.2 words in the time of 3
    for _ in range(60):
        chooser.took("one", 4.0, 1.0)
        chooser.took("two", 4.0, 1.0)
    assert chooser.best(cost, 8, 1).kind == "greedy"


def test_what_greedy_takes_beside_its_passes_is_no_reason_to_draft():
    chooser, cost = Chooser(), Costs([1, 500], [1.0, 500.0])
    for _ in range(60):
        chooser.took("greedy", 4.0, 1.0)
    assert chooser.best(cost, 8, 6) == Form("greedy")


@pytest.mark.parametrize("kind", ["one", "two"])
def test_a_form_that_is_asked_for_is_as_wide_as_asked(kind):
    assert widest(kind, 1, 6) == Form("greedy")
    form = widest(kind, 5, 3)
    assert (form.kind, form.words, form.masks) == (kind, 4, 5)
    assert form.swaps == ((0, 1), (1, 1))


def test_costs_lie_between_what_was_measured_and_go_on_behind_it():
    cost = Costs([1, 3, 5], [1.0, 0.5, 3.0])  # the second was measured when the first was disturbed
    assert [cost(rows) for rows in (1, 2, 3, 4, 5, 7)] == [1.0, 1.0, 1.0, 2.0, 3.0, 5.0]
    assert Costs([1], [2.0])(9) == 2.0
