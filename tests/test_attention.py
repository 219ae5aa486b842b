"""Both plans let through what the rule allows and compute plain masked attention with it."""

import numpy as np
import pytest
import torch
from torch.nn.attention.flex_attention import create_mask

from januslm import registry
from januslm.layout import Rule
from januslm.model.attention import FEW, PADDING, Codes, Flex, Side, allowed, attend, dense
from januslm.model.config import ModelConfig
from januslm.model.position_bias import prophetnet, t5
from januslm.model.score_bias import Bias
from tests.samples import OBJECTIVES

H, D = 2, 8
RULES = {name: registry.find("januslm.objectives", name).RULE for name in OBJECTIVES}
RULES |= {f"{name} behind a source": rule.behind_source for name, rule in RULES.items()}
RULES["own rank"] = Rule(("a", "b"), lambda q, k: (k.rank <= q.rank) & (k.stream <= q.stream), {})


def plain(q, k, v, seen) -> torch.Tensor:
    """Softmax attention by the formula; q: [Q, H, d], seen: bool [Q, K]."""
    scores = torch.einsum("qhd,khd->hqk", q, k) / q.shape[-1] ** 0.5
    scores = scores.masked_fill(~torch.from_numpy(seen), -torch.inf)
    return torch.einsum("hqk,khd->qhd", scores.softmax(-1), v)


def sides(rng, rule: Rule | None, groups: int, most: int, asking: float = 1.0):
    """Random groups of which no reader is blind, as layouts have it."""
    queries, keys = [], []
    for group in range(groups):
        size = int(rng.integers(1, most + 1))
        if rule is not None:
            stream = rng.integers(0, len(rule.streams), size)
            rank = rng.integers(-1, most, size)
            own = Codes(stream, rank)
            seen = rule.sees(
                Codes(stream[:, None], rank[:, None]), Codes(stream[None], rank[None])
            ) & np.ones((size, size), bool)
            if not seen.any(1).all():  # a reader without anything to read is no layout
                stream[:], rank[:] = 0, np.arange(size)
                own = Codes(stream, rank)
        else:
            own = None
        kept = rng.random(size) < asking
        one = Side(np.full(size, group), own)
        keys.append(one)
        if kept.any():
            queries.append(one[np.flatnonzero(kept)])

    def joined(parts: list[Side]) -> Side:
        codes = rule and Codes(
            np.concatenate([p.codes.stream for p in parts]),
            np.concatenate([p.codes.rank for p in parts]),
        )
        return Side(np.concatenate([p.group for p in parts]), codes)

    return joined(queries), joined(keys)


def tensors(queries: Side, keys: Side) -> list[torch.Tensor]:
    sizes = len(queries.group), len(keys.group), len(keys.group)
    return [torch.randn(n, H, D, dtype=torch.float64, requires_grad=True) for n in sizes]


@pytest.mark.slow
@pytest.mark.parametrize("waste", [1.0, 1.4, 100.0])
@pytest.mark.parametrize("name", [None, *RULES])
def test_dense_is_plain_masked_attention_with_its_gradient(name, waste):
    rule = RULES.get(name)
    for seed, asking in ((0, 1.0), (1, 0.5), (2, 0.15)):
        rng = np.random.default_rng(seed)
        queries, keys = sides(rng, rule, groups=9, most=40, asking=asking)
        inputs = tensors(queries, keys)
        wanted = plain(*inputs, allowed(queries, keys, rule))
        found = dense(queries, keys, rule, waste)(*inputs)
        assert torch.allclose(found, wanted, atol=1e-10, rtol=0)
        pull = torch.randn_like(wanted)
        for a, b in zip(
            torch.autograd.grad((found * pull).sum(), inputs),
            torch.autograd.grad((wanted * pull).sum(), inputs),
            strict=True,
        ):
            assert torch.allclose(a, b, atol=1e-10, rtol=0)


