"""Each grid equals a drawing kept here; what follows from a rule holds for all ranks."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from januslm import registry
from januslm.layout import NONE, Codes, Rule, Slots, stack, visible
from januslm.objectives.__main__ import HIDDEN, TARGET, drawing, listing, main
from tests.samples import OBJECTIVES, SPECIAL, case_name, every_layout, hide, resolved, sentence

DRAWINGS = Path(__file__).parent / "drawings"
CASES = pytest.mark.parametrize("case", every_layout(), ids=case_name)


@CASES
def test_the_grid_equals_its_drawing(case):
    name, given = case
    path = DRAWINGS / f"{case_name(case)}.txt"
    command = " ".join(
        ["python -m januslm.objectives", name, *(f"{k}={v}" for k, v in given.items())]
    )
    assert path.is_file(), f"look at the new layout, then: {command} > tests/drawings/{path.name}"
    assert drawing(name, given) + "\n" == path.read_text(encoding="utf-8")


def test_every_drawing_belongs_to_a_layout():
    assert {p.stem for p in DRAWINGS.glob("*.txt")} == {case_name(case) for case in every_layout()}


@pytest.mark.slow
@CASES
def test_a_word_has_one_goal_per_stream_and_goals_are_words(case):
    rng = np.random.default_rng(0)
    objective = resolved(case[0], **case[1])
    for size in (3, 4, 7, 12):
        slots = objective.layout(sentence(rng, size), hide(rng, size), rng).slots
        aims = [(s, g) for s, g in zip(slots.stream, slots.goal, strict=True) if g != NONE]
        assert len(aims) == len(set(aims))
        assert all(0 <= goal < size for _, goal in aims)


@pytest.mark.parametrize("behind", [False, True])
@pytest.mark.parametrize("name", OBJECTIVES)
def test_streams_that_never_read_each_other_are_found_for_all_ranks(name, behind):
    rule = registry.find("januslm.objectives", name).RULE
    rule = rule.behind_source if behind else rule
    n, ranks = len(rule.streams), np.arange(-1, 40)
    stream, rank = (x.ravel() for x in np.meshgrid(np.arange(n), ranks, indexing="ij"))
    seen = visible(rule, Codes(stream, rank), Codes(stream, rank))
    reads = seen.reshape(n, len(ranks), n, len(ranks)).any((1, 3))
    assert (rule.reads == reads).all()
    apart = rule.block[:, None] != rule.block[None, :]
    assert not (reads & apart).any()
    assert (rule.readable == reads.any(0)).all()


@pytest.mark.slow
@pytest.mark.parametrize("case", every_layout(), ids=case_name)
def test_behind_a_source_all_is_as_it_was_and_the_source_is_seen_by_all(case):
    """Ragged cases, from one word and a source of nothing on."""
    for seed in range(12):
        rng = np.random.default_rng(seed)
        size, count = int(rng.integers(3, 14)), int(rng.integers(0, 9))
        target, source = sentence(rng, size), np.arange(20, 20 + count)
        layout = resolved(case[0], **case[1]).layout(target, hide(rng, size), rng)
        whole = layout.behind(source)
        first, rest = whole.slots[:count], whole.slots[count:]
        seen = whole.visible()
        assert (seen[count:, count:] == layout.visible()).all()
        assert seen[:, :count].all()
        assert not seen[:count, count:].any()
        assert (first.token == source).all()
        assert (first.position == np.arange(count)).all()
        assert (first.goal == NONE).all()
        assert (rest.position == layout.slots.position + count).all()
        for field in ("token", "stream", "rank", "goal"):
            assert (getattr(rest, field) == getattr(layout.slots, field)).all()
        if layout.slots.weight is not None:
            assert (rest.weight == layout.slots.weight).all()


@pytest.mark.slow
@CASES
def test_no_reader_is_blind(case):
    objective = resolved(case[0], **case[1])
    assert objective.layout(TARGET, HIDDEN, np.random.default_rng(0)).visible().any(1).all()


def test_janus_queries_and_next_slots_are_never_keys():
    rule = registry.find("januslm.objectives", "janus").RULE
    unread = {s for s, read in zip(rule.streams, rule.readable, strict=True) if not read}
    assert unread == {"query", "next"}
    assert len(set(rule.block)) == 2


def test_streams_in_a_chain_share_a_block():
    rule = Rule(("a", "b", "c", "d"), lambda q, k: (k.stream == q.stream + 1) & (q.stream != 2), {})
    assert list(rule.block) == [0, 0, 0, 1]


def test_stack_repeats_numbers_and_keeps_order():
    slots = stack((7, np.arange(2), 0, NONE, NONE), (np.array([8, 9]), np.arange(2), 1, 0, [3, 4]))
    assert [list(getattr(slots, f)) for f in ("token", "position", "stream", "rank", "goal")] == [
        [7, 7, 8, 9],
        [0, 1, 0, 1],
        [0, 0, 1, 1],
        [-1, -1, 0, 0],
        [-1, -1, 3, 4],
    ]
    assert isinstance(slots[1:3], Slots)
    assert len(slots[1:3]) == 2


def by_the_table(slots: Slots) -> np.ndarray:
    """bool [S, S]: the paper's visibility, slot by slot in words."""
    seen = np.zeros((len(slots), len(slots)), bool)
    names = np.array(["U", "M", "Y", "Q", "A", "B"])[slots.stream]
    holes = sorted(set(slots.position[names == "M"].tolist()))
    for i, (row, at) in enumerate(zip(names, slots.position, strict=True)):
        for j, (column, place) in enumerate(zip(names, slots.position, strict=True)):
            if row in "AB":
                seen[i, j] = column == "A" and place <= at
            elif column == "U":
                seen[i, j] = True
            elif column == "M":
                k, other = holes.index(at) if at in holes else None, holes.index(place)
                seen[i, j] = {"U": True, "M": True}.get(row) or (
                    other > k if row == "Y" else row == "Q" and other >= k
                )
            elif column == "Y" and row in "YQ":
                k, other = holes.index(at), holes.index(place)
                seen[i, j] = other <= k if row == "Y" else other < k
    return seen


