"""Writing in any order against plain passes without caches, and against the training pass."""

import numpy as np
import pytest
import torch

from januslm.config import Refused
from januslm.decoding import any_order
from januslm.inference.cuda_graphs import GraphedDecoder
from januslm.inference.incremental import IncrementalDecoder
from januslm.layout import Example
from tests.plain_model import run
from tests.samples import SPECIAL, model, resolved, sentence
from tests.test_relatives import by_word

CASES = {"janus": {"free": True}, "mpnet": {}, "xlnet": {}}
NO_WORDS = [SPECIAL.bos, SPECIAL.pad, SPECIAL.eos, SPECIAL.unk, SPECIAL.mask]


def by_formula(net, name: str, memory, length: int, written: list, place: int) -> torch.Tensor:
    """log p [V] of the word at `place` after (place, word) of `written`: one plain pass.

    Slots in a row: BOS and EOS; MPNet's and JANUS' masks of all places between; the words that are
    written, each of which reads those up to itself and the masks of all later places; the query.
    """
    masks = [] if name == "xlnet" else list(range(1, length - 1))
    query = SPECIAL.vocabulary if name == "xlnet" else SPECIAL.mask
    slots = [(SPECIAL.bos, 0, "given", 0), (SPECIAL.eos, length - 1, "given", 0)]
    slots += [(SPECIAL.mask, at, "mask", 0) for at in masks]
    slots += [(word, at, "word", n) for n, (at, word) in enumerate(written, 1)]
    slots += [(query, place, "query", len(written) + 1)]
    when = {at: n for n, (at, _) in enumerate(written, 1)}

    def sees(reader, key) -> bool:
        _, _, role, turn = reader
        _, at, kind, its_turn = key
        if kind == "given":
            return True
        if role in ("given", "mask"):
            return kind == "mask"
        if kind == "mask":  # a word that is read stands in the place of its mask
            last = turn if role == "word" else turn - 1
            return when.get(at, len(written) + 1) > last
        return kind == "word" and (its_turn < turn or (its_turn == turn and role == "word"))

    token, position = (torch.tensor([slot[i] for slot in slots]) for i in (0, 1))
    seen = torch.tensor([[sees(reader, key) for key in slots] for reader in slots])
    hidden = run(net, net.decoder, token, position, seen, memory)
    return (hidden[-1] @ net.embedding.weight[: net.config.vocabulary].T).log_softmax(-1)