def biases(count: int, rng, every: bool) -> Bias:
    """A bias of T5's kind, or (`every`) one that depends on the query as ProphetNet's does."""
    shape = (count if every else 1, H, 7)
    values = torch.from_numpy(rng.normal(size=shape)).requires_grad_()
    place = torch.from_numpy(rng.integers(0, 30, count))
    return Bias(values, lambda distance: distance.clamp(-3, 3) + 3, place, place)


def biased(q, k, v, seen, bias: Bias) -> torch.Tensor:
    """As `plain`, with the bias added score by score."""
    scores = torch.einsum("qhd,khd->hqk", q, k) / q.shape[-1] ** 0.5
    rows = []
    for i in range(len(q)):
        far = (bias.key_position - bias.query_position[i]).clamp(-3, 3) + 3
        values = bias.values[i if len(bias.values) > 1 else 0]
        rows.append(values[:, far])
    scores = scores + torch.stack(rows, 1)
    scores = scores.masked_fill(~torch.from_numpy(seen), -torch.inf)
    return torch.einsum("hqk,khd->qhd", scores.softmax(-1), v)


@pytest.mark.parametrize("every", [False, True])
@pytest.mark.parametrize("name", [None, "janus"])
def test_a_bias_is_added_to_the_scores_with_its_gradient(name, every):
    rule, rng = RULES.get(name), np.random.default_rng(5)
    queries, keys = sides(rng, rule, groups=6, most=30)
    inputs, bias = tensors(queries, keys), biases(len(queries.group), rng, every)
    wanted = biased(*inputs, allowed(queries, keys, rule), bias)
    found = dense(queries, keys, rule)(*inputs, 0.0, bias)
    assert torch.allclose(found, wanted, atol=1e-10, rtol=0)
    pull, learnt = torch.randn_like(wanted), [*inputs, bias.values]
    for a, b in zip(
        torch.autograd.grad((found * pull).sum(), learnt),
        torch.autograd.grad((wanted * pull).sum(), learnt),
        strict=True,
    ):
        assert torch.allclose(a, b, atol=1e-10, rtol=0)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
@pytest.mark.parametrize("every", [False, True])
def test_flex_adds_the_same_bias(every):
    rng, count, length = np.random.default_rng(6), 2, 128
    queries, keys = rows(rng, None, count, length)
    q, k, v = (x.detach().float() for x in tensors(queries, keys))
    bias = biases(count * length, rng, every)
    bias = Bias(bias.values.detach().float(), bias.bucket, bias.query_position, bias.key_position)
    found = Flex(queries, keys, None, count)(q, k, v, 0.0, bias)
    real = np.flatnonzero(queries.group != PADDING)
    wanted = biased(q, k, v, allowed(queries, keys, None) | np.eye(len(q), dtype=bool), bias)
    assert torch.allclose(found[real], wanted[real], atol=1e-5)


def test_t5_buckets_are_the_published_formula():
    """transformers' T5Attention, bidirectional: the table is checked place by place."""
    oracle = pytest.importorskip("transformers.models.t5.modeling_t5").T5Attention
    distance = torch.arange(-300, 301)
    ours = t5.PositionBias(ModelConfig(vocabulary=8), layers=2).bucket(distance)
    theirs = oracle._relative_position_bucket(distance, True, t5.BUCKETS, t5.FAR)
    assert (ours == theirs).all()


def test_prophetnets_buckets_are_the_published_formula():
    """transformers' port of them, which knows one direction as well."""
    oracle = pytest.importorskip("transformers.models.prophetnet.modeling_prophetnet")
    distance = torch.arange(-300, 301)
    ours = prophetnet.PositionBias(ModelConfig(vocabulary=8), layers=2).bucket(distance)
    theirs = oracle.compute_relative_buckets(prophetnet.BUCKETS, prophetnet.FAR, distance)
    assert (ours == theirs).all()


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_buckets_waste_no_more_than_asked(seed):
    queries, keys = sides(np.random.default_rng(seed), None, groups=200, most=90)
    small = 1 << 14
    real = allowed(queries, keys, None).sum()
    for waste in (1.05, 1.4, 2.0):
        areas = [np.prod(b.shape) for b in dense(queries, keys, None, waste).buckets]
        assert sum(a for a in areas if a > small) <= waste * real
    assert len(dense(queries, keys, None, 1e9).buckets) == 1


