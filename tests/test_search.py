"""Beam, sampling and speculative over random tables, against the same in plain words."""

from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from januslm.decoding import beam, draft_sample, greedy, sample, speculative
from tests.test_decoding import SOURCES, SPECIAL, WORDS, Table, log_p

END = SPECIAL.eos
LIMITS = st.fixed_dictionaries(
    {
        "max_length": st.integers(4, 9),
        "min_length": st.integers(0, 4),
        "no_repeat_ngram": st.integers(0, 3),
        "max_ratio": st.sampled_from([0.0, 0.5]),
    }
)


def allowed(words: tuple, most: int, least: int, ngram: int) -> list[int]:
    """What may follow: no n-gram twice, the end not before `least` words and after `most`."""
    grams = {words[i : i + ngram] for i in range(len(words) - ngram + 1)} if ngram else set()
    fresh = [w for w in WORDS if not ngram or (*words, w)[len(words) + 1 - ngram :] not in grams]
    fresh = fresh if len(words) < most else []
    return fresh + [END] * (len(words) >= least)


def plain_beam(table, source, width, penalty, early, most, least, ngram) -> list:
    """Every finished hypothesis, best first, (score, words): fairseq's search in plain words."""
    beams, finished = [(0.0, ())], []
    for _ in range(most + 1):
        grown = []
        for total, words in beams:
            p = log_p(table.after(source, words))
            grown += [(total + p[w], words, w) for w in allowed(words, most, least, ngram)]
        grown = sorted(grown, reverse=True)[: 2 * width]
        for total, words, w in grown[:width]:
            if w == END and not (early and len(finished) == width):
                finished.append((total / (len(words) + 1) ** penalty, words))
        if early and len(finished) == width:
            break
        beams = [(total, (*words, w)) for total, words, w in grown if w != END][:width]
    return sorted(finished, reverse=True)


@pytest.mark.slow
@settings(max_examples=60)
@given(
    st.integers(0, 10**6),
    st.integers(1, 5),
    st.sampled_from([0.0, 0.6, 1.0, 1.5, -0.5]),
    st.booleans(),
    LIMITS,
)
def test_a_narrow_beam_finds_what_the_plain_search_finds(seed, width, penalty, early, limits):
    table = Table(seed)
    given = dict(beam=width, length_penalty=penalty, early_stop=early, n_best=width)
    found = beam.decode(table, SOURCES, SPECIAL, **given, **limits)
    for source, output in zip(SOURCES, found, strict=True):
        most = limits["max_length"] + int(limits["max_ratio"] * len(source))
        want = plain_beam(
            table,
            tuple(map(int, source)),
            width,
            penalty,
            early,
            most,
            limits["min_length"],
            limits["no_repeat_ngram"],
        )[:width]
        made = [output, *output.others]
        assert [tuple(o.tokens) for o in made] == [words for _, words in want]
        assert np.allclose([o.score for o in made], [score for score, _ in want])


@pytest.mark.slow
@settings(max_examples=60)
@given(
    st.integers(0, 10**6),
    st.integers(0, 6),
    st.integers(1, 3),
    st.integers(0, 5),
    LIMITS,
)
def test_speculative_writes_what_greedy_writes_whatever_the_draft(
    seed, block, iterations, shifts, limits
):
    slow = greedy.decode(Table(seed), SOURCES, SPECIAL, **limits)
    fast = speculative.decode(
        Table(seed),
        SOURCES,
        SPECIAL,
        block=block,
        draft_iterations=iterations,
        shifts=shifts,
        **limits,
    )
    assert [o.tokens.tolist() for o in fast] == [o.tokens.tolist() for o in slow]
    assert np.allclose([o.score for o in fast], [o.score for o in slow])


def chances(logits: np.ndarray, may: list[int], temperature, top_k, top_p) -> dict[int, float]:
    """Word -> probability, by the definitions of temperature, top-k and top-p."""
    weight = {w: np.exp(log_p(logits)[w] / temperature) for w in may}
    best = sorted(may, key=lambda w: -weight[w])[: top_k or None]
    total, kept, reached = sum(weight[w] for w in best), [], 0.0
    for w in best:
        if reached < top_p * total:
            kept.append(w)
            reached += weight[w]
    return {w: weight[w] / reached for w in kept}