def plain(net, name: str, source, order: str, words: int, holes: list, length: int):
    """Text, score and passes by the description; `holes` in their order for a given one."""
    every = torch.ones(len(source), len(source), dtype=torch.bool)
    own = torch.arange(len(source))
    memory = run(net, net.encoder, torch.from_numpy(source), own, every)
    written, score, passes = [], 0.0, 0
    while len(written) < length - 2:
        left = [at for at in holes if at not in dict(written)]
        found = []
        for at in left if order == "certain" else left[:words]:
            log_p = by_formula(net, name, memory, length, written, at)
            log_p[NO_WORDS] = -torch.inf
            found.append((float(log_p.max()), at, int(log_p.argmax())))
        if order == "certain":
            found.sort(key=lambda one: -one[0])
        for value, at, word in found[:words]:
            score += value
            written.append((at, word))
        passes += 1
    return [word for _, word in sorted(written)], score / len(written), passes


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
@torch.no_grad()
def test_each_order_writes_what_plain_passes_write(name):
    """24 batches of ragged sentences: words, score and passes of every order, growing and fixed."""
    torch.manual_seed(3)
    objective = resolved(name, **CASES[name])
    net = model(objective, max_length=10).eval()  # short texts: a plain pass for every word
    lengths_seen, random_orders = set(), set()
    for seed in range(8):
        rng = np.random.default_rng(seed)
        sources = [sentence(rng, int(n)) for n in rng.integers(3, 9, 4)]
        kind = GraphedDecoder if seed % 4 == 3 else IncrementalDecoder
        decoder = kind(net, objective)
        scores = decoder.start(sources).length_scores
        lengths = [int(row[3:].argmax()) + 3 for row in scores]
        words = 1 + seed % 3
        for order in ("certain", "left", "random"):
            made = any_order.decode(decoder, sources, SPECIAL, order=order, words=words, seed=seed)
            for source, length, output in zip(sources, lengths, made, strict=True):
                holes = any_order.ordered(order, np.arange(1, length - 1), seed, source, length)
                text, score, passes = plain(net, name, source, order, words, holes, length)
                assert output.tokens.tolist() == text, (seed, order)
                assert output.score == pytest.approx(score, abs=1e-9)
                assert output.passes == passes == -(-(length - 2) // words)
                lengths_seen.add(length)
                random_orders.add((order, tuple(holes)))
    assert len(lengths_seen) > 1
    assert len({holes for order, holes in random_orders if order == "random"}) > 5


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("positions", ["learned", "rotary", "none t5"])
@torch.no_grad()
def test_the_score_is_what_training_gives_the_words_in_that_order(name, positions):
    """log p of the packed training pass, whose random order is the one that was written."""
    objective = resolved(name, **CASES[name], **({"masked": 1.0} if name == "mpnet" else {}))
    positions, _, bias = positions.partition(" ")
    net = model(objective, positions=positions, position_bias=bias, max_length=6).eval()
    rng = np.random.default_rng(5)
    sources = [sentence(rng, int(n)) for n in rng.integers(3, 9, 40)]
    made = any_order.decode(IncrementalDecoder(net, objective), sources, SPECIAL, order="random")
    compared = 0
    for source, output in zip(sources, made, strict=True):
        target = np.concatenate([[SPECIAL.bos], output.tokens, [SPECIAL.eos]])
        if len(set(target.tolist())) < len(target):
            continue  # by_word tells words apart by themselves
        hidden = np.ones(len(target), bool)
        hidden[[0, -1]] = False
        order = any_order.ordered("random", np.flatnonzero(hidden), 0, source, len(target))
        layout = objective.layout(target, hidden, Written(order))
        logits = by_word(net, objective, Example(source, target, layout), "aux")
        values = [float(logits[int(w)].log_softmax(-1)[int(w)]) for w in output.tokens]
        assert output.score == pytest.approx(np.mean(values), abs=1e-9)
        compared += 1
    assert compared


class Written:
    """A random stream that draws one order: of the holes, or of all places of an XLNet."""

    def __init__(self, order: list[int]):
        self.order = order

    def permutation(self, what):
        if isinstance(what, np.ndarray):  # MPNet's: the holes in their order
            return np.array(self.order)
        ranks = np.empty(len(self.order), int)
        ranks[np.array(self.order) - 1] = np.arange(len(self.order))
        if what == len(self.order):  # JANUS': the rank of each hole
            return ranks
        return np.concatenate([[what - 2], ranks, [what - 1]])  # XLNet's: of each place

    def random(self, size):
        return np.zeros(size)

    def integers(self, high, size):
        return np.zeros(size, int)


def test_lengths_side_by_side_are_ranked_and_the_best_is_first():
    objective = resolved("xlnet")
    net = model(objective).eval()
    rng = np.random.default_rng(1)
    sources = [sentence(rng, n) for n in (4, 7)]
    decoder = IncrementalDecoder(net, objective)
    scores = decoder.start(sources).length_scores
    for row, output in zip(
        scores, any_order.decode(decoder, sources, SPECIAL, length_beam=4), strict=True
    ):
        texts = [output, *output.others]
        assert sorted(len(o.tokens) for o in texts) == sorted(row[3:].topk(4)[1] + 1)
        assert [o.score for o in texts] == sorted((o.score for o in texts), reverse=True)


def test_one_order_alone_is_refused():
    objective = resolved("janus")
    with pytest.raises(Refused, match="cannot write or rescore any order; it can beam"):
        any_order.decode(IncrementalDecoder(model(), objective), [], SPECIAL)
    assert resolved("janus", free=True).any_order is not None