def test_janus_sees_what_its_table_says():
    rng = np.random.default_rng(1)
    janus = registry.find("januslm.objectives", "janus")
    for size in rng.integers(3, 15, 20):
        layout = janus.layout(sentence(rng, size), hide(rng, size), SPECIAL, rng)
        assert (layout.visible() == by_the_table(layout.slots)).all()


def test_listing_names_every_objective_with_its_sentence():
    lines = listing().splitlines()
    assert [line.split()[0] for line in lines] == OBJECTIVES
    assert all(len(line.split()) > 3 for line in lines)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["jannus"], "no 'jannus' in objectives/; there are {}. Did you mean 'janus'?\n"),
        (
            ["janus", "raed=past"],
            "janus: unknown key 'raed'; there are free, query_position, read. "
            "Did you mean 'read'?\n",
        ),
        (["janus", "read=last"], "janus: read must be one of next, past, got 'last'\n"),
        (
            ["janus", "--source", "none"],
            "--source must be a number of tokens from 1 to 99, got 'none'\n",
        ),
        (["janus", "past"], "'past' is not a change: write key=value, e.g. read=past\n"),
    ],
)
def test_a_typo_gets_one_line_and_code_2(arguments, message, capsys):
    assert main(arguments) == 2
    printed = capsys.readouterr()
    assert (printed.out, printed.err) == ("", f"error: {message.format(', '.join(OBJECTIVES))}")


def test_a_source_in_the_same_row_is_drawn(capsys):
    assert main(["ar", "--source", "2"]) == 0
    assert capsys.readouterr().out == (
        "      s s p p p p          p past   s source\n"
        "s0    # # . . . .\n"
        "s1    # # . . . .\n"
        "p2    # # # . . .  -> 1\n"
        "p3    # # # # . .  -> 2\n"
        "p4    # # # # # .  -> 3\n"
        "p5    # # # # # #  -> 4\n"
    )


@pytest.mark.slow
def test_the_command_draws():
    command = [sys.executable, "-m", "januslm.objectives", "ar", "read=next"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[1])
    assert (done.returncode, done.stdout) == (0, drawing("ar", {"read": "next"}) + "\n")
