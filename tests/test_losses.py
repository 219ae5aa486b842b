"""The fused loss against a plain, slow, by-the-formula computation in float64."""

import math

import numpy as np
import pytest
import torch

from januslm.config import Refused
from januslm.model import losses
from januslm.model.losses import LossGroup, fused
from januslm.objective import LossSettings, terms_of
from tests.samples import resolved

DISTRIBUTIONS = ("ar", "nar", "aux")


def slow(hidden, weight, loss_groups, scale, smoothing, detach) -> tuple[torch.Tensor, dict]:
    """Word by word and term by term, with autograd for the gradient."""
    sums = {name: hidden.new_zeros(()) for name in scale if name != "ce/length"}
    for name in sums:
        kind, _, names = name.partition("/")
        need = names.split("~")
        for loss_group in loss_groups:
            if not set(need) <= set(loss_group.distributions):
                continue
            for j, word in enumerate(loss_group.target.tolist()):
                logits = [
                    weight @ hidden[loss_group.rows[loss_group.distributions.index(s), j]]
                    for s in need
                ]
                p = [x.exp() / x.exp().sum() for x in logits]
                if kind == "ce":
                    even = -p[0].log().sum() / len(weight)
                    loss = -(1 - smoothing) * p[0][word].log() + smoothing * even
                else:
                    loss = symmetric(*p, detach)
                if loss_group.weight is not None:
                    at = [loss_group.distributions.index(s) for s in need]
                    loss = loss * loss_group.weight[at, j].prod()
                sums[name] = sums[name] + loss
    return sum(scale[name] * value for name, value in sums.items()), sums


def symmetric(a: torch.Tensor, b: torch.Tensor, detach: str) -> torch.Tensor:
    a = a.detach() if detach == "first" else a
    return ((a * (a / b).log()).sum() + (b * (b / a).log()).sum()) / 2


def groups_of(rng: np.random.Generator, weighted: bool) -> tuple[list[LossGroup], int]:
    """Groups of all kinds of distributions, of random lengths; how many rows they have."""
    kinds = [("ar",), DISTRIBUTIONS, ("nar", "aux"), ("ar", "aux")]
    loss_groups, rows = [], 0
    for kind in kinds:
        n = int(rng.integers(0, 5))
        at = torch.from_numpy(rows + rng.permutation(n * len(kind))).view(len(kind), n)
        weight = torch.from_numpy(rng.random((len(kind), n)) * 3) if weighted else None
        words = torch.from_numpy(rng.integers(0, 11, n))
        loss_groups.append(LossGroup(kind, at, words, weight))
        rows += n * len(kind)
    return loss_groups, rows


def inputs(rows: int) -> tuple[torch.Tensor, torch.Tensor]:
    hidden = torch.randn(rows, 6, dtype=torch.float64, requires_grad=True)
    return hidden, torch.randn(11, 6, dtype=torch.float64, requires_grad=True)


@pytest.mark.parametrize("chunk", [1, 4, 256])
def test_what_is_accepted_is_the_common_share_whatever_weighs_or_learns(chunk):
    """sum_v min(p_v, q_v), word by word; the loss beside it stays as it is, to the bit."""
    for seed in range(6):
        loss_groups, rows = groups_of(np.random.default_rng(seed), weighted=seed > 2)
        hidden, weight = inputs(rows)
        scale = {"ce/ar": 0.5, "kl/nar~aux": 2.0}
        both = scale | {"accept/ar~nar": 0.0, "accept/nar~aux": 0.0}
        alone, _ = fused(hidden, weight, loss_groups, scale, chunk=chunk)
        loss, sums = fused(hidden, weight, loss_groups, both, chunk=chunk)
        assert loss.item() == alone.item()
        for name in ("ar~nar", "nar~aux"):
            want = 0.0
            for group in loss_groups:
                if set(pair := name.split("~")) <= set(group.distributions):
                    at = [group.rows[group.distributions.index(one)] for one in pair]
                    p, q = ((hidden[rows] @ weight.T).softmax(-1) for rows in at)
                    want += torch.minimum(p, q).sum().item()
            assert float(sums[f"accept/{name}"]) == pytest.approx(want, abs=1e-12)
        with torch.no_grad():
            unlearnt = fused(hidden, weight, loss_groups, both, chunk=chunk)[1]
        assert all(torch.allclose(unlearnt[name], sums[name]) for name in both)


