"""Every metric against the program that first printed it, or against numbers worked out by hand."""

import math
import sys
from itertools import pairwise

import numpy as np
import pytest
from sacrebleu.metrics import BLEU

from finetune.tasks import scitldr
from januslm.config import Refused
from januslm.data.text_pairs import SPLITS, lines
from januslm.metrics import (
    _bootstrap,
    bleu,
    coqa_f1,
    distinct,
    exact_match,
    meteor,
    nltk_bleu,
    qg_bleu,
    qg_rouge,
    rouge,
    squad,
)
from januslm.registry import find, names

# Every file of the folder that runs here; `each` is what can be resampled.
METRICS = [
    name
    for name in names("januslm.metrics")
    if not getattr(find("januslm.metrics", name), "missing", str)()
]
RESAMPLED = [name for name in METRICS if hasattr(find("januslm.metrics", name), "each")]


def cases(names: list[str]) -> list:
    """Parameters; what asks a program of its own (it has `missing`) is slow."""
    own = [name for name in names if hasattr(find("januslm.metrics", name), "missing")]
    return [pytest.param(name, marks=pytest.mark.slow) if name in own else name for name in names]


def damaged(text: str, every: int) -> str:
    """A text without each n-th word, and with two words exchanged."""
    words = [word for i, word in enumerate(text.split()) if i % every != 1]
    words[:2] = reversed(words[:2])
    return " ".join(words)


@pytest.fixture(scope="module")
def summaries(data):
    """186 real sentences, damaged, with their references: one to four each."""
    papers = [paper for split in SPLITS for paper in scitldr.read(data, split)]
    references = [list(paper.targets) for paper in papers]
    return [damaged(several[0], 8) for several in references], references


@pytest.fixture(scope="module")
def questions(data):
    """300 real questions, tokenized."""
    texts = list(lines(data / "squad_qg" / "dev.tgt.gz"))[:300]
    return [damaged(text, 5) for text in texts], [[text.strip()] for text in texts]


# BLEU


def test_bleu_equals_sacrebleu_on_real_summaries(summaries):
    predictions, references = summaries
    single = [several[:1] for several in references]
    expected = BLEU().corpus_score(predictions, [[one[0] for one in single]]).score
    assert bleu.score(predictions, single)["bleu"] == expected
    assert "tok:13a|smooth:exp" in bleu.signature(predictions, single)


@pytest.mark.parametrize(("mode", "smoothing"), [("sacre", "exp"), ("fairseq", "none")])
def test_bleu_of_summed_lines_is_sacrebleus_whatever_is_missing(mode, smoothing):
    rng, draws = np.random.default_rng(0), []
    for words in rng.integers(0, 12, 300).tolist():
        grams = [max(words - n, 0) for n in range(4)]
        matches = [int(rng.integers(0, n + 1)) for n in grams]
        draws.append([*matches, *grams, words, int(rng.integers(1, 14))])
    draws += [[0] * 10, [5, 4, 3, 2, 5, 4, 3, 2, 5, 5]]
    wanted = [BLEU.compute_bleu(d[:4], d[4:8], *d[8:], smoothing).score for d in draws]
    assert sum(score > 0 for score in wanted) > 50
    found = bleu.total(np.array(draws, dtype=float), mode=mode)
    np.testing.assert_allclose(found, wanted, rtol=1e-12)


def test_fairseq_bleu_is_the_plain_formula_on_tokens(questions):
    predictions, references = questions
    matches, totals = np.zeros(4), np.zeros(4)
    ours = theirs = 0
    for prediction, (reference,) in zip(predictions, references, strict=True):
        a, b = prediction.split(), reference.split()
        ours, theirs = ours + len(a), theirs + len(b)
        for n in range(1, 5):
            grams = [tuple(a[i : i + n]) for i in range(len(a) - n + 1)]
            left = [tuple(b[i : i + n]) for i in range(len(b) - n + 1)]
            for gram in grams:
                totals[n - 1] += 1
                if gram in left:
                    left.remove(gram)
                    matches[n - 1] += 1
    expected = 100 * np.exp(np.log(matches / totals).mean() + min(0, 1 - theirs / ours))
    assert bleu.score(predictions, references, mode="fairseq")["bleu"] == pytest.approx(expected)


def test_compound_bleu_splits_hyphens_on_both_sides_and_says_so():
    texts, wanted = ["a well-known low-cost book is here"], [["a well-known low cost book is here"]]
    assert bleu.split_compounds("a-b-c x - y") == "a ##AT##-##AT## b-c x - y"
    plain = bleu.score(texts, wanted, mode="fairseq")["bleu"]
    assert bleu.score(texts, wanted, mode="compound")["bleu"] > plain
    assert bleu.signature(texts, wanted, mode="compound").startswith("compound|")


