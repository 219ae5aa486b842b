"""Each rule of each filter on texts whose verdict is known, and on random texts by definition."""

import gzip
import re
import sys
import time
from collections import Counter
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_tools.documents import Document, Dropped
from data_tools.filtering import BEFORE, PACKAGE, Edited
from data_tools.filters import (
    c4,
    fineweb,
    ftfy,
    gopher_quality,
    gopher_repetition,
    language,
    length,
    personal_data,
    url,
    words,
)
from data_tools.words import SENTENCE_ENDS, marks, plain_words
from data_tools.words import words as words_of
from januslm.config import Refused
from januslm.registry import find, names, options

PROSE = (
    "The town lies on the river, and it has been there for a thousand years. People came to trade "
    "with the north; they built a wall to keep what they had. That wall still stands today. Of the "
    "nine gates only two remain, but they have towers that travellers draw. When the bridge was "
    "burnt, its stones were carried off to mend the church."
)
OF_TEXT = [name for name in names(PACKAGE) if hasattr(find(PACKAGE, name), BEFORE)]
# Right to left, without spaces, with joiners, of other planes, nothing but marks, a single word.
OTHERS = (
    "",
    " \n\t\u2003",
    "word",
    "\u0627\u0644\u0633\u0644\u0627\u0645 \u0639\u0644\u064a\u0643\u0645 \u061f " * 30,
    "\u05e9\u05dc\u05d5\u05dd \u05e2\u05d5\u05dc\u05dd.\n" * 9,
    "\u8fd9\u662f\u4e00\u4e2a\u6d4b\u8bd5\u3002" * 60,
    "\U0001f469\u200d\U0001f4bb \U0001f642 \U0001f1e9\U0001f1ea\n" * 20,
    "\u0939\u093f\u0928\u094d\u0926\u0940 \u092d\u093e\u0937\u093e\u0964 " * 20,
    "\U00020000\U0002a6d6" * 40,
    "... !!! ??? --- \u2026 {} [] <> @@ ## ::" * 5,
    "\0\x01\x1b[31m \ufeff\u200e",
    "a" * 5000,
    "\n" * 5000,
)


def ask(filter, text: str, address: str = "", **options):
    return filter.of_text(Document(text, "g", url=address), **options)


def why(filter, text: str, address: str = "", **options) -> tuple[str, float | None]:
    """(the reason without the filter's name, the number rounded); ("", None) where it is kept."""
    found = ask(filter, text, address, **options)
    if not isinstance(found, Dropped):
        return "", None
    filter_name, _, rest = found.reason.partition(": ")
    assert filter_name == filter.__name__.rpartition(".")[2]
    return rest, None if found.number is None else round(found.number, 3)


# --- every filter


@pytest.mark.slow
@pytest.mark.parametrize("name", OF_TEXT)
@pytest.mark.parametrize("text", OTHERS, ids=lambda text: repr(text[:8]))
def test_any_script_and_any_nothing_has_a_verdict_with_its_reason(name, text):
    found = ask(find(PACKAGE, name), text)
    assert isinstance(found, Document | Dropped | Edited)
    if isinstance(found, Dropped):
        assert found.reason
    if isinstance(found, Edited):
        assert found.document.text != text or found.edits == {}
        assert all(count > 0 for count in found.edits.values())
    assert found == ask(find(PACKAGE, name), text)


@pytest.mark.slow
@pytest.mark.parametrize("name", OF_TEXT)
@given(text=st.text(alphabet=st.characters(exclude_categories=["Cs"]), max_size=200))
def test_no_text_breaks_a_filter(name, text):
    assert isinstance(ask(find(PACKAGE, name), text), Document | Dropped | Edited)


