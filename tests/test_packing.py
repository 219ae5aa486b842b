"""A batch of many equals batches of one, however it is laid out."""

from functools import partial

import numpy as np
import pytest
import torch

from januslm.config import Refused
from januslm.layout import NONE, Example
from januslm.model import attention
from januslm.model.joint_loss import ModelWithLoss
from januslm.model.packing import Packer
from januslm.training.job import batch_of
from tests.samples import (
    ROOM,
    case_name,
    coefficients,
    every_shape,
    examples,
    gradients,
    model,
    packed,
    resolved,
    sentence,
)

CASES = pytest.mark.parametrize("case", every_shape(), ids=case_name)
SIZES = [3, 9, 5, 14, 4, 9]


def step(net, objective, batch, scale: dict[str, float]):
    """Sums of terms and gradients of one batch under given coefficients."""
    trained = ModelWithLoss(net, objective.loss)
    loss, sums = trained(batch, scale)
    return loss.item(), {k: v.item() for k, v in sums.items()}, gradients(trained, loss)


@pytest.mark.slow
@CASES
def test_a_batch_of_many_is_the_sum_of_batches_of_one(case):
    objective = resolved(case[0], **case[1])
    net = model(objective)
    made = examples(objective, np.random.default_rng(0), SIZES)
    together = packed(objective, made)
    scale = coefficients(objective.loss.weights, together)
    loss, sums, slopes = step(net, objective, together, scale)
    alone = [step(net, objective, packed(objective, [one]), scale) for one in made]
    assert loss == pytest.approx(sum(a[0] for a in alone), abs=1e-10)
    for name, value in sums.items():
        assert value == pytest.approx(sum(a[1][name] for a in alone), abs=1e-10)
    for name, slope in slopes.items():
        assert torch.allclose(slope, sum(a[2][name] for a in alone), atol=1e-10, rtol=0), name


@pytest.mark.slow
@CASES
def test_counts_of_a_batch_add_up(case):
    objective = resolved(case[0], **case[1])
    made = examples(objective, np.random.default_rng(1), SIZES)
    together = packed(objective, made)
    alone = [packed(objective, [one]) for one in made]
    assert set(together.counts) == {*objective.loss.weights, "tokens"}
    for name, count in together.counts.items():
        assert count == sum(one.counts[name] for one in alone)
    assert together.tokens == sum(SIZES)
    for name in ("slots", "goals", "keys", "source", "self_pairs", "cross_pairs", "encoder_pairs"):
        assert together.sizes[name] == sum(one.sizes[name] for one in alone)


@pytest.mark.slow
@CASES
def test_groups_hold_every_goal_once_under_its_distribution(case):
    objective = resolved(case[0], **case[1])
    made = examples(objective, np.random.default_rng(2), SIZES)
    batch = packed(objective, made)
    rows = torch.cat([loss_group.rows.flatten() for loss_group in batch.loss_groups])
    pooled = batch.slots.pooled  # the source's final states, that tell the length
    others = [] if pooled is None else pooled.rows.tolist()
    assert sorted([*rows.tolist(), *others]) == list(range(len(batch.slots.goals)))
    wanted = sorted(
        (objective.plugin.RULE.predicts[objective.plugin.STREAMS[stream]], int(e.target[goal]))
        for e in made
        for stream, goal in zip(e.layout.slots.stream, e.layout.slots.goal, strict=True)
        if goal != NONE
    )
    found = sorted(
        (stream, word)
        for loss_group in batch.loss_groups
        for stream in loss_group.distributions
        for word in loss_group.target.tolist()
    )
    assert found == wanted


def test_rows_of_a_group_share_their_position():
    objective = resolved("janus", query_position="target")
    made = examples(objective, np.random.default_rng(3), SIZES)
    batch = packed(objective, made)
    place = batch.slots.position[batch.slots.goals]
    for loss_group in batch.loss_groups:
        assert (place[loss_group.rows] == place[loss_group.rows][:1]).all()


