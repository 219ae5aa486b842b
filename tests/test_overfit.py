"""Every objective in the folder learns one sentence, in every way that its options allow."""

import numpy as np
import pytest
import torch

from januslm.model.joint_loss import ModelWithLoss
from tests.samples import (
    ROOM,
    case_name,
    coefficients,
    every_shape,
    examples,
    model,
    packed,
    resolved,
)

pytestmark = pytest.mark.slow  # trains


@pytest.mark.parametrize("case", every_shape(), ids=case_name)
def test_it_learns_one_sentence(case):
    objective = resolved(case[0], "pretrain", **case[1])  # no label smoothing: the loss can reach 0
    made = examples(objective, np.random.default_rng(0), [8], ratio=0.6)
    batch = packed(objective, made)
    layers = {} if objective.source_room else {"encoder_layers": 1}
    net = model(objective, double=False, width=32, ffn=64, **layers)
    trained = ModelWithLoss(net, objective.loss)
    scale = coefficients(objective.loss.weights, batch)
    optimizer = torch.optim.Adam(trained.parameters(), lr=5e-3)
    for _ in range(50):
        optimizer.zero_grad()
        loss, sums = trained(batch, scale)
        loss.backward()
        optimizer.step()
    for name, value in sums.items():
        if not batch.counts[name]:
            continue  # this sentence has no such goal
        assert value.item() / batch.counts[name] < 0.1, f"{name} is still {value.item()}"
    hidden, _ = trained.model(batch)
    best = (hidden @ trained.model.vocabulary_weight().T).argmax(-1)
    for loss_group in batch.loss_groups:
        assert (best[loss_group.rows] == loss_group.target).all(), loss_group.distributions


@pytest.mark.parametrize("room", [None, ROOM])
def test_the_length_is_learnt_beside(room):
    objective = resolved("janus", source_room=room)
    made = examples(objective, np.random.default_rng(0), [8, 5])
    batch = packed(objective, made)
    trained = ModelWithLoss(model(objective, double=False), objective.loss)
    optimizer = torch.optim.Adam(trained.parameters(), lr=5e-3)
    for _ in range(50):
        optimizer.zero_grad()
        trained(batch, coefficients(objective.loss.weights, batch))[0].backward()
        optimizer.step()
    assert trained.model(batch)[1].argmax(-1).tolist() == [8, 5]
