"""ROUGE against Google's where both agree, and its stems against the Perl script's."""

import re
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from finetune.tasks import scitldr
from januslm.config import Refused
from januslm.data.text_pairs import lines
from januslm.metrics import rouge
from januslm.metrics._porter import stem

rouge_scorer = pytest.importorskip("rouge_score.rouge_scorer")
TEXTS = st.lists(st.text("abc .-\n", max_size=30), min_size=1, max_size=3)


@pytest.fixture(scope="module")
def papers(data):
    """104 real abstracts as predictions, with one to four reference summaries each."""
    pairs = list(scitldr.read(data, "test"))
    return [p.source for p in pairs], [list(p.targets) for p in pairs]


@pytest.fixture(scope="module")
def questions(data):
    """300 real questions, each against the one after it and against its own beginning."""
    texts = [text.strip() for text in lines(data / "squad_qg" / "dev.tgt.gz")][:301]
    return texts[:300], [[b, a[:20]] for a, b in pairwise(texts)]


def google(kinds: list[str], predictions, references) -> dict[str, np.ndarray]:
    scorer = rouge_scorer.RougeScorer(kinds)
    found = [scorer.score_multi(r, p) for p, r in zip(predictions, references, strict=True)]
    return {kind: np.array([100 * one[kind].fmeasure for one in found]) for kind in kinds}


@pytest.mark.slow
@pytest.mark.parametrize("texts", ["papers", "questions"])
def test_rouge_without_stemming_equals_googles_on_every_line(texts, request):
    predictions, references = request.getfixturevalue(texts)
    ours = rouge.each(predictions, references)
    theirs = google(["rouge1", "rouge2", "rougeL"], predictions, references)
    for a, b in zip(ours.values(), theirs.values(), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)


@pytest.mark.slow
def test_summary_level_rouge_equals_googles_on_real_sentences(papers):
    predictions = ["\n".join(text.split(". ")) for text in papers[0][:60]]
    references = [["\n".join(one.split(", ")) for one in several] for several in papers[1][:60]]
    ours = rouge.each(predictions, references, level="summary")["rouge-l"]
    theirs = google(["rougeLsum"], predictions, references)["rougeLsum"]
    np.testing.assert_allclose(ours, theirs, atol=1e-5)


@pytest.mark.slow
@settings(max_examples=150, deadline=None)
@given(st.text("abc .-\n", max_size=40), TEXTS)
def test_rouge_equals_googles_on_any_text(prediction, references):
    for level, kind in (("sentence", "rougeL"), ("summary", "rougeLsum")):
        ours = rouge.each([prediction], [references], level=level)
        theirs = google(["rouge1", "rouge2", kind], [prediction], [references])
        for a, b in zip(ours.values(), theirs.values(), strict=True):
            np.testing.assert_allclose(a, b, atol=1e-5)


PERL = """
    caresses caress ponies poni ties ti cats cat feed feed agreed agre plastered plaster
    bled bled motoring motor sing sing conflated conflat hopping hop falling fall hissing
    hiss filing file happy happi sky sky relational relat conditional condit rational ration
    valency valenc digitizer digit conformably conform triplicate triplic formative form
    electrical electr goodness good revival reviv adjustable adjust adoption adopt probate
    probat rate rate cease ceas controll control roll roll generalizations gener oscillators
    oscil governmental govern agreement agreem document docum documentation docum statement
    statem instrumental instrum environmental environ internationally internat international
    intern traditionally tradit congressional congress commissioner commiss possibly possibl
    technology technolog psychology psycholog accidentally accid implementation implem
    cement cement element elem movement movem yearly yearli dying dy skies ski innings in
    2020s 2020 covid19 covid19
"""


def test_stems_are_what_the_perl_script_prints():
    words = PERL.split()
    assert [stem(word) for word in words[::2]] == words[1::2]


def test_stems_equal_nltks_but_for_step_4_on_a_real_vocabulary(papers):
    porter = pytest.importorskip("nltk.stem.porter")
    oracle = porter.PorterStemmer(mode=porter.PorterStemmer.MARTIN_EXTENSIONS)
    vocabulary = {word for text in papers[0] for word in rouge.words(text)}
    differ = {w for w in vocabulary if len(w) > 3 and stem(w) != oracle.stem(w)}
    assert {"agreement", "documents", "implementation"} & differ
    assert all(re.search("ion|ent", word) for word in differ)
    assert len(vocabulary) > 1500 > 20 * len(differ)


def test_words_of_three_letters_are_not_stemmed():
    assert rouge.words("Ties, tied, was; the dogs' bus!", stem=True) == [
        "ti",
        "ti",
        "was",
        "the",
        "dog",
        "bus",
    ]


def test_irregular_words_go_to_their_base_form_before_the_stemmer_sees_them(tmp_path):
    (tmp_path / "noun.exc").write_text("geese goose\nmen man\n")
    known = rouge.irregular(str(tmp_path))
    assert rouge.words("Geese goose men", stem=True, exceptions=known) == ["goose", "goos", "men"]
    (tmp_path / "adj.exc").write_text("worse bad\n")
    rouge.irregular.cache_clear()
    scores = rouge.score(["worse"], [["bad"]], stem=True, exceptions=str(tmp_path))
    assert scores["rouge-1"] == 100


def test_of_a_word_that_a_list_has_twice_the_last_line_counts(tmp_path):
    """As in the script's buildExeptionDB.pl; WordNet's adj.exc has "offer off", "offer offer"."""
    (tmp_path / "adj.exc").write_text("offer off\n\noffer offer\n")
    (tmp_path / "noun.exc").write_text("offer offering\n")
    assert rouge.irregular(str(tmp_path)) == {"offer": "offer"}
    with pytest.raises(Refused, match="give stem=true too"):
        rouge.score(["offer"], [["offer"]], exceptions=str(tmp_path))
    (tmp_path / "verb.exc").write_bytes("ging geh\xf6rt\n".encode("latin-1"))
    rouge.irregular.cache_clear()
    with pytest.raises(Refused, match=r"verb\.exc is not UTF-8"):
        rouge.irregular(str(tmp_path))


def test_only_ascii_letters_are_words_before_and_after_lower_case():
    assert rouge.words("\u0130stanbul 300 \u212a") == ["stanbul", "300"]


def test_rouge_of_several_references_is_the_best_one():
    assert rouge.score(["a b"], [["x y", "a b"]])["rouge-2"] == 100


def test_rouge_by_hand():
    scores = rouge.score(["the cat sat"], [["the cat was on the mat"]])
    assert scores["rouge-1"] == pytest.approx(100 * 4 / 9)
    assert scores["rouge-2"] == pytest.approx(100 * 2 / 7)
    assert scores["rouge-l"] == pytest.approx(100 * 4 / 9)
