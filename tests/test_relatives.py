"""BERT, XLNet and ProphetNet against their descriptions, computed without layouts or packing."""

import numpy as np
import pytest
import torch

from januslm.data.sampler import sample_rng
from januslm.decoding import beam, greedy
from januslm.inference.cuda_graphs import GraphedDecoder
from januslm.inference.incremental import IncrementalDecoder
from januslm.layout import NONE, Example
from januslm.model.joint_loss import ModelWithLoss
from januslm.objectives import block, prophetnet, xlnet
from tests.plain_model import decoded
from tests.samples import (
    ROOM,
    SPECIAL,
    coefficients,
    model,
    packed,
    resolved,
    sentence,
    target_slots,
)

MASKED = {"mlm": "nar", "xlnet": "aux"}


def log_p(net, source, token, position, seen) -> torch.Tensor:
    """[S, V] of decoder slots that read each other as bool [S, S] says."""
    hidden = decoded(net, source, token, position, seen)
    return (hidden @ net.embedding.weight[: net.config.vocabulary].T).log_softmax(-1)


def mlm(net, objective, example, target):
    """One row a word; each reads all.  (log p, position) of those that are predicted."""
    slots = target_slots(example)
    stands = target.copy()
    hidden = slots.position[slots.stream == 0]
    stands[hidden] = slots.token[slots.stream == 0]
    every = np.ones((len(target), len(target)), bool)
    found = log_p(net, example.source, stands, np.arange(len(target)), every)
    return {"ar": {}, "nar": {p: found[p] for p in hidden}}


def two_streams(net, objective, example, target):
    """XLNet's h and g of every word, from the factorization order alone (its equations 3 and 4).

    h of a word reads the words up to it in the order, g the words before it; words that are not
    predicted come first, and know of each other alone.
    """
    slots, size = target_slots(example), len(target)
    order = np.full(size, -1)
    queries = slots.stream == xlnet.QUERY
    order[slots.position[queries]] = slots.rank[queries]
    h = [[order[j] == -1 or order[j] <= order[i] for j in range(size)] for i in range(size)]
    g = [[order[j] == -1 or order[j] < order[i] for j in range(size)] for i in range(size)]
    seen = np.block([[np.array(h), np.zeros((size, size), bool)], [np.array(g), np.eye(size) > 2]])
    token = np.concatenate([target, np.full(size, SPECIAL.vocabulary)])
    found = log_p(net, example.source, token, np.tile(np.arange(size), 2), seen)
    return {"aux": {p: found[size + p] for p in np.flatnonzero(order >= 0)}}


def ahead(net, objective, example, target):
    """ProphetNet's predicting streams: the n-th asks for word t with the words up to t - n."""
    size, most = len(target), objective.options["ahead"]
    found = {}
    for n in range(1, most + 1):
        asked = range(n, size)
        token = [*target[:-1], *(SPECIAL.vocabulary + n - 1 for _ in asked)]
        place = [*range(size - 1), *asked]
        seen = np.zeros((len(token), len(token)), bool)
        for i in range(size - 1):
            seen[i, : i + 1] = True
        for row, t in enumerate(asked, size - 1):
            seen[row, : t - n + 1] = seen[row, row] = True
        rows = log_p(net, example.source, token, place, seen)[size - 1 :]
        found["ar" if n == 1 else f"ahead{n}"] = dict(zip(asked, rows, strict=True))
    return found


OWN = {"prophetnet": "prophetnet", "xlnet": "xlnet"}  # their published position biases
FORMULAS = {"mlm": mlm, "xlnet": two_streams, "prophetnet": ahead}


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.parametrize("name", FORMULAS)
def test_every_log_p_and_the_loss_are_those_of_the_description(name):
    """200 random cases each, ragged, from one word to twenty, on pairs and on plain text; by turns
    beside an encoder and in one stack."""
    for seed in range(200):
        rng = np.random.default_rng(seed)
        options = {"ahead": int(rng.integers(1, 5))} if name == "prophetnet" else {}
        shape = ROOM if seed // 2 % 2 else None
        preset = "nmt" if seed % 2 or (name == "prophetnet" and shape is None) else "pretrain"
        objective = resolved(name, preset, source_room=shape, **options)
        net = model(objective, position_bias=OWN.get(name, "") if seed % 3 else "")
        target = sentence(rng, int(rng.integers(3, 23)))
        source = sentence(rng, int(rng.integers(3, 9))) if preset == "nmt" else None
        example = objective.example(source, target, sample_rng(1, seed))
        wanted = FORMULAS[name](net, objective, example, target)
        batch = packed(objective, [example])
        total, smooth = 0.0, objective.loss.smoothing
        for distribution, by_place in wanted.items():
            if not by_place:
                continue
            found = by_word(net, objective, example, distribution)
            assert {int(target[place]) for place in by_place} == found.keys(), seed
            for place, row in by_place.items():
                made = found[int(target[place])].log_softmax(-1)
                assert torch.allclose(made, row, atol=1e-9, rtol=0), seed
            terms = [
                (1 - smooth) * -row[target[place]] + smooth * -row.mean()
                for place, row in by_place.items()
            ]
            total += (
                objective.loss.weights[f"ce/{distribution}"]
                * float(sum(terms).detach())
                / len(terms)
            )
        scale = coefficients(objective.loss.weights, batch)
        loss, _ = ModelWithLoss(net, objective.loss)(batch, scale)
        assert loss.item() == pytest.approx(total, rel=1e-9), seed