@pytest.mark.slow
@pytest.mark.parametrize("detach", ["none", "first"])
@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.7])
@pytest.mark.parametrize("chunk", [1, 4, 256])
def test_the_fused_loss_is_the_formula_with_its_gradient(chunk, smoothing, detach):
    for seed in range(6):
        rng = np.random.default_rng(seed)
        loss_groups, rows = groups_of(rng, weighted=seed > 2)
        names = [n for n in terms_of(DISTRIBUTIONS) if rng.random() < 0.6] or ["ce/nar"]
        scale = {name: float(rng.random() * 3) for name in names}
        given = inputs(rows)
        wanted, wanted_sums = slow(*given, loss_groups, scale, smoothing, detach)
        found, sums = fused(
            *given, loss_groups, scale, smoothing=smoothing, detach=detach, chunk=chunk
        )
        assert sums.keys() == wanted_sums.keys()
        assert torch.allclose(found, torch.as_tensor(wanted), atol=1e-10, rtol=1e-10)
        for name in sums:
            assert torch.allclose(sums[name], wanted_sums[name], atol=1e-10, rtol=1e-10), name
            assert not sums[name].requires_grad
        slopes = torch.autograd.grad(found * 1.7, given)
        if not isinstance(wanted, torch.Tensor) or not wanted.requires_grad:
            assert all((s == 0).all() for s in slopes)
            continue
        truth = torch.autograd.grad(wanted * 1.7, given, materialize_grads=True)
        for a, b in zip(slopes, truth, strict=True):
            assert torch.allclose(a, b, atol=1e-10, rtol=1e-9)


@pytest.mark.slow
def test_the_gradient_is_that_of_finite_differences():
    loss_groups, rows = groups_of(np.random.default_rng(11), weighted=True)
    scale = dict.fromkeys(["ce/ar", "ce/nar", "kl/ar~nar", "kl/nar~aux"], 0.7)

    def loss(hidden, weight):
        return fused(hidden, weight, loss_groups, scale, smoothing=0.1, chunk=3)[0]

    assert rows
    assert torch.autograd.gradcheck(loss, inputs(rows))


def kl(a: torch.Tensor, b: torch.Tensor, name: str) -> tuple[float, float]:
    """(value, largest gradient) of one KL term between rows with hidden states a and b."""
    hidden = torch.cat([a, b]).requires_grad_()
    loss_group = LossGroup(
        ("nar", "aux"), torch.arange(2 * len(a)).view(2, -1), torch.zeros(len(a)).long()
    )
    weight = torch.randn(11, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(5))
    loss, _ = fused(hidden, weight, [loss_group], {name: 1.0})
    loss.backward()
    return loss.item(), hidden.grad.abs().max().item()


def test_kl_is_zero_for_equal_streams_and_symmetric():
    a, b = torch.randn(2, 5, 6, dtype=torch.float64)
    value, slope = kl(a, a.clone(), "kl/nar~aux")
    assert abs(value) < 1e-12
    assert slope < 1e-12
    one = kl(a, b, "kl/nar~aux")
    assert one[0] > 0.01
    assert kl(b, a, "kl/nar~aux") == pytest.approx(one)
    assert kl(a, b, "kl/aux~nar") == pytest.approx(one)


def test_smoothed_cross_entropy_of_one_word_worked_out_by_hand():
    hidden, weight = torch.tensor([[1.0]]).double(), torch.tensor([[math.log(3.0)], [0.0]]).double()
    loss_group = LossGroup(("ar",), torch.tensor([[0]]), torch.tensor([0]))
    loss, sums = fused(hidden, weight, [loss_group], {"ce/ar": 2.0}, smoothing=0.2)
    nll, even = math.log(4 / 3), (math.log(4 / 3) + math.log(4)) / 2
    assert sums["ce/ar"].item() == pytest.approx(0.8 * nll + 0.2 * even)
    assert loss.item() == pytest.approx(2 * (0.8 * nll + 0.2 * even))


