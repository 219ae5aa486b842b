"""Mask-Predict as published: its lines of a run file against its formulas, and [LEN] elsewhere."""

import re
import tomllib

import numpy as np
import pytest
import torch

from januslm.config import Refused
from januslm.data.sampler import sample_rng
from januslm.decoding import mask_predict
from januslm.inference.cuda_graphs import GraphedDecoder
from januslm.inference.incremental import IncrementalDecoder
from januslm.model.config import configure
from januslm.model.joint_loss import ModelWithLoss
from januslm.model.transformer import Seq2Seq
from januslm.objective import LossSettings, resolve_objective
from januslm.training import engine
from tests.conftest import ROOT
from tests.plain_model import run
from tests.samples import SPECIAL, VOCABULARY, coefficients, gradients, model, packed, sentence
from tests.samples import resolved as ready

SIZES = {"width": 16, "ffn": 32, "heads": 2, "encoder_layers": 2, "decoder_layers": 2}
SIZES |= {"norm": "post", "positions": "learned", "max_positions": 64, "max_length": 40}


def published() -> tuple[Seq2Seq, object]:
    """Model and objective of the lines in the documentation."""
    text = (ROOT / "docs" / "objectives.md").read_text(encoding="utf-8")
    [lines] = re.findall(r"#### Mask-Predict as published\n\n```toml\n(.*?)```", text, re.DOTALL)
    table = tomllib.loads(lines)
    loss = LossSettings(**table["loss"])
    objective = resolve_objective(table["objective"], {}, loss, "nmt", SPECIAL, "run.toml")
    net = Seq2Seq(configure(table["model"] | SIZES, VOCABULARY, "run.toml"))
    with torch.no_grad():
        for p in net.parameters():
            p.add_(torch.randn_like(p) * 0.2)
    return net.double().eval(), objective


def by_formula(net, source, target, hidden) -> tuple[torch.Tensor, torch.Tensor]:
    """log p [T, V] of w1..wn EOS and log p of each length: of one sentence."""
    own, table = torch.arange(len(source)), net.length_head.weight
    every = torch.ones(len(source) + 1, len(source) + 1, dtype=torch.bool)
    rows = run(net, net.encoder, torch.from_numpy(source), own, every, before=table[0])
    lengths = table @ rows[0]
    lengths[0] = -torch.inf
    token = torch.from_numpy(np.where(hidden, SPECIAL.mask, target)[1:])
    every = torch.ones(len(token), len(token), dtype=torch.bool)
    place = torch.arange(1, len(target))
    states = run(net, net.decoder, token, place, every, rows[1:])
    return (states @ net.embedding.weight.T).log_softmax(-1), lengths.log_softmax(-1)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
@torch.no_grad()
def test_the_documented_lines_are_mask_predicts_loss():
    """300 random batches of one to four ragged sentences, the shortest without a word."""
    net, objective = published()
    alone = set()
    for seed in range(300):
        rng = np.random.default_rng(seed)
        pairs = [
            (sentence(rng, int(rng.integers(2, 9))), sentence(rng, int(rng.integers(2, 12))))
            for _ in range(rng.integers(1, 5))
        ]
        made, total, masked = [], 0.0, 0
        for number, (source, target) in enumerate(pairs):
            _, hidden = objective.hide(source, target, SPECIAL, sample_rng(seed, number))
            size = len(target) - 1  # T: words and EOS
            assert 1 <= hidden.sum() <= max(1, size - 1)
            assert not hidden[0]
            alone.add((size, bool(hidden[-1])))
            log_p, lengths = by_formula(net, source, target, hidden)
            for at in np.flatnonzero(hidden):
                row, word = log_p[at - 1], target[at]
                total += 0.9 * -row[word] + 0.1 / VOCABULARY * -row.sum()
            total += -lengths[size]
            masked += int(hidden.sum())
            made.append(objective.example(source, target, sample_rng(seed, number)))
        for row in (None, 128) if seed < 5 else (None,):
            batch = packed(objective, made, length_token=True, row=row)
            weights, normalize = objective.loss.weights, objective.loss.normalize
            by = engine._divisors(normalize, batch.counts, weights)
            scale = {n: w / by[n] for n, w in weights.items()}
            loss, _ = ModelWithLoss(net, objective.loss)(batch, scale)
            assert loss.item() == pytest.approx(total.item() / masked, rel=1e-9), seed
    assert {(1, True), (2, True), (2, False), (9, True)} <= alone


