"""MPNet against its description, computed word by word without layouts, packing or plans."""

import numpy as np
import pytest
import torch

from januslm.data.sampler import sample_rng
from januslm.model.joint_loss import ModelWithLoss
from januslm.model.packing import Packer
from tests.plain_model import decoded
from tests.samples import (
    SHAPES,
    SPECIAL,
    coefficients,
    model,
    packed,
    resolved,
    sentence,
    target_slots,
)

GIVEN, MASK, REVEALED, QUERY = range(4)
T5 = {"position_bias": "t5"}


def by_formula(net, source, target, order, copies):
    """Log p of each predicted word, [predicted, V]: from the permutation and the corrupted copies.

    order: positions that are predicted, in the order of the permutation; copies: the tokens that
    stand in their places.  Content rows are given words, copies and revealed words, then queries.
    """
    given = np.setdiff1d(np.arange(len(target)), order)
    rows = [(GIVEN, p, target[p], -1) for p in given]
    rows += [(MASK, p, c, i) for i, (p, c) in enumerate(zip(order, copies, strict=True))]
    rows += [(REVEALED, p, target[p], i) for i, p in enumerate(order)]
    rows += [(QUERY, p, c, i) for i, (p, c) in enumerate(zip(order, copies, strict=True))]

    def sees(reader, key) -> bool:
        """Given and masked see each other; word i sees words up to i and the masks after them;
        query i sees the words before i and the masks from i on."""
        (who, _, _, i), (what, _, _, j) = reader, key
        if what == GIVEN:
            return True
        if what == QUERY:
            return False
        if what == MASK:
            return who in (GIVEN, MASK) or (j > i if who == REVEALED else j >= i)
        return (who == REVEALED and j <= i) or (who == QUERY and j < i)

    seen = torch.tensor([[sees(reader, key) for key in rows] for reader in rows])
    token, position = (torch.tensor([int(row[n]) for row in rows]) for n in (2, 1))
    hidden = decoded(net, source, token, position, seen)
    logits = hidden[-len(order) :] @ net.embedding.weight[: net.config.vocabulary].T
    return logits.log_softmax(-1)


def drawn(seed: int, plain_text: bool, room: int | None = None):
    """A random example as training makes it, its permutation and its corrupted copies."""
    objective = resolved("mpnet", "pretrain" if plain_text else "nmt", source_room=room)
    rng = np.random.default_rng(seed)
    target = sentence(rng, int(rng.integers(3, 26)))
    source = None if plain_text else sentence(rng, int(rng.integers(3, 12)))
    example = objective.example(source, target, sample_rng(1, seed))
    slots = target_slots(example)
    queries = slots.stream == QUERY
    return objective, example, slots.position[queries], slots.token[queries]


@pytest.mark.slow
@pytest.mark.parametrize("plain_text", [True, False])
def test_loss_and_every_log_p_are_those_of_the_description(plain_text):
    """300 random cases in all, by turns beside an encoder and in one stack."""
    nets = {room: model(resolved("mpnet", source_room=room), **T5) for room in SHAPES}
    for seed in range(150):
        room = SHAPES[seed % 2]
        objective, example, order, copies = drawn(seed, plain_text, room)
        net = nets[room]
        batch = packed(objective, [example])
        hidden, _ = net(batch)
        (group,) = batch.loss_groups
        rows = group.rows[group.distributions.index("aux")]
        found = (hidden[rows] @ net.vocabulary_weight().T).log_softmax(-1)
        wanted = by_formula(net, example.source, example.target, order, copies)
        by_word = np.argsort(order)  # groups are in the order of the words
        assert torch.allclose(found, wanted[by_word], atol=1e-10, rtol=0), seed
        words = torch.from_numpy(example.target[order])
        loss = -wanted.gather(1, words[:, None]).mean()
        scale = coefficients({"ce/aux": 1.0}, batch)
        smooth = objective.loss.smoothing
        even = -wanted.mean(-1).mean()
        got, _ = ModelWithLoss(net, objective.loss)(batch, scale)
        assert got.item() == pytest.approx((1 - smooth) * loss.item() + smooth * even.item())


@pytest.mark.slow
def test_janus_in_a_free_order_has_mpnets_aux_and_draws_every_order():
    net, orders = model(), set()
    objective = resolved("janus", free=True)
    for seed in range(60):
        rng = np.random.default_rng(seed)
        target, source = sentence(rng, int(rng.integers(4, 20))), sentence(rng, 5)
        example = objective.example(source, target, sample_rng(1, seed))
        slots = example.layout.slots
        queries = slots[slots.stream == objective.plugin.QUERY]
        order = queries.position[np.argsort(queries.rank)]
        if not len(order):
            continue
        orders.add(tuple(np.argsort(queries.rank)[:3]))
        hidden, _ = net(packed(objective, [example]))
        group = next(
            g for g in packed(objective, [example]).loss_groups if "aux" in g.distributions
        )
        rows = group.rows[group.distributions.index("aux")]
        found = (hidden[rows] @ net.vocabulary_weight().T).log_softmax(-1)
        wanted = by_formula(net, source, target, order, np.full(len(order), SPECIAL.mask))
        assert torch.allclose(found, wanted[np.argsort(order)], atol=1e-10, rtol=0), seed
    assert len(orders) > 20


@pytest.mark.slow
def test_the_draws_are_the_published_ones():
    """15 % of the words, a uniform order, 80 / 10 / 10, the same in masks and queries."""
    counts, first, shares = [], [], np.zeros(3)
    objective = resolved("mpnet", "pretrain")
    target = sentence(np.random.default_rng(0), 42)
    for seed in range(2000):
        example = objective.example(None, target, sample_rng(5, seed))
        slots = example.layout.slots
        masks, queries = (slots[slots.stream == s] for s in (MASK, QUERY))
        assert (masks.token == queries.token).all()
        assert (masks.position == queries.position).all()
        counts.append(len(masks))
        first.append(masks.position[0])
        word = target[masks.position]
        masked, kept = masks.token == SPECIAL.mask, masks.token == word
        shares += masked.sum(), kept.sum(), (~masked & ~kept).sum()
        at = slots.position[slots.stream == QUERY]
        assert (example.source[at] == SPECIAL.mask).all(), "the encoder would see the word"
    assert set(counts) == {round(0.15 * 40)}
    shares /= shares.sum()
    # Of the 10 % that are replaced, one in V - 5 is the word itself again.
    assert shares == pytest.approx([0.8, 0.1, 0.1], abs=0.01)
    places = np.bincount(first, minlength=42)[1:41]
    assert places.min() > 20, places
    assert places.max() < 90, places


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
def test_dense_and_flex_give_the_same_logits():
    """FlexAttention's eager forward: what a GPU compiles, run on a CPU."""
    net = model(double=False, **T5)
    objective = resolved("mpnet")
    made = [drawn(seed, False)[1] for seed in range(4)]
    with torch.no_grad():
        logits = []
        for row in (None, 256):
            batch = Packer(objective.loss.weights, row=row)(made)
            hidden, _ = net(batch)
            rows = torch.cat([group.rows.flatten() for group in batch.loss_groups])
            logits.append(hidden[rows] @ net.vocabulary_weight().T)
    assert logits[0].abs().max() > 1
    assert torch.allclose(*logits, atol=1e-4, rtol=0)