def test_a_float32_loss_is_as_good_as_float32_allows():
    loss_groups, rows = groups_of(np.random.default_rng(3), weighted=False)
    scale = dict.fromkeys(["ce/ar", "ce/aux", "kl/nar~aux"], 1.0)
    given = inputs(rows)
    exact = fused(*given, loss_groups, scale, smoothing=0.1)[0].item()
    rough = [x.detach().float().requires_grad_() for x in given]
    loss, _ = fused(*rough, loss_groups, scale, smoothing=0.1)
    loss.backward()
    assert loss.item() == pytest.approx(exact, rel=1e-5)
    assert loss.dtype == rough[1].grad.dtype == torch.float32


def test_bfloat16_states_still_give_a_softmax_in_float32():
    loss_groups, rows = groups_of(np.random.default_rng(3), weighted=False)
    given = [x.detach().bfloat16().requires_grad_() for x in inputs(rows)]
    loss, sums = fused(*given, loss_groups, {"ce/ar": 1.0, "kl/nar~aux": 1.0})
    loss.backward()
    assert loss.dtype == sums["ce/ar"].dtype == torch.float32
    assert given[0].grad.dtype == torch.bfloat16
    assert given[1].grad.isfinite().all()


def test_without_gradient_the_sums_are_the_same():
    loss_groups, rows = groups_of(np.random.default_rng(4), weighted=False)
    scale = dict.fromkeys(terms_of(DISTRIBUTIONS), 1.0)
    given = inputs(rows)
    _, sums = fused(*given, loss_groups, scale, smoothing=0.1)
    with torch.no_grad():
        loss, again = fused(*given, loss_groups, scale, smoothing=0.1)
    assert not loss.requires_grad
    assert all(torch.equal(sums[n], again[n]) for n in sums)


def test_counts_are_words_that_all_streams_of_a_term_predict():
    loss_groups = [
        LossGroup(("ar",), torch.zeros(1, 3).long(), torch.zeros(3).long()),
        LossGroup(DISTRIBUTIONS, torch.zeros(3, 2).long(), torch.zeros(2).long()),
    ]
    weights = dict.fromkeys(["ce/ar", "ce/nar", "kl/ar~aux"], 1.0)
    assert {n: losses.counts(loss_groups, weights, examples=9)[n] for n in weights} == {
        "ce/ar": 5,
        "ce/nar": 2,
        "kl/ar~aux": 2,
    }


def test_a_weight_for_a_term_that_does_not_exist_is_refused():
    with pytest.raises(Refused) as error:
        resolved("ar", loss=LossSettings(weights={"ce/aar": 1.0}))
    assert str(error.value).startswith("run.toml: loss.weights: no loss term 'ce/aar'; there are ")
    assert str(error.value).endswith("Did you mean 'ce/ar'?")


def test_a_negative_weight_is_refused():
    with pytest.raises(Refused) as error:
        resolved("ar", loss=LossSettings(weights={"ce/ar": -1.0}))
    wanted = "run.toml: loss.weights: the weight of ce/ar must be at least 0, got -1.0"
    assert str(error.value) == wanted


def test_kl_rises_and_cross_entropies_do_not():
    weights = {"ce/ar": 1.0, "ce/nar": 0.5, "kl/ar~aux": 3.0}
    loss = resolved("janus", loss=LossSettings(weights=weights, rise=(10, 14))).loss
    grown = [loss.at(n)["kl/ar~aux"] for n in (1, 10, 11, 12, 13, 14, 99)]
    assert grown == [0, 0, 0.75, 1.5, 2.25, 3, 3]
    for step in range(1, 20):
        assert {n: w for n, w in loss.at(step).items() if n[:2] == "ce"} == {
            "ce/ar": 1.0,
            "ce/nar": 0.5,
        }
    at_once = resolved("janus", loss=LossSettings(weights=weights)).loss
    assert at_once.at(1) == at_once.at(10**6) == weights


def test_a_rise_that_ends_before_it_begins_is_refused():
    with pytest.raises(Refused) as error:
        LossSettings(rise=(9, 3))
    assert str(error.value) == "rise must be two updates, the first not later, got [9, 3]"