def test_bleu_without_one_common_fourgram_is_zero_for_fairseq_but_not_for_sacrebleu():
    texts, wanted = ["a b c x d e f"], [["a b c y d e f"]]
    assert bleu.score(texts, wanted, mode="fairseq")["bleu"] == 0
    assert bleu.score(texts, wanted)["bleu"] > 0


def test_bleu4_of_the_question_scripts_equals_unsmoothed_sacrebleu(summaries):
    predictions, references = summaries
    expected = bleu.score(predictions, references, mode="fairseq")["bleu"]
    assert qg_bleu.score(predictions, references)["bleu-4"] == pytest.approx(expected, abs=1e-5)


def test_rouge_of_the_question_scripts_takes_precision_and_recall_from_different_references():
    # precision 1 from the long reference, recall 1/2 from the short one, beta 1.2
    found = qg_rouge.score(["a b"], [["a b c d e f", "x b"]])["rouge-l"]
    assert found == pytest.approx(100 * 2.44 * 1 * 0.5 / (0.5 + 1.44 * 1))


# PersonaChat


def test_a_perfect_answer_has_133_and_122_in_the_old_nltk_form():
    scores = nltk_bleu.score(["i have two dogs and a cat"], [["i have two dogs and a cat"]])
    assert scores["bleu-1"] == pytest.approx(400 / 3)
    assert scores["bleu-2"] == pytest.approx(100 * math.sqrt(4 / 3 * 10 / 9))


def test_the_old_form_of_smoothing_by_hand():
    # p1 = 1/2; no pairs: p2, p3, p4 = (i + 5 / ln 2) / 1 in method 4, then averaged with neighbours
    unit = 5 / math.log(2)
    first = (1.5 + 0.5 + (1 + unit)) / 3
    second = (first + (1 + unit) + (2 + unit)) / 3
    scores = nltk_bleu.score(["a b"], [["a c"]])
    assert scores["bleu-1"] == pytest.approx(100 * first)
    assert scores["bleu-2"] == pytest.approx(100 * math.sqrt(first * second))


@pytest.mark.parametrize(
    ("prediction", "reference", "one", "two"),
    [
        ("i have two dogs .", "i have a cat .", 81.666667, 86.818996),
        ("the old bridge is closed today", "the bridge is closed", 91.111111, 68.856026),
        ("yes i do", "no i do not like it at all", 17.838251, 29.966090),
        ("a b", "a c", 340.449173, 486.211451),
        ("hello there", "hello", 340.449173, 486.211451),
        (
            "i paint small boats by the sea every day",
            "i paint boats by the sea",
            94.444444,
            73.802412,
        ),
    ],
)
def test_the_old_form_gives_what_nltk_3_5_printed(prediction, reference, one, two):
    scores = nltk_bleu.score([prediction], [[reference]])
    assert scores == pytest.approx({"bleu-1": one, "bleu-2": two}, abs=1e-5)


def test_the_old_form_equals_todays_nltk_where_every_ngram_matches_once(summaries):
    nltk = pytest.importorskip("nltk.translate.bleu_score")
    smooth = nltk.SmoothingFunction().method7
    same = 0
    for prediction, several in zip(*summaries, strict=True):
        if not all(bleu.each([prediction], [several], mode="fairseq")["bleu"][0, :4]):
            continue
        same += 1
        ours = nltk_bleu.each([prediction], [several])
        split = [one.strip().split(" ") for one in several]  # as the official script reads lines
        for name, weights in (("bleu-1", [1, 0, 0, 0]), ("bleu-2", [0.5, 0.5, 0, 0])):
            theirs = nltk.sentence_bleu(split, prediction.split(" "), weights, smooth)
            assert ours[name][0] == pytest.approx(100 * theirs)
    assert same > 30


def test_one_word_and_wrong_answers_score_zero_as_in_the_official_script():
    scores = nltk_bleu.score(["yes", "no dogs here"], [["yes"], ["a cat"]])
    assert scores == {"bleu-1": 0, "bleu-2": 0}


def test_distinct_counts_over_all_answers_together():
    scores = distinct.score(["i like dogs", "i like cats"], [["x"], ["x"]])
    assert scores["distinct-1"] == pytest.approx(100 * 4 / 6, abs=1e-3)
    assert scores["distinct-2"] == pytest.approx(100 * 3 / 4, abs=1e-3)


# CoQA, exact match, METEOR