def texts(table, source, most, how) -> dict[tuple, float]:
    """Text -> probability, of all that can be drawn."""
    found, open_ = {}, {(): 1.0}
    for _ in range(most + 1):
        grown = {}
        for words, p in open_.items():
            may = allowed(words, most, 0, 0)
            for w, q in chances(table.after(source, words), may, *how).items():
                (found if w == END else grown)[words if w == END else (*words, w)] = p * q
        open_ = grown
    return found


@pytest.mark.slow
@pytest.mark.parametrize(
    "how", [(1.0, 0, 1.0), (0.7, 0, 1.0), (1.6, 3, 1.0), (1.0, 0, 0.8), (1.3, 4, 0.6)]
)
@pytest.mark.parametrize(
    ("way", "form"),
    [
        (sample, {}),
        pytest.param(draft_sample, {"form": "one"}, marks=pytest.mark.slow),
        pytest.param(draft_sample, {"form": "two"}, marks=pytest.mark.slow),
        pytest.param(draft_sample, {"form": "one", "block": 2}, marks=pytest.mark.slow),
    ],
)
def test_drawn_texts_come_as_often_as_they_are_likely(way, form, how):
    table, count = Table(5), 3000
    temperature, top_k, top_p = how
    one = way.decode(
        table,
        SOURCES[:1],
        SPECIAL,
        temperature=temperature,
        top_k=top_k,
        top_p=top_p,
        samples=count,
        max_length=3,
        **form,
    )[0]
    drawn = Counter(tuple(o.tokens.tolist()) for o in (one, *one.others))
    likely = texts(table, tuple(map(int, SOURCES[0])), 3, how)
    assert sum(likely.values()) == pytest.approx(1)
    assert set(drawn) <= set(likely)
    common = {text: p * count for text, p in likely.items() if p * count >= 5}
    rest = count - sum(common.values())
    off = sum((drawn[text] - n) ** 2 / n for text, n in common.items())
    seldom = count - sum(drawn[text] for text in common)
    off += (seldom - rest) ** 2 / rest if rest > 5 else 0.0
    freedom = len(common)
    assert freedom > 5
    assert off < freedom + 4 * np.sqrt(2 * freedom)  # of chi-square: passed by 1 in 10,000


@pytest.mark.parametrize(
    ("way", "form"),
    [(sample, {}), (draft_sample, {"form": "one"}), (draft_sample, {"form": "two"})],
)
def test_samples_of_a_source_differ_and_do_not_depend_on_the_batch(way, form):
    given = dict(samples=4, max_length=8, seed=3) | form
    together = way.decode(Table(1), SOURCES, SPECIAL, **given)
    for source, output in zip(SOURCES, together, strict=True):
        alone = way.decode(Table(1), [source], SPECIAL, **given)[0]
        made, again = ([o.tokens.tolist() for o in (x, *x.others)] for x in (output, alone))
        assert made == again
        assert len(made) == 4
        assert len(set(map(tuple, made))) > 1
        first = way.decode(Table(1), [source], SPECIAL, **given | {"samples": 1})[0]
        assert first.tokens.tolist() == made[0]


@pytest.mark.parametrize(
    ("top_p", "kept"),
    [(0.0001, 1), (0.4999, 1), (0.5001, 2), (0.7499, 2), (0.7501, 3), (0.9001, 4), (1.0, 4)],
)
def test_top_p_keeps_the_word_that_reaches_it_and_no_more(top_p, kept):
    p = [0.5, 0.25, 0.15, 0.1]
    scores = torch.tensor(p, dtype=torch.float64)[[2, 0, 3, 1]].log().expand(101, 4)
    drawn = torch.cat([torch.arange(100) / 100, torch.tensor([1 - 2**-24])])
    words = sample.draw(scores, drawn, 1.0, 0, top_p)[1][:, 0].tolist()
    assert list(dict.fromkeys(words)) == [1, 3, 0, 2][:kept]  # the likeliest takes the least chance
    assert Counter(words)[1] == pytest.approx(100 * p[0] / sum(p[:kept]), abs=2)


def test_a_text_ends_where_every_word_would_come_twice():
    for output in greedy.decode(Table(2), SOURCES, SPECIAL, no_repeat_ngram=1):
        assert len(set(output.tokens.tolist())) == len(output.tokens) <= len(WORDS)
