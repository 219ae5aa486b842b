"""What published code does while it decodes, in plain words, and how ours gives the same."""

import itertools
import math

import numpy as np
import pytest
import torch

from januslm.decoding import beam, greedy, mask_predict
from januslm.inference.incremental import IncrementalDecoder
from tests.test_decoding import SOURCES, SPECIAL, Table, log_p
from tests.test_incremental import V, built, sentence


class TwiceCached:
    """One layer's self-attention of a content row and its query row, each of which caches."""

    def __init__(self):
        self.keys, self.values = [], []

    def __call__(self, q, k, v, dropout=0.0, bias=None):
        """q [2, H, d], content then query; k, v [1, H, d] of the content row."""
        answers = []
        for one in q:
            self.keys.append(k[0])  # the published code: the query's call caches once more
            self.values.append(v[0])
            keys, values = torch.stack(self.keys), torch.stack(self.values)
            weights = torch.einsum("hd,nhd->hn", one, keys) / one.shape[-1] ** 0.5
            answers.append(torch.einsum("hn,nhd->hd", weights.softmax(-1), values))
        return torch.stack(answers)


class TwiceRead(IncrementalDecoder):
    """Our decoder, reading as JANUS' published code does while it writes word by word.

    That code caches every past slot twice, so that one weighs each word before it two to one
    against itself; `next` slots read everything twice, which changes nothing.  A key that is there
    twice weighs as if log 2 were added to its score.
    """

    def _layers(self, state, tokens, place, keys, rows, masks):
        size = len(keys)  # so many past slots, then as many `next` slots
        assert tokens.shape[1] == 2 * size, "only `next` slots cache twice in the published code"
        extra = self.model.embedding.weight.new_zeros(2 * size, state.used + size)
        extra[:size] = math.log(2)
        own = torch.arange(size, device=extra.device)
        extra[own, state.used + own] = 0
        inner = extra[None, None] if masks[0] is None else masks[0] + extra
        return super()._layers(state, tokens, place, keys, rows, (inner, masks[1]))


def plain(q, k, v, dropout=0.0, bias=None):
    weights = torch.einsum("qhd,nhd->qhn", q, k) / q.shape[-1] ** 0.5
    return torch.einsum("qhn,nhd->qhd", weights.softmax(-1), v)


def published(model, prefix, source, words):
    """Logits after the prefix and after each word, [len(words) + 1, V]."""
    device = model.embedding.weight.device
    memory = _memory(model, source)
    caches = [TwiceCached() for _ in model.decoder.layers]
    logits = []
    for at, word in enumerate((*prefix, *words)):
        place = torch.tensor([at, at], device=device)
        x = model.decoder.embed_positions(model.embed(torch.tensor([word, SPECIAL.mask])), place)
        for layer, cache in zip(model.decoder.layers, caches, strict=True):
            view = model.decoder.view(cache, place, cross=plain, keys=torch.tensor([0]))
            x = layer(x, view, memory)
        logits.append(model.decoder.final_layer_norm(x)[1] @ model.vocabulary_weight().T)
    return torch.stack(logits[len(prefix) - 1 :])


def _memory(model, source):
    place = torch.arange(len(source))
    view = model.encoder.view(plain, place)
    return model.encoder(model.embed(torch.from_numpy(source)), place, view, view)


MODELS = itertools.product(("input", "target"), ("post", "pre"), ("learned", "rotary"))


@pytest.mark.slow
@pytest.mark.parametrize(("place", "norm", "positions"), MODELS)
def test_a_doubled_cache_gives_the_logits_of_one_that_caches_twice(place, norm, positions):
    model, objective = built(query_position=place, norm=norm, positions=positions, decoder_layers=3)
    rng = np.random.default_rng(3)
    sources, words = (
        [sentence(rng, 5) for _ in range(2)],
        torch.from_numpy(rng.integers(5, V, (2, 9))),
    )
    decoder = IncrementalDecoder(model, objective)
    want = torch.stack(
        [
            published(model, decoder.prefix, s, row.tolist())
            for s, row in zip(sources, words, strict=True)
        ]
    )
    twin = TwiceRead(model, objective)
    state = twin.start(sources)
    got = [twin.step(state), *(twin.step(state, words[:, [t]]) for t in range(9))]
    assert torch.allclose(torch.cat(got, 1), want, atol=1e-10)
    state = twin.start(sources)
    head = torch.tensor(decoder.prefix).expand(2, -1)
    block = twin.block(state, torch.cat([head, words], 1)[:, None])[:, 0, head.shape[1] - 1 :]
    assert torch.allclose(block, want, atol=1e-10)
    state = decoder.start(sources)
    exact = [decoder.step(state), *(decoder.step(state, words[:, [t]]) for t in range(9))]
    apart = (torch.cat(exact, 1) - want).abs().amax((0, 2))
    assert apart[0] < 1e-10 or place == "target"  # one word of the past: nothing to weigh wrongly
    assert apart[2:].min() > 1e-4