def test_coqa_f1_forgets_articles_case_and_punctuation():
    scores = coqa_f1.each(
        ["The white, House.", "", "", "a cat", "he ran home"],
        [["white house"], ["the"], ["yes"], ["dog"], ["ran far away"]],
    )["f1"]
    np.testing.assert_allclose(scores, [100, 100, 0, 0, 100 * 2 / 6])


def test_exact_match_takes_any_reference():
    assert exact_match.score(["a  b ", "c"], [["x", "a b"], ["d"]]) == {"exact": 50}


def test_meteor_without_its_package_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "pycocoevalcap", None)  # what import takes for "not there"
    with pytest.raises(
        Refused, match=r"pycocoevalcap is not installed; .* -m pip install .*meteor"
    ):
        meteor.score(["a"], [["a"]])


NEEDS_METEOR = pytest.mark.skipif(bool(meteor.missing()), reason=meteor.missing())


@pytest.mark.slow
@NEEDS_METEOR
def test_meteor_equals_pycocoevalcaps_on_lines_and_on_the_whole(questions):
    predictions, references = (part[:40] for part in questions)
    references = [[*one, *other] for one, other in pairwise([*references, []])]
    predictions = ["", "nothing of it", references[2][0], *predictions[3:]]
    reference = pytest.importorskip("pycocoevalcap.meteor.meteor").Meteor()
    known, found = dict(enumerate(references)), {i: [p] for i, p in enumerate(predictions)}
    whole, lines = reference.compute_score(known, found)
    assert meteor.score(predictions, references)["meteor"] == pytest.approx(100 * whole)
    ours = meteor.total(meteor.each(predictions, references)["meteor"])
    np.testing.assert_allclose(ours, 100 * np.array(lines), atol=1e-12)


def test_meteor_of_summed_lines_is_what_the_java_program_prints():
    # "quick brown foxes jumped over a lazy dog" against "the quick brown fox jumps over the lazy
    # dog", an exact match, and two words in common of four and five; EVAL of METEOR 1.5, English.
    lines = np.zeros((3, 23))
    lines[0, [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]] = 8, 9, 2, 3, 4, 4, 1, 1, 2, 2
    lines[0, 20:] = 2, 7, 7
    lines[1, [0, 1, 2, 3, 4, 5, 6, 7]] = 7, 7, 6, 6, 1, 1, 6, 6
    lines[1, 20:] = 0, 7, 7  # 1 chunk, which an exact match is not charged for
    lines[2, [0, 1, 2, 3, 6, 7, 8, 9]] = 4, 5, 3, 4, 1, 1, 1, 1
    lines[2, 20:] = 1, 2, 2
    each = [42.433714178179094, 100.0, 19.52518326514615]
    np.testing.assert_allclose(meteor.total(lines), each, atol=1e-9)
    assert meteor.total(lines.sum(0, keepdims=True))[0] == pytest.approx(44.163878553087793)
    assert meteor.total(np.zeros((1, 23)))[0] == pytest.approx(0)


# What all of them promise


@pytest.mark.parametrize("name", cases(METRICS))
def test_a_test_set_without_lines_scores_zero(name):
    assert set(find("januslm.metrics", name).score([], []).values()) == {0.0}


@pytest.mark.parametrize("name", cases(METRICS))
def test_a_missing_prediction_is_an_error_and_not_a_shifted_score(name):
    with pytest.raises(ValueError, match=r"shorter|longer|predictions for"):
        find("januslm.metrics", name).score(["a"], [["a"], ["b"]])


@pytest.mark.slow
@pytest.mark.parametrize("name", cases(RESAMPLED))
def test_the_score_follows_from_what_each_line_has(name, summaries):
    metric = find("januslm.metrics", name)
    scores = metric.score(*summaries)
    for key, values in metric.each(*summaries).items():
        assert len(values) == len(summaries[0])
        again = _bootstrap.resampled(metric, values, {}, 0, 0)
        assert again[0] == pytest.approx(scores[key])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: rouge.score(["a"], [["a"]], level="page"),
            "rouge: level must be one of sentence, summary, got 'page'",
        ),
        (
            lambda: bleu.score(["a"], [["a"]], mode="moses"),
            "bleu: mode must be one of sacre, fairseq, compound, got 'moses'",
        ),
    ],
)
def test_messages(call, message):
    with pytest.raises(Refused) as caught:
        call()
    assert str(caught.value) == message


# Significance


def plainly_drawn(metric, predictions, references, draws: int, seed: int) -> list[dict]:
    """The metric's own scores of test sets whose lines are really drawn and written out."""
    rng = np.random.Generator(np.random.Philox(seed))
    lines, found = len(predictions), []
    for _ in range(draws):
        times = rng.multinomial(lines, np.full(lines, 1 / lines))
        ids = np.repeat(np.arange(lines), times)
        found.append(metric.score([predictions[i] for i in ids], [references[i] for i in ids]))
    return found