@pytest.mark.slow
@pytest.mark.parametrize("name", OF_TEXT)
@pytest.mark.parametrize(
    "piece",
    ["a", " ", ".", ". ", "a.", "a@", "a.b@", "1.", "1:", "2001:", "+1 ", "[", "[1", "\n", "\u3002",
     '."', "- ", "http://", "&amp", "\u00c3", "1 ", "x\n\n"],
)  # fmt: skip
def test_no_text_takes_time_out_of_proportion(name, piece):
    """A million characters of one kind: a rule that looks at each pair of them would take hours."""
    start = time.process_time()
    ask(find(PACKAGE, name), piece * (200_000 // len(piece)))
    assert time.process_time() - start < 20


def test_prose_passes_all_of_them():
    for name in OF_TEXT:
        assert ask(find(PACKAGE, name), PROSE) == Document(PROSE, "g") or name == "language"


# --- words


def test_a_word_is_what_stands_between_spaces_or_besides_a_mark():
    text = "Don't stop\u2014he said: \u201cgo!\u201d \U0001f642"
    assert words_of(text, "spaces")[1:4] == ["stop\u2014he", "said:", "\u201cgo!\u201d"]
    assert words_of(text, "marks") == [
        "Don't", "stop", "\u2014", "he", "said", ":", "\u201c", "go", "!", "\u201d", "\U0001f642"
    ]  # fmt: skip
    assert words_of("1,000.5 e.g. a,b U.S. -----x_y...", "marks") == [
        "1,000.5", "e.g", ".", "a", ",", "b", "U.S", ".", "-----", "x_y", "..."
    ]  # fmt: skip
    hindi = "\u0939\u093f\u0928\u094d\u0926\u0940"  # one word, three of its signs are no letters
    assert words_of(f"{hindi}\u0964", "marks") == [hindi, "\u0964"]
    assert words_of("\u6211\u662f\u5b66\u751f a1", "marks") == [*"\u6211\u662f\u5b66\u751f", "a1"]
    assert {"-", "_", "\u2022", "\u3002", "\U0001f642", "$"} < marks()
    assert not {"a", "1", " ", "\u0940"} & marks()


@given(st.text())
def test_words_lose_nothing_but_space(text):
    for kind in ("spaces", "marks"):
        assert "".join(words_of(text, kind)) == "".join(text.split())


def test_words_are_compared_without_case_marks_width_and_what_cannot_be_seen():
    odd = "\uff26\uff55\uff4c\uff4c-width, co\u00adop \u2018na\u00efve\u2019!\u200b"
    assert plain_words(odd) == ["full", "width", "coop", "na\u00efve"]
    assert plain_words("\u6211\u662f\u5b66\u751f\u3002") == [*"\u6211\u662f\u5b66\u751f"]
    assert {".", "!", "?", "\u3002", "\u0964", "\u061f"} < SENTENCE_ENDS


# --- Gopher: quality


BROKEN = [
    ("one " * 49, "words below 50", 49),
    ("the and " * 20 + "- " * 30, "words below 50", 40),  # a mark alone is no word
    ("the and " * 50_001, "words above 100000", 100_002),
    ("a of " * 40, "letters in a word below 3", 1.5),
    ("internationalised the " * 50 + "internationalised", "letters in a word above 10", 10.069),
    (PROSE + " #" * 8, "# to words above 0.1", None),
    (PROSE + " well... but\u2026" * 4, "ellipses to words above 0.1", None),
    ("\n".join(f"- {line}" for line in PROSE.split(". ")), "lines with a bullet above 0.9", 1.0),
    (PROSE.replace(". ", "...\n", 2), "lines with an ellipsis above 0.3", 0.667),
    (PROSE + " 1234" * 20, "words with a letter below 0.8", None),
    ("Die Stadt liegt am Fluss seit langer Zeit " * 8, "stop words below 2", 0),
    ("Stadt the liegt Fluss seit langer Zeit " * 8, "stop words below 2", 1),  # one, eight times
]


@pytest.mark.parametrize(("text", "rule", "number"), BROKEN, ids=[one[1] for one in BROKEN])
def test_a_text_that_breaks_one_rule_of_gophers_quality_is_dropped_by_it(text, rule, number):
    reason, measured = why(gopher_quality, text)
    assert reason == rule
    assert number in (None, measured)


def test_gophers_limits_are_those_of_the_paper_and_can_be_set():
    assert why(gopher_quality, "the and with " * 17) == ("", None)  # 51 words
    assert why(gopher_quality, "the and with " * 16 + "the and") == ("", None)  # 50
    assert why(gopher_quality, "the and with " * 16 + "the")[0] == "words below 50"
    short = "Das ist kurz."
    off = {"least_words": 3, "least_stop_words": 0}
    assert why(gopher_quality, short, **off) == ("", None)
    own = {"stop_words": ["das", "ist"], "least_words": 3}
    assert why(gopher_quality, short, **own) == ("", None)
    # Nine words with a letter and three marks: 0.75, where marks are words.
    marked = "the sun, and the moon; with that, be it"
    assert why(gopher_quality, marked, least_words=3) == ("", None)
    assert why(gopher_quality, marked, least_words=3, word="marks")[1] == 0.75


# --- Gopher: repetition


def by_definition(text: str, kind: str) -> list[tuple[str, float]]:
    """(rule, share) of all rules, written down as they are described, at any cost."""
    found = []
    paragraphs = re.split(r"\n\n+", text.strip())
    lines = [line for line in text.split("\n") if line.strip()]
    for name, parts in (("paragraphs", paragraphs), ("lines", lines)):
        again = [part for place, part in enumerate(parts) if part in parts[:place]]
        found.append((f"{name} again", len(again) / max(1, len(parts))))
        found.append((f"characters in {name} again", len("".join(again)) / max(1, len(text))))
    every = words_of(text, kind)
    for n in range(2, 11):
        grams = [tuple(every[at : at + n]) for at in range(len(every) - n + 1)]
        if n < 5:
            counts = [grams.count(gram) for gram in grams]
            top = max(counts, default=0)
            size = len(" ".join(grams[counts.index(top)])) * top if top > 1 else 0
            found.append((f"characters in the top {n}-gram", size / max(1, len(text))))
            continue
        size, at, begun = 0, 0, []  # begun: n-grams that count as having come before
        while at < len(grams):
            if grams[at] in begun:
                size += len("".join(grams[at]))
                at += n
            else:
                begun.append(grams[at])
                at += 1
        found.append((f"characters in {n}-grams again", size / max(1, len(text))))
    return found


PARTS = ("paragraphs", "paragraph_characters", "lines", "line_characters")
LIMITS = [0.3, 0.2, 0.3, 0.2, 0.2, 0.18, 0.16, 0.15, 0.14, 0.13, 0.12, 0.11, 0.1]


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["spaces", "marks"])
def test_gophers_repetition_is_what_its_definition_says_on_hundreds_of_texts(kind):
    rng = np.random.default_rng(15)
    seen: Counter = Counter()
    for number in range(400):
        vocabulary = rng.choice(
            ["tea", "on", "\u00fcber", "\u8336", "\U0001f642", "it's", "no,"], 7
        )
        vocabulary = [*vocabulary, *(f"w{i}" for i in range(rng.integers(1, 300)))]
        count = int(rng.integers(0, 120))
        chosen = rng.choice(vocabulary, count)
        gaps = rng.choice([" ", "\n", "\n\n", ".\n"], count, p=[0.8, 0.1, 0.05, 0.05])
        text = "".join(f"{word}{gap}" for word, gap in zip(chosen, gaps, strict=True))
        if number % 3 == 0:
            text += text[: len(text) // int(rng.integers(1, 8))]
        expected = [
            (f"{rule} above {most:g}", round(share, 3))
            for (rule, share), most in zip(by_definition(text, kind), LIMITS, strict=True)
            if share > most
        ]
        verdict = why(gopher_repetition, text, word=kind)
        assert verdict == (expected[0] if expected else ("", None)), text
        seen[verdict[0]] += 1
    assert len(seen) > 5, seen


@pytest.mark.parametrize("place", range(13))
def test_each_rule_of_gophers_repetition_drops_by_itself(place):
    """With all the others off, each number is the one of the definition."""
    once = PROSE + "\n\n" + PROSE.replace("river", "sea") + "\n" + "The wall.\nThe wall."
    text = once + "\n\nAgain and again\n\nAgain and again"
    off = 9.0
    limits = [0.0 if at == place else off for at in range(13)]
    options = dict(zip(PARTS, limits[:4], strict=True)) | {"top": limits[4:7], "again": limits[7:]}
    rule, share = by_definition(text, "spaces")[place]
    assert share > 0
    assert why(gopher_repetition, text, **options) == (f"{rule} above 0", round(share, 3))


def test_what_comes_once_is_no_repetition():
    assert why(gopher_repetition, "donaudampfschiff fahrt") == ("", None)
    assert why(gopher_repetition, PROSE) == ("", None)


# --- FineWeb


SAID = "It repeats what it has said.\n"
RULES_OF_FINEWEB = [
    ("\n \n", "no line with anything on it", 0),
    ("A menu entry\n" * 9 + "One that ends.", "lines that end as sentences below 0.12", 0.1),
    (f"It is.\n\nIt was.\n\nSo?\n{PROSE}", "lines of 30 characters or less above 0.67", 0.75),
    (f"{PROSE}\n{PROSE}x.\n{SAID}{SAID}", "characters in lines again above 0.01", None),
    (f"{'many-' * 8}words.\n\n{'or-' * 12}one.", "line feeds to words above 0.3", 1),
    (PROSE, "", None),
    ("\u8fd9\u662f\u4e00\u4e2a\u6d4b\u8bd5\u3002" * 9, "", None),
    ('Of a quotation that is the end: "yes"', "", None),
]  # fmt: skip


@pytest.mark.parametrize(("text", "rule", "number"), RULES_OF_FINEWEB)
def test_finewebs_rules_drop_what_they_are_there_for(text, rule, number):
    reason, measured = why(fineweb, text)
    assert reason == rule
    assert number in (None, measured)


def test_finewebs_limits_are_kept_at_them():
    lines = ["It stands here, and it has an end of its own.", "It stands here, and has no end"]
    text = "\n".join(f"{number} {line}" for number, line in enumerate(lines * 2))
    assert why(fineweb, text, least_ended=0.5) == ("", None)
    assert why(fineweb, text, least_ended=0.51)[1] == 0.5
    assert why(fineweb, text, short=32, most_short=0.5) == ("", None)
    assert why(fineweb, text, short=32, most_short=0.49)[1] == 0.5


# --- C4

PAGE = [
    "The first of three sentences ends here. The second one follows it.",
    "A third stands on a line of its own, it has enough words.",
]


def cleaned(*lines: str, **options) -> tuple[str, dict]:
    found = ask(c4, "\n".join([*PAGE, *lines]), **options)
    if isinstance(found, Edited):
        return found.document.text.removeprefix("\n".join(PAGE)).strip(), dict(found.edits)
    if isinstance(found, Dropped):
        return found.reason, {}
    return found.text.removeprefix("\n".join(PAGE)).strip(), {}


@pytest.mark.parametrize(
    ("line", "left", "edits"),
    [
        ("This one has no end mark at all", "", {c4.NO_END: 1}),
        ("This one trails off in the end...", "", {c4.NO_END: 1}),
        ("Too few words here.", "", {c4.FEW_WORDS: 1}),
        ("Five words are just enough.", "Five words are just enough.", {}),
        ('She said that "it is enough"', 'She said that "it is enough"', {}),
        ("Is this one a question? Yes!", "Is this one a question? Yes!", {}),
        (f"One has {'x' * 1001} in its middle, is it.", "", {c4.LONG_WORD: 1}),
        (f"One has {'x' * 1000} in its middle, is it.", None, {}),
        ("Please enable JavaScript to see this page.", "", {c4.SCRIPT: 1}),
        ("By going on you accept our Privacy Policy.", "", {c4.POLICY: 1}),
        ("This site uses cookies to make it better.", "", {c4.POLICY: 1}),
        ("It was built[12] by the king.[edit]", "It was built by the king.", {"citations": 2}),
        ("  A line with space at both its ends.  ", "A line with space at both its ends.", {}),
        ("Lorem ipsum dolor sit amet", "c4: lorem ipsum", {}),
        ("if (x) { return", "c4: curly bracket", {}),
    ],
)  # fmt: skip
def test_c4_leaves_out_lines_and_drops_pages_by_its_rules(line, left, edits):
    assert cleaned(line) == (line if left is None else left, edits)


@pytest.mark.parametrize(
    ("option", "line"),
    [
        ("end_marks", "This one has no end mark at all"),
        ("javascript", "Please enable JavaScript to see this page."),
        ("policies", "This site uses cookies to make it better."),
        ("lorem_ipsum", "And then lorem ipsum came along here."),
        ("curly_brackets", "In a set { and } are what you write."),
        ("citations", "It was built in 1840 by the king.[1] ."),
    ],
)
def test_each_rule_of_c4_can_be_left_out(option, line):
    assert cleaned(line)[0] != line
    assert cleaned(line, **{option: False}) == (line, {})


def test_c4_wants_three_sentences():
    assert why(c4, PAGE[0]) == ("fewer than 3 sentences", 2)
    assert why(c4, PAGE[1]) == ("fewer than 3 sentences", 1)
    assert why(c4, "\n".join(PAGE)) == ("", None)
    assert why(c4, "\n".join(PAGE), least_sentences=4) == ("fewer than 4 sentences", 3)
    assert isinstance(ask(c4, "x", least_sentences=0), Edited)


@pytest.mark.parametrize(
    ("line", "count"),
    [
        ("One. Two! Three? Four", 4),
        ('He said "Stop." Then he went.', 2),
        ("It costs 3.50 euros, e.g. here.", 1),
        ("What?! No... Yes.", 3),
        ("\u8fd9\u662f\u3002\u90a3\u662f\uff01", 2),
        ("no end", 1),
        ("(It ends.) It begins.", 2),
        ("J. F. Kennedy spoke to the U.S. Senate. He took vitamin C.", 2),
    ],
)
def test_sentences_are_counted_by_their_ends(line, count):
    assert c4.sentences([line]) == count


# --- length, words, addresses


def test_lengths_are_kept_at_their_limits():
    text = "one two three"
    assert why(length, text) == ("", None)
    for option, at, beyond, reason in (
        ("least_words", 3, 4, "fewer than 4 words"),
        ("most_words", 3, 2, "more than 2 words"),
        ("least_characters", 13, 14, "fewer than 14 characters"),
        ("most_characters", 13, 12, "more than 12 characters"),
    ):
        assert why(length, text, **{option: at}) == ("", None)
        assert why(length, text, **{option: beyond})[0] == reason


def test_listed_words_stand_alone_in_any_case():
    listed = ["damn", "hot air", "c++", "\u6027"]
    for text, found in (
        ("Damn it.", "damn"),
        ("goddamn", ""),
        ("(damn)", "damn"),
        ("Hot Air rises", "hot air"),
        ("shot air", ""),
        ("hot airs", ""),
        ("in C++ and damn", "c++, damn"),
        ("\u7537\u6027\u7684", "\u6027"),
    ):
        dropped = ask(words, text, words=listed)
        assert getattr(dropped, "words", "") == found, text
    assert why(words, "damn hot air", words=listed) == ("has listed words", 2)
    assert why(words, "damn hot air", words=listed, most=2) == ("", None)


def test_lists_are_read_from_files_and_are_part_of_what_a_corpus_is(tmp_path):
    (tmp_path / "bad.txt").write_text("# a list\nDamn\n\nhot air\n", encoding="utf-8")
    with gzip.open(tmp_path / "more.txt.gz", "wt") as file:
        file.write("heck\n")
    ready = words.prepared(tmp_path, tmp_path, words=["x"], files=["bad.txt", "*.gz"], most=0)
    for text in ("damn", "Hot air", "heck", "x"):
        assert isinstance(ready.ask(Document(text, "g")), Dropped), text
    assert ready.ask(Document("# a list", "g")).text
    (tmp_path / "bad.txt").write_text("other\n", encoding="utf-8")
    words.entries.__globals__["_entries"].cache_clear()
    again = words.prepared(tmp_path, tmp_path, words=["x"], files=["bad.txt", "*.gz"], most=0)
    assert again.files.keys() == ready.files.keys() == {"files"}
    assert again.files != ready.files
    with pytest.raises(Refused, match="files: no file matches 'none'"):
        words.prepared(tmp_path, tmp_path, words=[], files=["none"], most=0)
    (tmp_path / "bad.txt").write_bytes(b"good\n\xff\n")
    words.entries.__globals__["_entries"].cache_clear()
    with pytest.raises(Refused, match=r"bad\.txt:2: not UTF-8"):
        words.prepared(tmp_path, tmp_path, words=[], files=["bad.txt"], most=0)


ADDRESSES = {
    "domains": ["bad.example", "sub.mixed.org"],
    "pages": ["https://good.example/one-page"],
    "words": ["casino"],
    "soft_words": ["adult", "hot"],
    "parts": ["xxxvideo"],
}


@pytest.mark.parametrize(
    ("address", "reason", "found"),
    [
        ("https://bad.example/", "listed domain", "bad.example"),
        ("http://WWW.Bad.Example:8080/a", "listed domain", "bad.example"),
        ("https://notbad.example/", "", ""),
        ("https://mixed.org/", "", ""),
        ("https://a.sub.mixed.org", "listed domain", "sub.mixed.org"),
        ("https://good.example/one-page", "listed page", "https://good.example/one-page"),
        ("https://good.example/one-page/2", "", ""),
        ("https://a.example/Casino-night", "listed word", "casino"),
        ("https://a.example/casinos", "", ""),
        ("https://a.example/adult-education", "", ""),
        ("https://a.example/adult/hot", "soft words", "adult, hot"),
        ("https://a.example/my-xxx-video-s", "listed part", "xxxvideo"),
        ("http://[half", "", ""),
        ("", "", ""),
    ],
)
def test_addresses_are_dropped_by_the_first_list_they_are_on(address, reason, found):
    assert why(url, "text", address, **ADDRESSES)[0] == reason
    assert getattr(ask(url, "text", address, **ADDRESSES), "words", "") == found


def test_a_document_without_an_address_is_kept_or_dropped_as_asked():
    assert why(url, "text", without="drop") == ("no address", None)
    assert why(url, "text") == ("", None)


# --- language


GERMAN = "Die Stadt liegt am Fluss, und sie ist seit mehr als tausend Jahren dort. Das weiß jeder."


def test_a_language_is_found_kept_as_a_fact_and_dropped_if_it_is_not_wanted():
    kept = ask(language, PROSE)
    assert kept.text == PROSE
    assert kept.facts["language"] == "en"
    assert 0.65 <= kept.facts["language_score"] <= 1
    assert why(language, GERMAN)[0] == "de"
    assert ask(language, GERMAN, languages=["fr", "de"]).facts["language"] == "de"
    assert ask(language, GERMAN, languages=[]).facts["language"] == "de"
    assert why(language, "ok", languages=[])[0] == "none above 0.65"
    assert ask(language, PROSE + GERMAN * 9, characters=200).facts["language"] == "en"
    ready = partial(language.prepared, Path(), Path(), least=0.5)
    assert ready(languages=["en"]).ask(Document(PROSE, "g")).facts["language"] == "en"
    with pytest.raises(Refused, match=r"languages: no 'english'; there are .*en, "):
        ready(languages=["english"])


@pytest.mark.parametrize(("filter", "library"), [(language, "py3langid"), (ftfy, "ftfy")])
def test_a_missing_library_is_refused_with_the_extra_that_has_it(monkeypatch, filter, library):
    for name in [one for one in sys.modules if one.partition(".")[0] == library]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, library, None)
    monkeypatch.setattr(filter, "_identifier", language._identifier.__wrapped__, raising=False)
    given = {"line_feeds": True} if filter is ftfy else {}  # options that no other test has asked
    table = options(filter.of_text, given, "x")
    with pytest.raises(Refused, match=rf"needs {library}: pip install 'januslm\[web\]'"):
        filter.prepared(Path(), Path(), **table)


# --- ftfy, personal data


@pytest.mark.parametrize(
    ("text", "mended"),
    [
        ("sch\u00c3\u00b6n", "sch\u00f6n"),
        ("it\u00e2\u20ac\u2122s", "it\u2019s"),
        ("a &amp; b", "a & b"),
        ("\x1b[31mred", "red"),
        ("\u201cfine\u201d \ufb01 \uff21 na\u00efve", None),
        ("plain", None),
        ("\u0627\u0644\u0633\u0644\u0627\u0645", None),
    ],
)
def test_ftfy_mends_what_was_decoded_wrongly_and_changes_no_style(text, mended):
    found = ask(ftfy, text)
    assert found == (Document(text, "g") if mended is None else Edited(Document(mended, "g")))


def test_ftfys_other_mending_is_an_option():
    every = dict.fromkeys(
        ("straight_quotes", "plain_widths", "plain_ligatures", "line_feeds"), True
    )
    found = ask(ftfy, "\u201cx\u201d \ufb01 \uff21 e\u0301\r\n", normalization="NFC", **every)
    assert found.document.text == '"x" fi A \u00e9\n'


MAIL, IP, PHONE = "email@example.com", "192.0.2.1", "(555) 555-0100"


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("Write to jane.doe+news@mail.example.co.uk.", f"Write to {MAIL}."),
        ("<a@b.org>, (c@d.de); e@f.io!", f"<{MAIL}>, ({MAIL}); {MAIL}!"),
        ("\u8bf7\u5199\u4fe1\u81f3user@site.cn\u3002", f"\u8bf7\u5199\u4fe1\u81f3{MAIL}\u3002"),
        ("user@host and @handle and a@b.c are none", None),
        ("from 8.8.8.8, port 80", f"from {IP}, port 80"),
        ("at home 192.168.0.1 and 127.0.0.1 and 10.0.0.7", None),
        ("version 1.2.3 or 1.2.3.4.5 or 300.1.1.1", None),
        ("via 2001:4860:4860::8888.", f"via {IP}."),
        ("for example 2001:db8::1 at 12:30:45", None),
        ("Call +49 30 901820 or +1 (212) 555-0187.", f"Call {PHONE} or {PHONE}."),
        ("Call (212) 555-0187, 212-555-0187 or 212.555.0187", f"Call {PHONE}, {PHONE} or {PHONE}"),
        ("In 2020-12-31, 1914-1918, ISBN 978-3-16-148410-0, 3.141592653", None),
        ("10,000,000 people and $1 234 567.89 of them", None),
        ("https://example.org/2125550187 and 2125550187", None),
        ("already " + MAIL + " " + IP + " " + PHONE, None),
    ],
)
def test_personal_data_is_masked_and_what_looks_like_it_is_not(text, masked):
    found = ask(personal_data, text)
    assert (found.document.text if isinstance(found, Edited) else None) == masked


def test_what_was_masked_is_counted_by_its_kind_and_each_kind_can_be_left():
    text = "a@b.org, c@d.org, 8.8.8.8, 2001:4860:4860::8888, (212) 555-0187"
    assert ask(personal_data, text).edits == {
        "e-mail addresses": 2,
        "IP addresses": 2,
        "telephone numbers": 1,
    }
    assert ask(personal_data, text, email="", ip="").edits == {"telephone numbers": 1}
    assert ask(personal_data, text, email="", ip="", phone="") == Document(text, "g")
    assert "[mail], [mail]" in ask(personal_data, text, email="[mail]").document.text
