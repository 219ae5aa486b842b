"""On a CUDA device: FlexAttention trains as the dense plan does, graphs decode as plain passes."""

import numpy as np
import pytest
import torch

from januslm.inference.cuda_graphs import GraphedDecoder
from januslm.inference.incremental import IncrementalDecoder
from januslm.model.joint_loss import ModelWithLoss
from tests.decoders import DECODERS, algorithm, settings, taught
from tests.samples import SPECIAL, coefficients, examples, model, named, packed, resolved, sentence

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]


SHAPES = pytest.mark.parametrize("room", [None, 32])  # of a source, without an encoder


def losses_and_gradients(row, dtype, room=None):
    """Loss and gradients of one batch on the GPU; row None is the dense plan."""
    objective = resolved("janus", source_room=room)
    torch.manual_seed(0)
    network = model(
        objective, double=False, width=64, ffn=128
    )  # FlexAttention wants heads of 16 and more
    learner = ModelWithLoss(network, objective.loss).to("cuda", dtype)
    made = examples(objective, np.random.default_rng(0), [9, 14, 21, 30, 12, 17, 8, 25] * 3)
    batch = packed(objective, made, row=row).to("cuda")
    loss, _ = learner(batch, coefficients(objective.loss.weights, batch))
    loss.backward()
    return loss.item(), {n: p.grad.float() for n, p in learner.named_parameters()}


@SHAPES
def test_flex_rows_give_the_loss_and_gradients_of_the_dense_plan(room):
    dense, flex = (losses_and_gradients(row, torch.float32, room) for row in (None, 512))
    assert flex[0] == pytest.approx(dense[0], rel=1e-4)
    for name, grad in dense[1].items():
        torch.testing.assert_close(flex[1][name], grad, rtol=1e-2, atol=1e-3 * grad.abs().max())


def test_bf16_follows_fp32():
    one, other = (losses_and_gradients(512, kind)[0] for kind in (torch.float32, torch.bfloat16))
    assert other == pytest.approx(one, rel=0.02)


@pytest.mark.parametrize("read", ["next", "past"])
@pytest.mark.parametrize("name", DECODERS)
@SHAPES
def test_captured_graphs_write_what_plain_passes_write(name, read, room):
    torch.manual_seed(0)
    kind, options = named(taught(name))
    given = options | ({"read": read} if kind == "janus" else {})
    objective = resolved(kind, source_room=room, **given)
    network = model(objective, double=False, width=64, ffn=128).eval().cuda()
    rng = np.random.default_rng(1)
    sources = [sentence(rng, size) for size in rng.integers(3, 30, 12)]
    decode, given = algorithm(name), settings(name, max_length=40)
    want = decode(IncrementalDecoder(network, objective), sources, SPECIAL, **given)
    decoder = GraphedDecoder(network, objective, patience=0)
    for _ in range(2):
        for a, b in zip(decode(decoder, sources, SPECIAL, **given), want, strict=True):
            assert a.tokens.tolist() == b.tokens.tolist()
            assert a.score == pytest.approx(b.score, abs=1e-4)
    assert all(made.graph is not None for made in decoder.recorded.values())
