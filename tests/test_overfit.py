"""Every objective in the folder learns one sentence, in every way that its options allow."""

import numpy as np
import pytest
import torch

from januslm.objective import Learner
from tests.samples import coefficients, every_layout, examples, model, packed, settled, spoken


@pytest.mark.parametrize("case", every_layout(), ids=spoken)
def test_it_learns_one_sentence(case):
    objective = settled(case[0], "pretrain", **case[1])  # no label smoothing: the loss can reach 0
    made = examples(objective, np.random.default_rng(0), [8], ratio=0.6)
    batch = packed(objective, made)
    trained = Learner(model(double=False, width=32, ffn=64, encoder_layers=1), objective.loss)
    scale = coefficients(objective.loss.weights, batch)
    optimizer = torch.optim.Adam(trained.parameters(), lr=5e-3)
    for _ in range(50):
        optimizer.zero_grad()
        loss, sums = trained(batch, scale)
        loss.backward()
        optimizer.step()
    for name, value in sums.items():
        assert value.item() / batch.counts[name] < 0.1, f"{name} is still {value.item()}"
    hidden, _ = trained.model(batch)
    best = (hidden @ trained.model.vocabulary_weight().T).argmax(-1)
    for sheet in batch.sheets:
        assert (best[sheet.rows] == sheet.target).all(), sheet.streams


def test_the_length_is_learnt_beside():
    objective = settled("janus")
    made = examples(objective, np.random.default_rng(0), [8, 5])
    batch = packed(objective, made)
    trained = Learner(model(double=False), objective.loss)
    optimizer = torch.optim.Adam(trained.parameters(), lr=5e-3)
    for _ in range(50):
        optimizer.zero_grad()
        trained(batch, coefficients(objective.loss.weights, batch))[0].backward()
        optimizer.step()
    assert trained.model(batch)[1].argmax(-1).tolist() == [8, 5]