@pytest.mark.parametrize("name", ["janus", "ar", "cmlm"])
def test_two_encoder_passes_without_dropout_change_nothing(name):
    objective, net = resolved(name), model()
    made = examples(objective, np.random.default_rng(4), SIZES)
    one, two = packed(objective, made), packed(objective, made, encoder_passes=2)
    scale = coefficients(objective.loss.weights, one)
    a, b = step(net, objective, one, scale), step(net, objective, two, scale)
    assert one.counts == two.counts
    assert a[0] == pytest.approx(b[0], abs=1e-10)
    assert all(torch.allclose(a[2][n], b[2][n], atol=1e-10, rtol=0) for n in a[2])
    if name == "janus":
        assert two.sizes["source"] == 2 * one.sizes["source"]


@pytest.mark.slow
def test_two_encoder_passes_draw_their_own_dropout():
    objective = resolved("janus")
    made = examples(objective, np.random.default_rng(4), [9])
    batch = packed(objective, made, encoder_passes=2)
    memory = model(dropout=0.5).train().encode(batch.source)
    first, second = memory.split(batch.sizes["source"] // 2)
    assert not torch.allclose(first, second)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
@pytest.mark.parametrize(
    ("name", "passes", "room"),
    [("janus", 1, None), ("janus", 2, None), ("cmlm", 1, None), ("cmlm", 1, ROOM)],
)
def test_rows_for_flex_give_the_terms_of_packing_without_rows(name, passes, room):
    objective = resolved(name, source_room=room)
    net = model(objective, double=False, **({} if room else {"encoder_layers": 1}))
    made = examples(objective, np.random.default_rng(5), [*SIZES, 25])
    loose = packed(objective, made, encoder_passes=passes)
    rows = packed(objective, made, encoder_passes=passes, row=128)
    assert rows.counts == loose.counts
    assert rows.sizes == loose.sizes
    scale = coefficients(objective.loss.weights, loose)
    trained = ModelWithLoss(net, objective.loss)
    with torch.no_grad():
        wanted, found = trained(loose, scale)[1], trained(rows, scale)[1]
    for term in wanted:
        assert found[term].item() == pytest.approx(wanted[term].item(), rel=1e-4), term


def test_rows_of_flex_have_one_length_a_multiple_of_its_block():
    objective = resolved("janus")
    made = examples(objective, np.random.default_rng(6), [9] * 12)
    batch = packed(objective, made, row=256)
    rows = batch.slots.plan.rows
    assert rows > 1
    for side in (batch.slots.token, batch.slots.keys, batch.slots.goals, batch.source.token):
        assert len(side) % (rows * 128) == 0
    assert isinstance(batch.slots.plan, attention.Flex)


@pytest.mark.slow
@CASES
def test_nothing_hidden_gives_a_finite_loss_and_finite_gradients(case):
    objective = resolved(case[0], **case[1])
    net = model(objective)
    made = examples(objective, np.random.default_rng(7), [3, 2, 6], ratio=0.0)
    batch = packed(objective, made)
    loss, sums, slopes = step(net, objective, batch, coefficients(objective.loss.weights, batch))
    assert np.isfinite([loss, *sums.values()]).all()
    assert all(slope.isfinite().all() for slope in slopes.values())


def test_an_example_longer_than_a_row_is_refused():
    objective = resolved("janus")
    target = sentence(np.random.default_rng(0), 50)
    layout = objective.layout(target, np.zeros(50, bool), np.random.default_rng(0))
    with pytest.raises(Refused) as error:
        Packer(objective.loss.weights, row=128)([Example(target, target, layout)])
    assert str(error.value) == (
        "packing.row is 128, but an example has 50 source tokens and 148 slots: "
        "raise packing.row or shorten the examples"
    )


def test_noise_of_a_batch_depends_on_sample_ids_alone():
    objective = resolved("janus")
    rng = np.random.default_rng(8)
    pairs = [(sentence(rng, 8), sentence(rng, 12)) for _ in range(4)]
    make = partial(batch_of, Packer(objective.loss.weights), objective, seed=1)
    config = model().config
    one = make(pairs=pairs, ids=np.arange(4), model_config=config)
    turned = make(pairs=pairs[::-1], ids=np.arange(4)[::-1], model_config=config)
    assert one.counts == turned.counts
    assert one.flops == turned.flops > 0
    assert sorted(one.slots.token.tolist()) == sorted(turned.slots.token.tolist())
    assert make(pairs=pairs, ids=np.arange(4) + 9, model_config=config).counts != one.counts