def test_bert_masks_replaces_and_keeps_as_published():
    """15 % of the words; 80 % are masked, 10 % replaced, 10 % kept."""
    objective, shares = resolved("mlm", "pretrain"), np.zeros(3)
    target = sentence(np.random.default_rng(0), 42)
    for seed in range(1500):
        slots = objective.example(None, target, sample_rng(4, seed)).layout.slots
        masks = slots[slots.stream == 0]
        assert len(masks) == 6
        assert (masks.goal == masks.position).all()
        word = target[masks.position]
        masked, kept = masks.token == SPECIAL.mask, masks.token == word
        shares += masked.sum(), (~masked & ~kept).sum(), kept.sum()
    assert shares / shares.sum() == pytest.approx([0.8, 0.1, 0.1], abs=0.01)


@pytest.mark.slow
@pytest.mark.parametrize("chunk", [0, 1, 4, 7])
def test_chunks_come_one_after_another_in_one_order(chunk):
    """rank(c * chunk + k) = c * chunk + order(k), which all chunks share."""
    target, hidden = sentence(np.random.default_rng(0), 30), np.ones(30, bool)
    orders = set()
    for seed in range(20):
        slots = resolved("xlnet", chunk=chunk).layout(target, hidden, sample_rng(1, seed)).slots
        rank = slots.rank[slots.stream == xlnet.QUERY]
        size = chunk or 30
        assert (rank // size == np.arange(30) // size).all()
        first = rank[:size] % size
        assert sorted(first) == list(range(size))
        assert all((rank[c : c + size] % size == first[: 30 - c]).all() for c in range(0, 30, size))
        orders.add(tuple(first))
    assert len(orders) > (1 if chunk == 1 else 10) - (chunk == 1)


def test_words_ahead_are_asked_for_inside_a_run_alone():
    """Pretraining: the decoder has the words of the hidden runs, and the word before each."""
    objective = resolved("prophetnet", "pretrain", ahead=3)
    target, hidden = sentence(np.random.default_rng(0), 12), np.zeros(12, bool)
    hidden[[2, 3, 4, 5, 8, 9]] = True
    slots = objective.layout(target, hidden, sample_rng(1, 1)).slots
    goals = [slots.goal[slots.stream == n].tolist() for n in range(4)]
    assert goals == [[NONE] * 6, [2, 3, 4, 5, 8, 9], [3, 4, 5, 9], [4, 5]]
    assert slots.position[slots.stream == 0].tolist() == [1, 2, 3, 4, 7, 8]


def by_word(net, objective, example, distribution: str) -> dict[int, torch.Tensor]:
    """The training pass' logits [V] for each word that a distribution is asked for."""
    batch = packed(objective, [example])
    hidden, _ = net(batch)
    found: dict[int, torch.Tensor] = {}
    for group in batch.loss_groups:
        if distribution in group.distributions:
            rows = group.rows[group.distributions.index(distribution)]
            logits = hidden[rows] @ net.vocabulary_weight().T
            found |= dict(zip(group.target.tolist(), logits, strict=True))
    return found


def written(name: str = "prophetnet", **config):
    objective = resolved(name)
    net = model(objective, **config).eval()
    rng = np.random.default_rng(2)
    return net, objective, [sentence(rng, int(n)) for n in (3, 7, 4, 5)]


@pytest.mark.slow
@pytest.mark.parametrize(
    "config",
    [
        {},
        {"norm": "pre", "positions": "rotary"},
        {"positions": "none", "position_bias": "t5"},
        {"positions": "sinusoidal", "tied": False},
    ],
)
def test_cached_logits_are_those_of_the_training_pass(config):
    """The asking vector stands behind the last word and reads itself, in caches as in training."""
    net, objective, sources = written(**config)
    rng = np.random.default_rng(3)
    targets = [sentence(rng, 8) for _ in sources]
    made = [
        Example(s, t, objective.layout(t, np.zeros(8, bool), rng))
        for s, t in zip(sources, targets, strict=True)
    ]
    kinds = (IncrementalDecoder, *([] if "position_bias" in config else [GraphedDecoder]))
    for decoder in (kind(net, objective) for kind in kinds):
        state = decoder.start(sources)
        steps = [decoder.step(state)]
        for t in range(1, 4):
            steps.append(decoder.step(state, torch.tensor([[y[t]] for y in targets])))
        run_of = torch.tensor(np.array([y[4:7] for y in targets]))[:, None]
        found = torch.cat([*steps, decoder.block(state, run_of)[:, 0]], 1)
        for row, example in zip(found, made, strict=True):
            wanted = by_word(net, objective, example, "ar")
            for t, logits in enumerate(row, 1):
                word = int(example.target[t])
                assert torch.allclose(logits, wanted[word], atol=1e-9, rtol=0), t


@pytest.mark.parametrize("search", [greedy, beam])
def test_batches_beams_and_captured_passes_write_the_same(search):
    net, objective, sources = written()
    given = {"max_length": 9} | ({"beam": 3, "n_best": 2} if search is beam else {})
    decoder = IncrementalDecoder(net, objective)
    together = search.decode(decoder, sources, SPECIAL, **given)
    alone = [search.decode(decoder, [s], SPECIAL, **given)[0] for s in sources]
    graphed = search.decode(GraphedDecoder(net, objective), sources, SPECIAL, **given)
    for a, b, c in zip(together, alone, graphed, strict=True):
        assert a.tokens.tolist() == b.tokens.tolist() == c.tokens.tolist()
        assert a.score == pytest.approx(b.score, abs=1e-9)
        assert a.score == pytest.approx(c.score, abs=1e-9)


@pytest.mark.slow
def test_a_block_of_one_is_one_word_ahead():
    """AR: each mask reads the words before it and itself; so does ProphetNet's `next`."""
    one, ahead = resolved("block", size=1), resolved("prophetnet", ahead=1)
    net = model(ahead)
    with torch.no_grad():
        net.embedding.weight[SPECIAL.vocabulary] = net.embedding.weight[SPECIAL.mask]
    for seed in range(20):
        rng = np.random.default_rng(seed)
        target, source = sentence(rng, int(rng.integers(3, 15))), sentence(rng, 5)
        made = {}
        for objective, name in ((one, "nar"), (ahead, "ar")):
            layout = objective.layout(target, np.zeros(len(target), bool), rng)
            made[name] = by_word(net, objective, Example(source, target, layout), name)
        assert made["ar"].keys() == made["nar"].keys() == set(target[1:].tolist())
        for word, logits in made["ar"].items():
            assert torch.allclose(logits, made["nar"][word], atol=1e-9, rtol=0), seed


@pytest.mark.slow
def test_one_block_with_given_words_is_cmlm_behind_a_bos():
    """The same masks, words and goals; all read all, and the BOS."""
    cmlm, size = resolved("cmlm"), 40
    compared = 0
    for seed in range(60):
        rng = np.random.default_rng(seed)
        target = sentence(rng, int(rng.integers(3, 15)))
        made = resolved("block", size=size, given=True).layout(
            target, np.zeros(len(target), bool), rng
        )
        slots = made.slots
        filling = (slots.stream != block.PAST) & (slots.position < len(target))
        if len(set(slots.rank[slots.stream != block.PAST])) > 1:
            continue  # the offset has cut it in two
        hidden = np.zeros(len(target), bool)
        hidden[slots.goal[(slots.stream == block.MASK) & (slots.goal != NONE)]] = True
        want = cmlm.layout(target, hidden, rng).slots
        for field in ("token", "position", "goal"):
            assert (getattr(slots[filling], field) == getattr(want, field)).all()
        seen = made.visible()
        assert seen[np.ix_(filling, filling)].all()
        before = (slots.stream == block.PAST) & (slots.position == 0)
        assert seen[np.ix_(filling, before)].all()
        assert not seen[np.ix_(filling, (slots.stream == block.PAST) & ~before)].any()
        compared += 1
    assert compared > 20


def test_prophetnet_has_as_many_vectors_as_streams():
    assert len(prophetnet.STREAMS) == 1 + prophetnet.EXTRA_VECTORS