@pytest.mark.slow
@pytest.mark.parametrize("name", cases(RESAMPLED))
def test_intervals_are_those_of_test_sets_that_are_drawn_and_scored(name, summaries):
    metric = find("januslm.metrics", name)
    first, references = (part[:30] for part in summaries)
    second = [damaged(text, 4) for text in first]
    draws = 3 if hasattr(metric, "missing") else 40  # starting its program takes seconds
    ours, theirs = (plainly_drawn(metric, texts, references, draws, 5) for texts in (first, second))
    drawn = {"draws": draws, "seed": 5}
    alone = _bootstrap.intervals(metric, first, references, **drawn)
    both = _bootstrap.compare(metric, first, second, references, **drawn)
    for one, two in zip(alone, both, strict=True):
        a, b = (np.array([scores[one.name] for scores in found]) for found in (ours, theirs))
        assert (one.low, one.high) == pytest.approx(np.percentile(a, [2.5, 97.5]))
        assert (two.low, two.high) == pytest.approx(np.percentile(a - b, [2.5, 97.5]))
        assert one.score == two.first == pytest.approx(metric.score(first, references)[one.name])
        assert one.half == pytest.approx((one.high - one.low) / 2)


def test_an_interval_of_a_mean_is_as_wide_as_the_normal_one():
    rng = np.random.default_rng(3)
    texts = ["yes" if right else "no" for right in rng.random(400) < 0.3]
    (found,) = _bootstrap.intervals(exact_match, texts, [["yes"]] * 400)
    share = texts.count("yes") / 400
    assert found.half == pytest.approx(196 * math.sqrt(share * (1 - share) / 400), rel=0.08)


def test_an_interval_holds_the_score_of_all_sentences_about_19_times_in_20():
    rng, inside = np.random.default_rng(11), 0
    for seed in range(60):
        texts = ["yes" if right else "no" for right in rng.random(150) < 0.5]
        (found,) = _bootstrap.intervals(exact_match, texts, [["yes"]] * 150, draws=300, seed=seed)
        inside += found.low <= 50 <= found.high
    assert 52 <= inside < 60


def test_a_system_does_not_differ_from_itself(summaries):
    predictions, references = summaries
    (found,) = _bootstrap.compare(bleu, predictions, predictions, references, draws=50)
    assert (found.low, found.high, found.real) == (0, 0, False)


def test_a_clearly_worse_system_differs_and_the_report_says_so(summaries):
    predictions, references = summaries
    worse = [damaged(text, 3) for text in predictions]
    (found,) = _bootstrap.compare(bleu, predictions, worse, references, draws=200)
    assert found.real
    assert found.low > 0
    assert str(found).endswith("a real difference")


def test_two_equally_good_systems_are_called_different_about_one_time_in_twenty():
    rng, wrong = np.random.default_rng(7), 0
    references = [["yes"]] * 200
    for seed in range(60):
        a, b = (["yes" if x else "no" for x in rng.random(200) < 0.6] for _ in "ab")
        (found,) = _bootstrap.compare(exact_match, a, b, references, draws=200, seed=seed)
        wrong += found.real
    assert wrong <= 8


def test_a_score_over_all_answers_together_has_no_interval():
    with pytest.raises(Refused, match="distinct: has no values per line to resample"):
        _bootstrap.compare(distinct, ["a"], ["b"], [["a"]])


@pytest.mark.parametrize(
    ("prediction", "gold", "exact", "f1"),
    [
        ("[Denver Broncos]", ["Denver Broncos"] * 3, 100, 100),  # punctuation
        ("denver Broncos", ["Denver Broncos"], 100, 100),  # case
        ("(gold)  ", ["gold"], 100, 100),  # white space
        ("The Broncos", ["broncos"], 100, 100),  # articles
        ("an apple a day", ["apple day"], 100, 100),
        ("theatre", ["atre"], 0, 0),  # an article is a word, not a beginning
        ("Levi's Stadium", ["Santa Clara, California", "Levi's Stadium"], 100, 100),
        ("Denver", ["Denver Broncos", "Broncos"], 0, 100 * 2 / 3),
        ("the", ["a"], 100, 100),  # nothing is left of either
        ("the", ["gold"], 0, 0),
        ("gold gold", ["gold"], 0, 100 * 2 / 3),  # counted as often as it is there
        ("24–10", ["2410"], 0, 0),  # only ASCII's punctuation goes
    ],
)
def test_squad_is_as_its_script_has_it(prediction, gold, exact, f1):
    assert squad.score([prediction], [gold]) == pytest.approx({"exact": exact, "f1": f1})
