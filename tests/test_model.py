"""A layout of one stream is a plain transformer; what a step costs is what we say."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn.functional import gelu, layer_norm, linear, relu
from torch.utils.flop_counter import FlopCounterMode

from januslm.model.config import PRESETS, configure
from januslm.model.joint_loss import ModelWithLoss
from januslm.model.positions.rotary import rotate
from januslm.model.positions.sinusoidal import waves
from januslm.model.transformer import Seq2Seq, flops, parameters, size
from tests.samples import (
    case_name,
    coefficients,
    every_shape,
    examples,
    gradients,
    model,
    packed,
    resolved,
)

STYLES = [
    {},
    {"norm": "pre"},
    {"activation": "relu", "embedding_norm": False, "embedding_scale": True},
    {"positions": "sinusoidal", "tied": False},
    {"positions": "rotary", "norm": "pre", "embedding_norm": False},
    {"positions": "rotary", "heads": 1, "extra_vectors": 3},
    {"positions": "rotary_cross", "norm": "pre", "length_offset": True},
    {"length_offset": True, "max_length": 7},
    {"positions": "sinusoidal", "norm": "pre", "embedding_scale": True, "encoder_layers": 1},
]
STYLED = pytest.mark.parametrize("style", STYLES, ids=lambda s: "-".join(map(str, s.values())))


def turned(x: torch.Tensor) -> torch.Tensor:
    """Rotary positions of [A, H, d] at 0, 1, 2, ..., pair by pair with complex numbers."""
    half = x.shape[-1] // 2
    angle = torch.outer(torch.arange(len(x)), 1e4 ** (-torch.arange(half) / half)).double()
    pairs = torch.complex(x[..., :half], x[..., half:]) * torch.exp(1j * angle)[:, None]
    return torch.cat([pairs.real, pairs.imag], -1)


def attend(net, weights, x, keys, seen, turn: bool):
    heads = weights.heads
    q = linear(x, weights.q_proj.weight, weights.q_proj.bias).unflatten(-1, (heads, -1))
    k, v = linear(keys, weights.kv_proj.weight, weights.kv_proj.bias).chunk(2, -1)
    k, v = k.unflatten(-1, (heads, -1)), v.unflatten(-1, (heads, -1))
    if turn:
        q, k = turned(q), turned(k)
    scores = torch.einsum("ahd,bhd->hab", q, k) / math.sqrt(q.shape[-1])
    share = scores.masked_fill(~seen, -math.inf).softmax(-1)
    out = torch.einsum("hab,bhd->ahd", share, v).flatten(1)
    return linear(out, weights.out_proj.weight, weights.out_proj.bias)


def plain(net: Seq2Seq, stack, token, seen, memory=None) -> torch.Tensor:
    """The textbook transformer on one sentence: int64 [A] -> [A, D]."""
    config = net.config
    x = net.embedding.weight[token] * (math.sqrt(config.width) if config.embedding_scale else 1)
    if config.positions == "learned":
        x = x + stack.positions.table.weight[: len(x)]
    elif config.positions == "sinusoidal":
        half = config.width // 2
        for p in range(len(x)):
            for i in range(half):
                angle = p / 10000 ** (i / (half - 1))
                wave = torch.zeros_like(x[p])
                wave[i], wave[half + i] = math.sin(angle), math.cos(angle)
                x = x + wave * torch.nn.functional.one_hot(torch.tensor(p), len(x))[:, None]

    def normed(norm, x):
        return layer_norm(x, (config.width,), norm.weight, norm.bias, 1e-5)

    x = normed(stack.embedding_layer_norm, x) if config.embedding_norm else x
    turn, turn_cross = "rotary" in config.positions, config.positions == "rotary_cross"
    act = gelu if config.activation == "gelu" else relu

    def sublayer(norm, x, change):
        return x + change(normed(norm, x)) if config.norm == "pre" else normed(norm, x + change(x))

    every = torch.ones(len(x), 0 if memory is None else len(memory), dtype=torch.bool)
    for layer in stack.layers:
        x = sublayer(
            layer.self_attn_layer_norm,
            x,
            lambda h, at=layer.self_attn: attend(net, at, h, h, seen, turn),
        )
        if memory is not None:
            x = sublayer(
                layer.encoder_attn_layer_norm,
                x,
                lambda h, at=layer.encoder_attn: attend(net, at, h, memory, every, turn_cross),
            )
        x = sublayer(
            layer.final_layer_norm,
            x,
            lambda h, at=layer: linear(
                act(linear(h, at.fc1.weight, at.fc1.bias)), at.fc2.weight, at.fc2.bias
            ),
        )
    return normed(stack.final_layer_norm, x) if config.norm == "pre" else x


def close(net: Seq2Seq) -> float:
    """Waves and turns are taken in float32, whatever the model's own precision."""
    return 1e-10 if net.config.positions == "learned" else 2e-5