def rows(rng, rule: Rule | None, count: int, length: int) -> tuple[Side, Side]:
    """`count` rows of `length` places, the last of each row padding."""
    parts = [sides(rng, rule, groups=4, most=length // 5) for _ in range(count)]

    def laid(part: int) -> Side:
        group = np.full((count, length), PADDING)
        stream, rank = np.zeros((count, length), np.int64), np.full((count, length), -1)
        for row, both in enumerate(parts):
            side = both[part]
            size = len(side.group)
            group[row, :size] = side.group + 4 * row
            if rule:
                stream[row, :size], rank[row, :size] = side.codes.stream, side.codes.rank
        codes = Codes(stream.ravel(), rank.ravel()) if rule else None
        return Side(group.ravel(), codes)

    return laid(0), laid(1)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
@pytest.mark.parametrize("name", [None, "janus"])  # eager FlexAttention is slow; masks are below
def test_flex_equals_dense(name):
    rule, count, length = RULES.get(name), 2, 128
    queries, keys = rows(np.random.default_rng(0), rule, count, length)
    q, k, v = (x.detach().float() for x in tensors(queries, keys))
    plan = Flex(queries, keys, rule, count)
    found = plan(q, k, v)
    asks, reads = (np.flatnonzero(side.group != PADDING) for side in (queries, keys))
    wanted = dense(queries[asks], keys[reads], rule)(q[asks], k[reads], v[reads])
    assert torch.allclose(found[asks], wanted, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("name", [None, *RULES])
def test_the_block_mask_is_what_the_rule_allows(name):
    rule, count, length = RULES.get(name), 3, 128
    queries, keys = rows(np.random.default_rng(1), rule, count, length)
    plan = Flex(queries, keys, rule, count)
    mask = plan.masked(torch.device("cpu"))
    masks = create_mask(mask.mask_mod, count, 1, length, length, device="cpu")[:, 0]
    wanted = allowed(queries, keys, rule).reshape(count, length, count, length)
    for row in range(count):
        assert (masks[row].numpy() == wanted[row, :, row]).all()
    wanted[np.arange(count), :, np.arange(count)] = False
    assert not wanted.any(), "a place reads another row"


def test_flex_refuses_attention_dropout():
    queries, keys = rows(np.random.default_rng(1), None, 1, 128)
    with pytest.raises(AssertionError, match="attention_dropout = 0"):
        Flex(queries, keys, None, 1)(*tensors(queries, keys), dropout=0.1)


@pytest.mark.parametrize("keys", [1, 7, FEW, FEW + 1])
@pytest.mark.parametrize("masked", [False, True])
def test_few_keys_and_many_give_the_same_products(keys, masked):
    shape = dict(dtype=torch.float64, requires_grad=True)
    q, k, v = (torch.randn(3, H, n, D, **shape) for n in (5, keys, keys))
    mask = torch.rand(3, 1, 5, keys) < 0.5 if masked else torch.ones(3, 1, 5, keys).bool()
    mask[..., 0] = True
    scores = torch.einsum("ghqd,ghkd->ghqk", q, k) / D**0.5
    want = scores.masked_fill(~mask, -torch.inf).softmax(-1) @ v
    got = attend(q, k, v, mask if masked else None)
    torch.testing.assert_close(got, want)
    grads = (torch.autograd.grad(x.sum(), (q, k, v)) for x in (got, want))
    for one, other in zip(*grads, strict=True):
        torch.testing.assert_close(one, other, atol=1e-12, rtol=1e-9)