@pytest.mark.slow
def test_beams_over_a_doubled_cache_score_what_was_cached_twice():
    model, objective = built()
    rng = np.random.default_rng(8)
    sources = [sentence(rng, n) for n in (3, 7, 5)]
    decoder = TwiceRead(model, objective)
    given = dict(max_length=7)
    found = beam.decode(decoder, sources, SPECIAL, beam=4, n_best=4, **given)
    for source, output in zip(sources, found, strict=True):
        for o in (output, *output.others):
            logits = published(model, decoder.prefix, source, o.tokens.tolist()).detach().numpy()
            each = [log_p(row)[w] for row, w in zip(logits, [*o.tokens, SPECIAL.eos], strict=True)]
            assert o.score == pytest.approx(np.mean(each), abs=1e-6)
    one = beam.decode(decoder, sources, SPECIAL, beam=1, **given)
    other = greedy.decode(decoder, sources, SPECIAL, **given)
    assert [o.tokens.tolist() for o in one] == [o.tokens.tolist() for o in other]


class Loose(Table):
    """A table that likes special tokens as much as words."""

    def logits(self, *key):
        return super().logits(*key) + np.array([2, 1, 1, 1, 2, 0, 0, 0, 0])


def janus_decoding(table, source, scores):
    """Inference as in OBJECTIVES 1: eleven passes, the likeliest length and both its neighbours."""
    passes = 11
    likeliest = max(range(3, 13), key=lambda n: scores[n])
    best = (-np.inf, None, None)
    for length in (likeliest - 1, likeliest, likeliest + 1):
        length = min(max(length, 3), 12)
        tokens = [0, *[4] * (length - 2), 2]
        score = [0.0] * length
        for s in range(passes):
            seen = tuple(tokens)
            for i in range(length):
                if seen[i] == 4:
                    p = log_p(table.slot(source, list(seen), i))
                    tokens[i], score[i] = int(p.argmax()), p.max()
            if s + 1 < passes:
                words = sum(token != 1 for token in tokens)  # a pad is none
                count = (words - 2) * (passes - s - 1) // passes
                inner = sorted(range(1, length - 1), key=lambda i: score[i])
                for i in inner[:count]:
                    tokens[i], score[i] = 4, 0.0
        kept = [i for i in range(length) if tokens[i] != 1]
        text = tuple(tokens[i] for i in kept[1:-1])
        best = max(best, (sum(score[i] for i in kept) / len(kept), text, len(kept) < length))
    return best


@pytest.mark.slow
def test_the_published_switches_of_mask_predict_do_what_the_published_code_does():
    written, padded = set(), set()
    for seed in range(6):
        table = Loose(seed)
        scores = table.start(SOURCES).length_scores.numpy()
        found = mask_predict.decode(
            table,
            SOURCES,
            SPECIAL,
            iterations=10,
            lengths="around",
            extra_pass=True,
            early_stop=False,
            ban_specials=False,
        )
        for source, row, output in zip(SOURCES, scores, found, strict=True):
            score, tokens, lacks = janus_decoding(table, tuple(map(int, source)), row)
            assert tuple(output.tokens) == tokens
            assert output.score == pytest.approx(score)
            assert output.passes == 11 or not any(4 in o.tokens for o in (output, *output.others))
            written |= set(tokens)
            padded.add(lacks)
    assert written > {0, 2, 3, 4}, "a table that never writes a special token proves nothing"
    assert padded == {True, False}
