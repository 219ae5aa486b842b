"""Reading with caches gives what the training pass gives."""

import itertools

import numpy as np
import pytest
import torch

from januslm.learner import Loss, settle
from januslm.model import Config, Seq2Seq
from januslm.packing import Example, Packer
from januslm.reading import Reader
from januslm.tokenizer import Special

SPECIAL = Special()
V = 23
LIVELY = 0.3


def built(name="janus", read="next", query_position="input", dtype=torch.float64, **config):
    """A small random model in eval mode with its objective."""
    sizes = dict(vocabulary=V, width=16, ffn=24, heads=2, encoder_layers=2, decoder_layers=2)
    model = Seq2Seq(Config(**sizes | dict(max_positions=40, max_length=30) | config))
    for p in model.parameters():  # lively: what is written depends on the source
        if p.ndim > 1:
            torch.nn.init.normal_(p, std=LIVELY)
        else:
            p.data += 0.1 * torch.randn_like(p)
    options = {} if name == "cmlm" else {"read": read, "query_position": query_position}
    objective = settle({"name": name, **options}, {}, Loss(), "nmt", SPECIAL, "test")
    return model.to(dtype).eval(), objective


def sentence(rng, words):
    return np.array([0, *rng.integers(5, V, words), 2])


def taught(model, objective, sources, targets, hidden=None):
    """Logits of the packed training pass by (stream, example): [T - 1 or holes, V]."""
    hidden = hidden or [np.zeros(len(t), bool) for t in targets]
    examples = [
        Example(s, t, objective.layout(t, h))
        for s, t, h in zip(sources, targets, hidden, strict=True)
    ]
    batch = Packer(objective.loss.weights)(examples)
    logits = model(batch)[0] @ model.vocabulary_weight().T
    out = {}
    for sheet in batch.sheets:
        for name, rows in zip(sheet.streams, sheet.rows, strict=True):
            out.setdefault(name, []).append((rows, logits[rows]))
    order = {name: torch.cat([r for r, _ in parts]).argsort() for name, parts in out.items()}
    return {
        name: torch.cat([x for _, x in parts])[order[name]].detach() for name, parts in out.items()
    }


ALL = itertools.product(
    ("next", "past"), ("input", "target"), ("post", "pre"), ("learned", "sinusoidal", "rotary"),
    (True, False), ("ar", "janus"),
)  # fmt: skip


@pytest.mark.parametrize(("read", "place", "norm", "positions", "tied", "name"), ALL)
def test_step_by_step_logits_are_those_of_the_training_pass(
    read, place, norm, positions, tied, name
):
    model, objective = built(name, read, place, norm=norm, positions=positions, tied=tied)
    rng = np.random.default_rng(1)
    sources = [sentence(rng, n) for n in (3, 6, 4)]
    targets = [sentence(rng, 5) for _ in range(3)]
    want = taught(model, objective, sources, targets)[read].view(3, -1, V)
    want = want[:, 1:] if place == "target" else want  # there the first goal is BOS itself
    reader = Reader(model, objective)
    state = reader.start(sources)
    logits = [reader.step(state)]
    for t in range(1, 6):
        logits.append(reader.step(state, torch.tensor([[y[t]] for y in targets])))
    assert torch.allclose(torch.cat(logits, 1), want, atol=1e-10, rtol=0)


@pytest.mark.parametrize("packed", [False, True])
def test_step_by_step_logits_in_single_precision(packed):
    model, objective = built(dtype=torch.float32, extra_vectors=3)
    rng = np.random.default_rng(2)
    sources, targets = [sentence(rng, 4) for _ in range(2)], [sentence(rng, 7) for _ in range(2)]
    want = taught(model, objective, sources, targets)["next"].view(2, -1, V)
    reader = Reader(model, objective, packed=packed)
    state = reader.start(sources)
    logits = [reader.step(state)]
    for t in range(1, 8):
        logits.append(reader.step(state, torch.tensor([[y[t]] for y in targets])))
    assert torch.allclose(torch.cat(logits, 1), want, atol=1e-5, rtol=1e-5)