@pytest.mark.slow
@STYLED
def test_a_layout_of_one_stream_is_a_plain_transformer(style):
    net, objective = model(**style), resolved("ar", read="past")
    made = examples(objective, np.random.default_rng(0), [7, 4, 9])
    batch = packed(objective, made)
    found = net(batch)[0].split([len(e.target) - 1 for e in made])
    for e, rows in zip(made, found, strict=True):
        source, words = torch.from_numpy(e.source), torch.from_numpy(e.target[:-1])
        memory = plain(net, net.encoder, source, torch.ones(len(source), len(source)).bool())
        wanted = plain(
            net, net.decoder, words, torch.ones(len(words), len(words)).bool().tril(), memory
        )
        assert torch.allclose(rows, wanted, atol=close(net), rtol=0)


@pytest.mark.slow
@STYLED
def test_length_logits_are_of_the_mean_of_the_source(style):
    net, objective = model(**style), resolved("ar")
    made = examples(objective, np.random.default_rng(1), [5, 5])
    found = net(packed(objective, made))[1]
    for e, row in zip(made, found, strict=True):
        source = torch.from_numpy(e.source)
        memory = plain(net, net.encoder, source, torch.ones(len(source), len(source)).bool())
        every = net.length_head.weight @ memory.mean(0)
        if net.config.length_offset:  # the middle one: as long as the source
            most = len(every)
            places = [n - len(source) + most // 2 for n in range(most)]
            every = torch.stack([every[min(max(at, 0), most - 1)] for at in places])
        assert torch.allclose(row, every, atol=close(net), rtol=0)


@pytest.mark.slow
@pytest.mark.parametrize("norm", ["pre", "post"])
def test_activation_checkpointing_gives_the_same_gradients(norm):
    objective = resolved("janus")
    batch = packed(objective, examples(objective, np.random.default_rng(2), [6, 9]))
    scale = coefficients(objective.loss.weights, batch)
    net = model(norm=norm, dropout=0.2).train()
    slopes = []
    for on in (False, True):
        config = replace(net.config, activation_checkpointing=on)
        net.config = net.encoder.config = net.decoder.config = config
        torch.manual_seed(7)  # the same dropout, also in what is computed again
        trained = ModelWithLoss(net, objective.loss)
        slopes.append(gradients(trained, trained(batch, scale)[0]))
    for name, slope in slopes[0].items():
        assert torch.allclose(slope, slopes[1][name], atol=1e-12, rtol=0), name


def test_dropout_acts_in_training_alone():
    objective = resolved("janus")
    batch = packed(objective, examples(objective, np.random.default_rng(2), [6]))
    net = model(dropout=0.5, attention_dropout=0.5)
    assert torch.equal(net.eval()(batch)[0], net(batch)[0])
    assert not torch.allclose(net.train()(batch)[0], net(batch)[0])


@pytest.mark.slow
@pytest.mark.parametrize("case", every_shape(), ids=case_name)
def test_flops_are_those_of_the_products_that_are_run(case):
    objective = resolved(case[0], **case[1])
    layers = {"encoder_layers": 1} if objective.source_room is None else {}
    net = model(objective, double=False, width=32, ffn=128, decoder_layers=3, **layers)
    batch = packed(objective, examples(objective, np.random.default_rng(3), [20] * 4))
    trained = ModelWithLoss(net, objective.loss)
    with FlopCounterMode(display=False) as counter:
        trained(batch, coefficients(objective.loss.weights, batch))[0].backward()
    counts = counter.get_flop_counts()["Global"]
    # What slots read is counted in pairs, below; its products are batched, those of weights not.
    products = sum(n for op, n in counts.items() if "bmm" not in str(op))
    # The counter does not see addmm_, which takes the gradient of the vocabulary.
    products += 2 * batch.sizes["goals"] * net.config.width * net.config.vocabulary
    areas = {k: 0 for k in batch.sizes if k.endswith("pairs")}
    assert flops(net.config, batch.sizes | areas) == pytest.approx(products, rel=0.03)


def test_flops_of_attention_are_four_products_of_width_per_pair_in_each_direction():
    config, nothing = (
        model().config,
        dict.fromkeys(
            [
                "source",
                "memory",
                "slots",
                "keys",
                "goals",
                "last",
                "encoder_pairs",
                "self_pairs",
                "cross_pairs",
                "last_self_pairs",
                "last_cross_pairs",
            ],
            0,
        ),
    )
    one = flops(config, nothing | {"encoder_pairs": 1})
    # forward: q k and p v, 2 d each way of multiply and add; backward twice that
    assert one == 3 * config.encoder_layers * 4 * config.width


def test_rotary_scores_depend_on_distance_alone():
    x, y = torch.randn(2, 1, 2, 8, dtype=torch.float64)
    at = torch.tensor

    def score(i: int, j: int) -> torch.Tensor:
        return (rotate(x, at([i])) * rotate(y, at([j]))).sum()

    # angles are taken in float32, so equal to its precision
    assert torch.allclose(score(3, 7), score(13, 17), rtol=1e-5)
    assert not torch.allclose(score(3, 7), score(3, 8), rtol=1e-3)


def test_waves_are_sines_then_cosines_from_one_radian_to_a_ten_thousandth():
    table = waves(50, 8)
    assert torch.allclose(table[:, 0], torch.arange(50).sin())
    assert torch.allclose(table[:, 4], torch.arange(50).cos())
    assert torch.allclose(table[:, 3], (torch.arange(50) * 1e-4).sin(), atol=1e-7)


def test_the_output_is_the_embedding_only_if_tied():
    tied, untied = model(), model(tied=False)
    assert tied.vocabulary_weight() is tied.embedding.weight
    assert parameters(untied) - parameters(tied) == untied.lm_head.weight.numel()
    extra = model(extra_vectors=5)
    assert extra.vocabulary_weight().shape[0] == extra.config.vocabulary
    assert extra.embedding.num_embeddings == extra.config.vocabulary + 5


@pytest.mark.parametrize(
    ("preset", "vocabulary", "millions"),
    # Published sizes; BART has two rows more in each table of positions.
    [("base", 50265, 139), ("large", 50265, 406)],
)
def test_presets_have_the_sizes_of_bart(preset, vocabulary, millions):
    assert PRESETS[preset]["embedding_norm"]
    with torch.device("meta"):
        net = Seq2Seq(configure({"preset": preset}, vocabulary, "x"))
    assert (parameters(net) - net.length_head.weight.numel()) / 1e6 == pytest.approx(
        millions, abs=1
    )


def test_a_models_size_is_known_without_making_it(monkeypatch):
    config = configure({"preset": "tiny", "tied": False}, 300, "x")
    want = parameters(Seq2Seq(config))
    before = torch.get_rng_state()
    assert size(config) == want
    assert torch.equal(torch.get_rng_state(), before), "something was drawn"
    made = []
    monkeypatch.setattr(Seq2Seq, "apply", lambda self, _: made.append(self))
    size(config)
    assert all(p.is_meta for p in made[0].parameters())