@pytest.mark.parametrize("name", ["bang", "prophetnet"])
def test_over_several_streams_it_is_one_mean_of_all_that_they_ask_for(name):
    """ProphetNet's and BANG's: the sum over streams and words, by the number of targets."""
    objective = ready(name, loss=LossSettings(normalize="goals"), ahead=3)
    net, rng = model(objective), np.random.default_rng(2)
    made = [
        objective.example(sentence(rng, 4), sentence(rng, int(n)), sample_rng(0, int(n)))
        for n in (3, 9, 6)
    ]
    batch, weights = packed(objective, made), objective.loss.weights
    by = engine._divisors(objective.loss.normalize, batch.counts, weights)
    scale = {n: w / by[n] for n, w in weights.items()}
    loss, _ = ModelWithLoss(net, objective.loss)(batch, scale)
    hidden, _ = net(batch)
    each = [
        0.9 * -row[word] - 0.1 * row.mean()
        for group in batch.loss_groups
        for rows in group.rows
        for row, word in zip(
            (hidden[rows] @ net.vocabulary_weight().T).log_softmax(-1), group.target, strict=True
        )
    ]
    assert len(each) == sum(int((e.layout.slots.goal >= 0).sum()) for e in made)
    assert loss.item() == pytest.approx(torch.stack(each).mean().item(), rel=1e-9)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
@pytest.mark.parametrize("name", ["janus", "ar", "block"])
def test_any_objective_may_have_either_length_model(name):
    """The loss of a batch is that of its parts, and [LEN] learns from the length alone."""
    objective = ready(name, loss=LossSettings(weights={"ce/ar": 1.0, "ce/length": 0.5}))
    net = model(length="token", positions="learned")
    rng = np.random.default_rng(4)
    pairs = [(sentence(rng, n), sentence(rng, n + 1)) for n in (3, 7, 5)]
    made = [objective.example(s, t, sample_rng(0, i)) for i, (s, t) in enumerate(pairs)]
    trained = ModelWithLoss(net, objective.loss)
    parts = [packed(objective, [one], length_token=True) for one in made]
    one = dict.fromkeys(objective.loss.weights, 1.0)
    with torch.no_grad():
        sums = [trained(batch, one)[1] for batch in parts]
        for passes, row in ((1, None), (2, None), (1, 128)):
            whole = packed(objective, made, length_token=True, encoder_passes=passes, row=row)
            for term, value in trained(whole, one)[1].items():
                assert value.item() == pytest.approx(sum(s[term].item() for s in sums), rel=1e-9)
    whole = packed(objective, made, length_token=True)
    slope = gradients(trained, trained(whole, coefficients(objective.loss.weights, whole))[0])
    assert (slope["model.length_head.weight"][0] != 0).any()
    with pytest.raises(Refused, match="length_offset must be false"):
        model(length="token", length_offset=True)


@pytest.mark.slow
@pytest.mark.parametrize("positions", ["learned", "rotary_cross", "none"])
@pytest.mark.parametrize("kind", [IncrementalDecoder, GraphedDecoder])
def test_decoding_reads_the_length_as_training_does(kind, positions):
    """Lengths of ragged sources, words of all lengths tried, alone and in a batch."""
    objective = ready("cmlm", ends=True)
    bias = "t5" if positions == "none" and kind is IncrementalDecoder else ""
    net = model(length="token", positions=positions, position_bias=bias).eval()
    rng = np.random.default_rng(6)
    sources = [sentence(rng, n) for n in (3, 9, 5, 5)]
    made = [objective.example(s, s, sample_rng(0, i)) for i, s in enumerate(sources)]
    wanted = net(packed(objective, made, length_token=True))[1].log_softmax(-1)
    decoder = kind(net, objective)
    state = decoder.start(sources)
    assert torch.allclose(state.length_scores.double(), wanted, atol=1e-5)
    assert (state.length_scores[:, :2] == -torch.inf).all()
    together = mask_predict.decode(decoder, sources, SPECIAL, iterations=3)
    for source, output in zip(sources, together, strict=True):
        [alone] = mask_predict.decode(decoder, [source], SPECIAL, iterations=3)
        assert output.tokens.tolist() == alone.tokens.tolist()
        assert output.score == pytest.approx(alone.score, abs=1e-9)
    plain = model(positions=positions, position_bias=bias)
    plain.load_state_dict(net.state_dict())  # the same weights without a [LEN] row
    other = kind(plain.eval(), objective).start(sources)
    assert not torch.allclose(other.memory[0][0], state.memory[0][0])
    assert other.memory[0][0].shape == state.memory[0][0].shape
