"""No slot can learn the word it must predict: by closure of the rule, and by gradients."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from januslm.layout import Example, Layout, Rule, leaks
from januslm.model.packing import Packer
from tests.samples import SPECIAL, case_name, every_shape, hiding, model, resolved, sentence

CASES = every_shape()
SOURCE = np.array([SPECIAL.bos, 7, 9, SPECIAL.eos])
SIZES = (3, 4, 6, 9)


def dependence(layout_of, target: np.ndarray) -> np.ndarray:
    """bool [S, T]: which slots' tokens depend on which target word, found by changing the word."""
    before = layout_of(target).slots
    columns = []
    for at in range(len(target)):
        changed = target.copy()
        changed[at] = SPECIAL.unk  # which no target has
        after = layout_of(changed).slots
        assert (after.goal == before.goal).all()
        assert (after.position == before.position).all()
        columns.append(after.token != before.token)
    return np.stack(columns, 1)


def hidden_ways(rng: np.random.Generator, size: int):
    """Nothing, everything and three random choices of words to hide; EOS too, as CMLM may."""
    inner = np.arange(size) % (size - 1) != 0
    yield np.zeros(size, bool)
    yield inner
    for _ in range(3):
        yield (rng.random(size) < 0.5) & (np.arange(size) > 0)


def instances(objective, seed: int = 0):
    """(target, layout_of) for targets of several sizes and all the ways to hide words."""
    rng = np.random.default_rng(seed)
    for size in SIZES:
        for hidden in hidden_ways(rng, size):

            def layout_of(y, hidden=hidden):
                layout = objective.layout(y, hidden, np.random.default_rng(seed))
                return layout if objective.source_room is None else layout.behind(SOURCE)

            yield sentence(rng, size), layout_of


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES, ids=case_name)
def test_no_slot_reaches_the_word_it_must_predict(case):
    objective = resolved(case[0], **hiding(case))
    for target, layout_of in instances(objective):
        layout = layout_of(target)
        assert not leaks(layout, dependence(layout_of, target)).any(), layout.draw()


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES, ids=case_name)
def test_a_slot_reaches_its_word_only_where_the_word_was_left_standing(case):
    """BERT's and MPNet's 10 %: the slot itself holds the word that it must predict."""
    objective = resolved(case[0], **case[1])
    for target, layout_of in instances(objective):
        layout = layout_of(target)
        left = target[layout.slots.goal] == layout.slots.token
        found = leaks(layout, dependence(layout_of, target))
        assert (found == (left & (layout.slots.goal >= 0))).all(), layout.draw()


def learns(layout_of, target: np.ndarray, net) -> np.ndarray:
    """bool [T]: goals whose prediction has a gradient into a slot that tells the goal's word."""
    packer = Packer({})

    def batch_of(y):
        return packer([Example(SOURCE, y, layout_of(y))])

    batch = batch_of(target)
    tells = []
    for at in range(len(target)):
        changed = target.copy()
        changed[at] = SPECIAL.unk
        tells.append(batch_of(changed).slots.token != batch.slots.token)
    kept = []
    hook = net.embedding.register_forward_hook(
        lambda module, inputs, out: kept.append(out.detach().requires_grad_()) or kept[-1]
    )
    hidden, _ = net(batch)
    hook.remove()
    embedded = kept[-1]  # the decoder embeds last
    found = np.zeros(len(target), bool)
    word = {int(token): at for at, token in enumerate(target)}
    for loss_group in batch.loss_groups:
        for row, token in zip(loss_group.rows.T, loss_group.target, strict=True):
            at = word[int(token)]
            logits = hidden[row] @ net.vocabulary_weight().T
            mixed = (logits * torch.randn_like(logits)).sum()
            (grad,) = torch.autograd.grad(mixed, embedded, retain_graph=True)
            found[at] |= bool((grad[tells[at]] != 0).any())
    return found


@pytest.mark.slow  # it computes for seconds; what no layout may leak is proved above
@pytest.mark.parametrize("case", CASES, ids=case_name)
def test_no_prediction_has_a_gradient_into_its_word(case):
    objective = resolved(case[0], **hiding(case))
    net = model(objective)
    for target, layout_of in instances(objective, seed=1):
        if len(target) < 9:
            assert not learns(layout_of, target, net).any(), layout_of(target).draw()


def janus_broken(q, k):
    """Queries see the word of their own hole."""
    rule = resolved("janus").plugin
    return rule.sees(q, k) | ((q.stream == rule.QUERY) & (k.stream == rule.REVEALED))


def janus_through_two(q, k):
    """Masks see past words, which see the words before them."""
    rule = resolved("janus").plugin
    return rule.sees(q, k) | ((q.stream == rule.MASK) & (k.stream == rule.PAST))


def ar_broken(q, k):
    """Words see one word too far."""
    return k.rank <= q.rank + 1


@pytest.mark.slow
@pytest.mark.parametrize("broken", [janus_broken, janus_through_two, ar_broken])
def test_a_broken_rule_is_caught_both_ways(broken):
    objective, net = resolved(broken.__name__.partition("_")[0]), model()
    target = sentence(np.random.default_rng(0), 6)
    hidden = np.array([False, True, False, True, True, False])

    def layout_of(y):
        layout = objective.layout(y, hidden, np.random.default_rng(0))
        return Layout(layout.slots, Rule(layout.rule.streams, broken, layout.rule.predicts))

    assert leaks(layout_of(target), dependence(layout_of, target)).any()
    assert learns(layout_of, target, net).any()


def test_a_layout_that_forgets_to_hide_is_caught_both_ways():
    objective, net = resolved("cmlm"), model()
    target = sentence(np.random.default_rng(0), 6)
    hidden = np.array([False, True, False, True, True, False])

    def layout_of(y):
        layout = objective.layout(y, hidden, np.random.default_rng(0))
        token = np.where(layout.slots.goal >= 0, y[layout.slots.goal], layout.slots.token)
        return replace(layout, slots=replace(layout.slots, token=token))

    aims = layout_of(target).slots.goal >= 0
    assert (leaks(layout_of(target), dependence(layout_of, target)) == aims).all()
    assert learns(layout_of, target, net)[hidden].all()
