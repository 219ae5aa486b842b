"""What is hidden: the laws of the text, against slow references written from it."""

import inspect
from collections import Counter
from dataclasses import replace
from itertools import combinations, permutations
from math import ceil, exp, factorial

import numpy as np
import pytest
import torch

from januslm.config import Refused
from januslm.data.sampler import sample_rng
from januslm.noise import dual_spans, infill
from januslm.noise._runs import budget
from januslm.registry import find, names, options
from tests.samples import SPECIAL

NOISES = names("januslm.noise")


def words(size: int) -> np.ndarray:
    return np.concatenate([[SPECIAL.bos], np.arange(10, 8 + size), [SPECIAL.eos]])


def hidden(name: str, size: int, samples: int, seed: int = 0, **options) -> np.ndarray:
    """bool [samples, size]."""
    y = words(size)
    hide = find("januslm.noise", name).hide
    return np.array(
        [hide(y, y, SPECIAL, sample_rng(seed, i), **options)[1] for i in range(samples)]
    )


# What every file of the folder promises


def drawn(name: str, size: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """A noise on a pair, or on plain text where it makes its own source; the target stays."""
    hide, target = find("januslm.noise", name).hide, words(size)
    source = np.array([SPECIAL.bos, 7, 8, 9, SPECIAL.eos])
    try:
        made = hide(source, target, SPECIAL, rng)
    except Refused as refused:
        assert f"noise '{name}'" in str(refused)  # noqa: PT017
        made = hide(None, target, SPECIAL, rng)
    assert (target == words(size)).all(), "the target was changed in place"
    return made


@pytest.mark.parametrize("name", NOISES)
def test_a_noise_is_a_function_hide_with_options_that_have_types_and_defaults(name):
    hide = find("januslm.noise", name).hide
    parameters = inspect.signature(hide).parameters
    assert list(parameters)[:4] == ["source", "target", "special", "rng"]
    assert all(p.kind is p.KEYWORD_ONLY for p in list(parameters.values())[4:])
    assert set(options(hide, {}, name)) == set(list(parameters)[4:])


@pytest.mark.slow
@pytest.mark.parametrize("name", NOISES)
def test_a_noise_keeps_the_ends_and_the_length(name):
    for size in (2, 3, 5, 17, 40):
        for i in range(60):
            source, mask = drawn(name, size, sample_rng(1, i))
            assert (source.dtype, mask.dtype) == (np.int64, bool)
            assert (source.ndim, mask.shape) == (1, (size,))
            assert (source[0], source[-1]) == (SPECIAL.bos, SPECIAL.eos)
            assert not mask[0]
            assert (source >= 0).all()


@pytest.mark.parametrize("name", NOISES)
def test_a_noise_is_drawn_from_its_random_stream_alone(name):
    for size in (2, 9, 30):
        np.random.seed(1)
        one = [drawn(name, size, sample_rng(0, i)) for i in range(30)]
        np.random.seed(2)
        same = [drawn(name, size, sample_rng(0, i)) for i in range(30)]
        for (source, mask), (again, other) in zip(one, same, strict=True):
            assert source.tolist() == again.tolist()
            assert mask.tolist() == other.tolist()


@pytest.mark.parametrize("name", ["spans", "dual_spans", "infill", "none"])
def test_eos_is_never_hidden(name):  # but by Mask-Predict, which writes its own
    assert not any(drawn(name, size, sample_rng(1, i))[1][-1] for size in (2, 5) for i in range(99))


# Their laws


def law(rows) -> Counter:
    """How often each outcome was seen, as shares."""
    seen = Counter(map(tuple, rows))
    return Counter({k: v / sum(seen.values()) for k, v in seen.items()})


def distance(one: Counter, other: Counter) -> float:
    """Total variation."""
    return sum(abs(one[k] - other[k]) for k in one | other) / 2


def poisson(mean: float, rng) -> int:
    """One draw, by adding up the law until a uniform number is passed."""
    u, k, total = rng.random(), 0, 0.0
    while True:
        total += exp(-mean) * mean**k / factorial(k)
        if u < total or k > 60:
            return k
        k += 1


def slow_spans(size: int, ratio: float, mean: float, rng) -> tuple:
    """JANUS for translation: the reference's three steps, word for word."""
    m = ceil(ratio * size)
    drawn = [poisson(mean, rng) for _ in range(m)]
    while sum(drawn) < m:
        drawn += [poisson(mean, rng) for _ in range(m)]
    i = 0
    while sum(drawn[: i + 1]) < m and i + 1 < size:
        i += 1
    drawn[i] = m - sum(drawn[:i])
    starts = rng.permutation(size)[: i + 1]
    out = [False] * size
    for start, run in zip(starts, drawn[: i + 1], strict=True):
        run = 1 if start + run > size else run
        for at in range(start, start + run):
            out[at] = True
    out[0] = out[-1] = False
    return tuple(out)


@pytest.mark.slow
@pytest.mark.parametrize("size", [3, 4, 6])
def test_spans_follow_the_law_of_the_reference(size):
    rng = np.random.default_rng(5)
    slow = law(slow_spans(size, 0.7, 2.0, rng) for _ in range(5000))
    again = law(slow_spans(size, 0.7, 2.0, rng) for _ in range(5000))
    assert distance(law(hidden("spans", size, 5000)), slow) < distance(slow, again) + 0.03


def test_spans_hide_the_published_shares():
    long = hidden("spans", 40, 600)
    assert long[:, 1:-1].mean() == pytest.approx(0.55, abs=0.01)
    assert hidden("spans", 10, 1500)[:, 1:-1].mean() == pytest.approx(0.58, abs=0.02)


@pytest.mark.slow
@pytest.mark.parametrize(("size", "chance"), [(4, 0.13), (5, 0.05), (6, 0.01)])
def test_spans_hide_nothing_as_often_as_measured(size, chance):
    assert (~hidden("spans", size, 3000).any(1)).mean() == pytest.approx(chance, abs=0.02)


def test_uniform_hides_each_number_and_each_subset_alike():
    size = 5  # BOS, three words, EOS: four may be hidden, 1 to 3 of them are
    rows = hidden("uniform", size, 6000)
    assert not rows[:, 0].any()
    numbers = law((n,) for n in rows.sum(1))
    assert set(numbers) == {(1,), (2,), (3,)}
    assert all(share == pytest.approx(1 / 3, abs=0.03) for share in numbers.values())
    subsets = law(rows)
    assert len(subsets) == 4 + 6 + 4
    for subset, share in subsets.items():
        assert share == pytest.approx(1 / 3 / {1: 4, 2: 6, 3: 4}[sum(subset)], abs=0.02)


def test_uniform_hides_eos_when_nothing_else_is_there():
    assert (hidden("uniform", 2, 20) == [False, True]).all()


def slow_dual(size: int, ratio: float, mean: float, rng) -> tuple[tuple, tuple]:
    """JANUS for pretraining, span by span and token by token: (source, hidden)."""
    target = words(size).tolist()
    m = int(np.ceil(np.float32(size - 2) * np.float32(ratio)))
    drawn = []
    while sum(drawn) < m:
        drawn.append(poisson(mean, rng))
    if drawn:
        drawn[-1] = m - sum(drawn[:-1])
    inserts, drawn = drawn.count(0), [run for run in drawn if run]
    starts = (1 + rng.permutation(size - 2))[: len(drawn)]
    kept, hidden_by = [True] * size, [None] * size
    runs = [(start, run, rng.random() < 0.5) for start, run in zip(starts, drawn, strict=False)]
    # In step, as the reference does it: the n-th word of every run, then the next of every run;
    # who comes last has the word.
    for n in range(size):
        for start, run, both in runs:
            if n < run and start + n < size - 1:
                kept[start + n] = kept[start + n] and not (both and n)
                hidden_by[start + n] = "both" if both else "decoder"
    mask = [by is not None for by in hidden_by]
    source = [
        SPECIAL.mask if by == "both" else word for by, word in zip(hidden_by, target, strict=True)
    ]
    source = [word for word, keep in zip(source, kept, strict=True) if keep]
    total = len(source) + inserts
    holes = set((1 + rng.permutation(total - 2))[:inserts].tolist())
    rest = iter(source)
    source = [SPECIAL.mask if at in holes else next(rest) for at in range(total)]
    return tuple(source), tuple(mask)


@pytest.mark.slow
def test_dual_spans_follow_the_law_of_the_reference():
    rng, size = np.random.default_rng(3), 6
    options = {"ratio": 0.5, "mean": 1.5}

    def ours(i: int) -> tuple:
        source, mask = dual_spans.hide(None, words(size), SPECIAL, sample_rng(2, i), **options)
        return tuple(source.tolist()), tuple(mask.tolist())

    slow = law(slow_dual(size, 0.5, 1.5, rng) for _ in range(6000))
    again = law(slow_dual(size, 0.5, 1.5, rng) for _ in range(6000))
    assert distance(law(ours(i) for i in range(6000)), slow) < distance(slow, again) + 0.03


def test_how_many_words_are_hidden_is_rounded_up_in_fp32():
    """As fairseq's ceil(tensor.sum() * p): in fp64 some counts would be one more, or one fewer."""
    differ = 0
    for ratio in (0.3, 0.7, 0.15, 0.55):
        for count in range(1, 1500):
            want = ceil(torch.ones(count).sum() * ratio)
            assert budget(count, ratio) == want
            differ += want != ceil(count * ratio)
    assert differ


def test_dual_spans_hide_the_published_shares():
    """The source shows what a run of the decoder alone covers, unless another run has taken it."""
    size, both, only, total, lengths, samples = 512, 0, 0, 0, 0, 600
    for i in range(samples):
        source, mask = dual_spans.hide(None, words(size), SPECIAL, sample_rng(0, i))
        shown = np.isin(words(size), source)
        total, lengths = total + mask.sum(), lengths + len(source)
        only, both = only + (mask & shown).sum(), both + (mask & ~shown).sum()
        assert (~shown <= mask).all(), (
            "a word that is missing in the source is shown to the decoder"
        )
    share = 1 / (samples * size)
    assert total * share == pytest.approx(0.267, abs=0.002)
    assert only * share == pytest.approx(0.130, abs=0.003)
    assert both * share == pytest.approx(0.137, abs=0.003)
    assert lengths * share == pytest.approx(0.908, abs=0.003)


def test_decoder_only_spans_leave_the_source_alone():
    options = {"decoder_only": 1.0, "mean": 50.0}
    for i in range(50):
        source, mask = dual_spans.hide(None, words(20), SPECIAL, sample_rng(0, i), **options)
        assert (source == words(20)).all()
        assert mask.any()


def test_rotation_turns_the_source_between_its_ends():
    turned = 0
    for i in range(200):
        plain, mask = dual_spans.hide(None, words(12), SPECIAL, sample_rng(0, i))
        source, same = dual_spans.hide(None, words(12), SPECIAL, sample_rng(0, i), rotate=1.0)
        assert (mask == same).all()
        assert sorted(source) == sorted(plain)
        assert (source[[0, -1]] == plain[[0, -1]]).all()
        inner, twice = source[1:-1].tolist(), plain[1:-1].tolist() * 2
        assert any(twice[k : k + len(inner)] == inner for k in range(len(inner)))
        turned += (source != plain).any()
    assert turned > 150


def test_infill_hides_words_from_the_encoder_alone():
    lengths = []
    for i in range(100):
        source, mask = infill.hide(None, words(200), SPECIAL, sample_rng(0, i))
        assert not mask.any()
        assert (source == SPECIAL.mask).any()
        lengths.append((~np.isin(words(200), source)).mean())
    assert np.mean(lengths) == pytest.approx(0.27, abs=0.02)


SPOKEN = replace(SPECIAL, stops=(6, 7))
TEXT = np.array([0, 10, 11, 6, 12, 7, 6, 13, 14, 15, 6, 16, 2])  # the last one does not stop
SENTENCES = [(10, 11, 6), (12, 7, 6), (13, 14, 15, 6), (16,)]


def spoilt(i: int, text: np.ndarray = TEXT, **given) -> np.ndarray:
    """A source of infill without runs unless asked for."""
    source, mask = infill.hide(None, text, SPOKEN, sample_rng(7, i), **{"ratio": 0.0} | given)
    assert not mask.any()
    assert (source[[0, -1]] == text[[0, -1]]).all()
    return source


@pytest.mark.slow
@pytest.mark.parametrize(("share", "among"), [(1.0, 4), (0.75, 3), (0.3, 2), (0.2, 1)])
def test_a_share_of_the_sentences_change_places_in_any_order(share, among):
    """fairseq's permute_sentences: ceil(share n) of n, chosen and ordered evenly."""
    orders: Counter = Counter()
    for i in range(1200):
        words = list(spoilt(i, permute=share)[1:-1])
        order = []
        while words:
            [at] = [n for n, s in enumerate(SENTENCES) if tuple(words[: len(s)]) == s]
            order.append(at)
            words = words[len(SENTENCES[at]) :]
        assert sorted(order) == [0, 1, 2, 3], "a sentence was cut"
        orders[tuple(order)] += 1
    law: Counter = Counter()
    for chosen in combinations(range(4), among):
        for turned in permutations(chosen):
            order = list(range(4))
            for place, one in zip(chosen, turned, strict=True):
                order[place] = one
            law[tuple(order)] += 1
    assert orders.keys() == law.keys()
    for order, weight in law.items():
        assert orders[order] / 1200 == pytest.approx(weight / law.total(), abs=0.05)


def test_barts_other_noises_leave_out_add_replace_and_turn():
    left, random = [], Counter()
    for i in range(300):
        source = spoilt(i, words(42), delete=0.25)
        assert (np.diff(np.searchsorted(words(42)[1:-1], source[1:-1])) > 0).all(), "their order"
        left.append(len(source) - 2)
        source = spoilt(i, words(42), insert=0.11)
        assert (source == SPECIAL.mask).sum() == ceil(0.11 * 40)
        assert (source[source != SPECIAL.mask] == words(42)).all()
        source = spoilt(i, words(42), insert=0.5, replaced=0.3)
        assert len(source) == 42 + 20
        random[int((source == SPECIAL.mask).sum())] += 1
        inner = spoilt(i, words(42), rotate=1.0)[1:-1]
        assert (np.sort(inner) == words(42)[1:-1]).all()
        assert (np.diff(inner) < 0).sum() <= 1
    assert np.mean(left) == pytest.approx(0.75 * 40, abs=0.6)
    masks = sum(n * often for n, often in random.items()) / random.total()
    assert masks == pytest.approx(0.7 * 20, abs=0.5)


def test_words_are_left_out_before_runs_are_hidden():
    for i in range(50):
        source = spoilt(i, words(42), delete=1.0, ratio=0.3)
        assert source.tolist() == [SPECIAL.bos, SPECIAL.eos]


def test_noise_depends_on_seed_and_sample_alone():
    one, same = hidden("spans", 20, 30), hidden("spans", 20, 30)
    other = hidden("spans", 20, 30, seed=1)
    assert (one == same).all()
    assert len(set(map(tuple, one))) > 25
    assert (one != other).any(1).mean() > 0.9


@pytest.mark.parametrize(
    ("name", "source", "message"),
    [
        ("spans", None, "noise 'spans' needs pairs"),
        ("dual_spans", words(4), "noise 'dual_spans' makes its own source from plain text"),
        ("infill", words(4), "noise 'infill' makes its own source from plain text"),
    ],
)
def test_a_noise_for_other_data_is_refused(name, source, message):
    with pytest.raises(Refused) as error:
        find("januslm.noise", name).hide(source, words(4), SPECIAL, sample_rng(0, 0))
    assert str(error.value) == message


def test_an_unknown_noise_gets_the_names_there_are():
    with pytest.raises(Refused) as error:
        find("januslm.noise", "span")
    assert str(error.value).startswith("no 'span' in noise/; there are ")
    assert str(error.value).endswith("Did you mean 'spans'?")


# Relatives of JANUS


def xlnets_choice(words: int, rng: np.random.Generator, longest: int = 5, around: int = 6):
    """bool [words]: data_utils._sample_mask of XLNet, word by word."""
    goal, mask, at = max(1, round(words / 6)), [False] * words, 0
    while at < words and sum(mask) < goal:
        law = np.array([1 / n for n in range(1, longest + 1)])
        n = min(int(rng.choice(range(1, longest + 1), p=law / law.sum())), goal - sum(mask))
        context = n * around
        left = int(rng.integers(context))
        begin = at + left
        if begin >= words or begin + n >= words:
            break
        for i in range(begin, begin + n):
            mask[i] = True
        at = begin + n + context - left
    while sum(mask) < goal:
        mask[int(rng.integers(words))] = True
    return np.array(mask)


def runs_of(masks: np.ndarray) -> np.ndarray:
    """How often runs of 1, 2, .. 6 and more hidden words come, as shares."""
    padded = np.pad(masks, ((0, 0), (1, 1))).astype(int)
    lengths = [
        np.flatnonzero(np.diff(row) == -1) - np.flatnonzero(np.diff(row) == 1) for row in padded
    ]
    counts = np.bincount(np.minimum(np.concatenate(lengths), 6), minlength=7)[1:]
    return counts / counts.sum()


@pytest.mark.slow
@pytest.mark.parametrize("words_", [7, 40, 200])
def test_ngrams_follow_the_law_of_the_reference(words_):
    ours = hidden("ngrams", words_ + 2, 1500)[:, 1:-1]
    theirs = np.array([xlnets_choice(words_, np.random.default_rng([9, i])) for i in range(1500)])
    assert set(ours.sum(1)) == set(theirs.sum(1)) == {max(1, round(words_ / 6))}
    assert np.abs(runs_of(ours) - runs_of(theirs)).max() < 0.03
    quarters = [np.array_split(x.mean(0), 4) for x in (ours, theirs)]
    for a, b in zip(*quarters, strict=True):
        assert a.mean() == pytest.approx(b.mean(), abs=0.03)


def test_one_run_of_each_block_is_hidden_and_disguised_in_the_source():
    """ProphetNet: 9 or 10 of 64 words, 80 / 10 / 10 in the source, the rest of it as it is."""
    shares, y = np.zeros(3), words(2 + 150)
    for i in range(400):
        source, mask = find("januslm.noise", "blocks").hide(None, y, SPECIAL, sample_rng(3, i))
        starts = np.flatnonzero(np.diff(np.pad(mask.astype(int), 1)) == 1)
        ends = np.flatnonzero(np.diff(np.pad(mask.astype(int), 1)) == -1)
        assert mask[1:65].sum() == mask[65:129].sum() == round(0.15 * 64)
        assert mask[129:-1].sum() == round(0.15 * 22)
        assert len(starts) <= 3
        assert (ends - starts).max() <= 2 * round(0.15 * 64)
        assert (source[~mask] == y[~mask]).all()
        masked, kept = source[mask] == SPECIAL.mask, source[mask] == y[mask]
        shares += masked.sum(), (~masked & ~kept).sum(), kept.sum()
    assert shares / shares.sum() == pytest.approx([0.8, 0.1, 0.1], abs=0.02)


@pytest.mark.parametrize("name", ["blocks", "ngrams", "words"])
def test_a_source_of_a_pair_stays_as_it_is(name):
    source, y = np.array([SPECIAL.bos, 7, 8, SPECIAL.eos]), words(30)
    made, mask = find("januslm.noise", name).hide(source, y, SPECIAL, sample_rng(1, 1))
    assert (made == source).all()
    assert mask.any()
