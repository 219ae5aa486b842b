"""Pages of crawls and articles of wikis: what is read of them, and why the rest is not."""

import bz2
import gzip
import zlib
from collections import Counter
from pathlib import Path

import pytest
import zstandard

from data_tools.documents import Document, Dropped
from data_tools.sources import datatrove, dolma, warc, wet, wikipedia
from data_tools.sources._wikitext import plain
from januslm.config import Refused
from tests.conftest import ROOT

FIXTURES = ROOT / "tests" / "fixtures"
WEB = ROOT.parent / "shared" / "data" / "web"
REAL = pytest.mark.skipif(not WEB.is_dir(), reason="needs ../shared/data/web, real crawls")


def found(inputs: list) -> list[Document | Dropped]:
    return [one for some in inputs for one in some.read()]


def texts(got: list[Document | Dropped]) -> list[str]:
    return [one.text for one in got if isinstance(one, Document)]


def reasons(got: list[Document | Dropped]) -> Counter:
    return Counter(one.reason for one in got if isinstance(one, Dropped))


def response(body: bytes, *headers: str, status: str = "200 OK") -> bytes:
    http = f"HTTP/1.1 {status}\r\n" + "".join(f"{one}\r\n" for one in headers) + "\r\n"
    block = http.encode("latin-1") + body
    head = "WARC/1.1\r\nWARC-Type: response\r\nWARC-Target-URI: https://a.example/x\r\n"
    return f"{head}Content-Length: {len(block)}\r\n\r\n".encode() + block + b"\r\n\r\n"


def read(folder: Path, raw: bytes, **options) -> list[Document | Dropped]:
    (folder / "a.warc").write_bytes(raw)
    return found(warc.inputs(folder, files=["a.warc"], **options))


HTML = "Content-Type: text/html"
CHUNKED = "Transfer-Encoding: chunked"


# --- pages


PAGES = {
    "plain text": (["Content-Type: text/plain"], b"a < b"),
    "html": ([HTML], b"<p>a &lt; b"),
    "another case": (["CONTENT-TYPE: Text/HTML ; Charset=UTF-8"], b"<p>a &lt; b"),
    "xhtml": (["Content-Type: application/xhtml+xml"], b"<p>a &lt; b</p>"),
    "chunks": ([HTML, CHUNKED], b"5;x=y\r\n<p>a \r\n6\r\n&lt; b\r\n0\r\n\r\n"),
    "chunks joined before": ([HTML, CHUNKED], b"<p>a &lt; b"),
    "gzip": ([HTML, "Content-Encoding: gzip"], gzip.compress(b"<p>a &lt; b")),
    "unpacked before": ([HTML, "Content-Encoding: gzip"], b"<p>a &lt; b"),
    "deflate": ([HTML, "Content-Encoding: deflate"], zlib.compress(b"<p>a &lt; b")),
    "zstd": ([HTML, "Content-Encoding: zstd"], zstandard.compress(b"<p>a &lt; b")),
    "no Content-Length": ([HTML, "Content-Length: 99999"], b"<p>a &lt; b"),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", PAGES)
def test_a_page_is_read_however_it_was_sent(tmp_path, name):
    headers, body = PAGES[name]
    [page] = read(tmp_path, response(body, *headers))
    assert page == Document("a < b", "a.warc", url="https://a.example/x")


LOST = {
    "HTTP status 404": response(b"gone", HTML, status="404 Not Found"),
    "HTTP status 301": response(b"", HTML, status="301 Moved"),
    "Content-Type image/png": response(b"\x89PNG", "Content-Type: image/png"),
    "Content-Type unknown": response(b"<p>text"),
    "response that is not HTTP": response(b"", status="").replace(b"HTTP/1.1 \r\n", b"gopher\r\n"),
    "HTTP headers cut short": response(b"", HTML).replace(b"text/html\r\n\r\n", b"text/html\r\na:"),
    "HTTP body damaged or cut short": response(b"5\r\nab", HTML, CHUNKED),
    "no page: WARC request": response(b"x", HTML).replace(b": response", b": request"),
    "WARC record cut short": response(b"x" * 99, HTML)[:-50],
    "text/html nested deeper than 2000 elements": response(b"<div>" * 5000 + b"x", HTML),
    "invalid in its encoding": response(b"\xff\xfe\xff", HTML + "; charset=utf-8", "X: y"),
}


@pytest.mark.parametrize("reason", LOST)
def test_what_is_no_page_is_counted_by_its_reason(tmp_path, reason):
    after = response(b"<p>next", HTML) if reason != "WARC record cut short" else b""
    got = read(tmp_path, LOST[reason] + after, invalid="drop")
    assert texts(got) == (["next"] if after else [])
    assert reasons(got) == {reason: 1}


BROKEN = [
    ("gzip", gzip.compress(bytes(range(256)))[:-20]),
    ("zstd", zstandard.compress(bytes(range(256)))[:-2]),
    ("br", b"\xff\xff\xff not brotli"),
    ("gzip", gzip.compress(b"x" * 50_000_000)),
]


@pytest.mark.slow
@pytest.mark.parametrize(("encoding", "body"), BROKEN)
def test_a_packed_page_that_was_cut_or_is_a_bomb_is_not_read_as_whole(tmp_path, encoding, body):
    got = read(tmp_path, response(body, HTML, f"Content-Encoding: {encoding}"))
    assert got == [Dropped("HTTP body damaged or cut short")]


WORDS = "Die Größe der Straße überraschte; ein Fußgänger grüßte höflich."
RUSSIAN = "Все счастливые семьи похожи друг на друга, каждая несчастливая семья несчастлива."


@pytest.mark.parametrize(
    ("header", "body"),
    [
        ("; charset=iso-8859-1", f"<p>{WORDS}".encode("latin-1")),
        ('; charset="UTF-8"', f"<p>{WORDS}".encode()),
        ("; charset=nonsense", f"<p>{WORDS}".encode()),
        ("", f"<meta charset=windows-1252><p>{WORDS}".encode("cp1252")),
        ("", f"<p>{WORDS}".encode("cp1252")),
        ("; charset=iso-8859-1", b"\xef\xbb\xbf" + f"<p>{WORDS}".encode()),
        ("", f"<p>{WORDS}".encode("utf-16")),
        ("; charset=utf-8", f"<p>{WORDS}".encode("cp1252")),  # the header is wrong
    ],
)
def test_the_encoding_of_a_page_is_found(tmp_path, header, body):
    [page] = read(tmp_path, response(body, HTML + header))
    assert page.text == WORDS
    assert not page.repaired


def test_a_page_without_a_word_about_its_encoding_is_read_by_its_bytes(tmp_path):
    body = f"<p>{RUSSIAN}".encode("cp1251")
    assert texts(read(tmp_path, response(body, HTML))) == [RUSSIAN]


def test_nul_bytes_of_a_page_are_no_text_and_the_page_counts_as_repaired(tmp_path):
    [page] = read(tmp_path, response(b"one\0 two\0", "Content-Type: text/plain"))
    assert (page.text, page.repaired) == ("one two", True)


@pytest.mark.slow
@pytest.mark.parametrize("extractor", ["resiliparse", "trafilatura"])
def test_no_page_kills_an_extractor(tmp_path, extractor):
    bodies = [
        b"",
        b"<",
        b"<p\0>\0",
        b"<!--",
        b"<svg><math>" * 500,
        b"<table>" * 1500,
        b"&#0;&#xd800;",
    ]
    bodies += [b"<a href=" * 5000, b"\xff" * 999, b"<div>" * 1999, b"<script>", b"<p>" * 50_000]
    raw = b"".join(response(body, HTML) for body in bodies)
    got = read(tmp_path, raw + response(b"<p>A last page with words.", HTML), extractor=extractor)
    assert len(got) == len(bodies) + 1
    assert texts(got)[-1] == (
        "A last page with words." if extractor == "resiliparse" else texts(got)[-1]
    )


def test_an_extractor_that_is_not_installed_is_refused_by_the_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "trafilatura", None)
    with pytest.raises(Refused, match=r"pip install 'januslm\[web\]'"):
        warc.inputs(tmp_path, files=[], extractor="trafilatura")


@REAL
def test_the_pages_of_real_crawls_are_read_and_all_else_is_counted():
    got = found(warc.inputs(WEB, files=["dolma_sample-0000.warc.gz"]))
    assert len(texts(got)) == 22
    assert sum(reasons(got).values()) == 26
    assert all(one.url.startswith("https://") for one in got if isinstance(one, Document))
    [page] = texts(found(warc.inputs(WEB, files=["whirlwind.warc.gz"])))
    [given] = [
        one for one in found(wet.inputs(WEB, files=["*.wet.gz"])) if isinstance(one, Document)
    ]
    assert page.startswith("Escopete")
    assert given.facts["languages"] == "spa"


@REAL
def test_odd_and_damaged_real_archives_cost_what_is_damaged():
    counts = {
        "example.warc.gz": (1, {}),
        "example-trunc.warc": (0, {"WARC record of a wrong Content-Length": 1}),
        "example-bad-non-chunked.warc.gz": (1, {}),
        "example-iana.org-chunked.warc": (1, {}),
        "example-wrong-chunks.warc.gz": (1, {}),
        "post-test.warc.gz": (0, {"Content-Type application/json": 3}),
    }
    for name, (pages, lost) in counts.items():
        got = found(warc.inputs(WEB / "warcio", files=[name]))
        assert len(texts(got)) == pages, name
        assert {k: v for k, v in reasons(got).items() if "no page" not in k} == lost, name
    for name in ("example.arc", "example.arc.gz", "bad.arc"):
        with pytest.raises(Refused, match="looks like an ARC archive; no kind reads it"):
            warc.inputs(WEB / "warcio", files=[name])


# --- addresses and facts


def test_pages_and_rows_carry_their_address_and_what_is_known(tmp_path):
    [first, *_] = found(datatrove.inputs(FIXTURES, files=["sources/datatrove.jsonl"]))
    assert first.url == "https://example.org/1"
    assert first.facts == {
        "id": "<urn:uuid:1>",
        "language": "en",
        "language_score": 0.98,
        "date": "2026-01-02T03:04:05Z",
        "dump": "CC-MAIN-2026-01",
    }
    [first, second] = found(dolma.inputs(FIXTURES, files=["sources/dolma.jsonl"]))
    assert (first.url, first.facts["id"]) == ("https://example.org/1", "a1")
    assert first.facts["source"] == "common-crawl"
    assert second == Dropped("no text under 'text'")


# --- wikis


PAGE = """<page><title>{title}</title><ns>{ns}</ns><id>7</id>
<revision><id>1</id>{model}<text>{text}</text></revision></page>"""


def dump(*pages: str, head: str = "") -> bytes:
    site = "<siteinfo><base>https://xx.wiki.example/wiki/Main</base><namespaces>"
    site += '<namespace key="6">Datei</namespace></namespaces></siteinfo>'
    return f"{head}<mediawiki>{site}{''.join(pages)}</mediawiki>".encode()


def page(text: str, title: str = "A", ns: int = 0, model: str = "") -> str:
    return PAGE.format(text=text, title=title, ns=ns, model=model)


def articles(folder: Path, raw: bytes, name: str = "a.xml", **options) -> list[Document | Dropped]:
    (folder / name).write_bytes(raw)
    return found(wikipedia.inputs(folder, files=[name], **options))


@pytest.mark.slow
def test_articles_are_read_and_other_pages_are_counted(tmp_path):
    raw = dump(
        page("A [[b|c]]. [[Datei:x.png|thumb|no]] &amp;amp; &lt;b&gt;d&lt;/b&gt;", "Ä B"),
        page("#REDIRECT [[A]]"),
        page("talk", ns=1),
        page("{}", model="<model>json</model>"),
        page("x" * 40_000_001),
    )
    for name in ("a.xml", "a.xml.bz2"):
        got = articles(tmp_path, bz2.compress(raw) if name.endswith("2") else raw, name)
        assert texts(got) == ["A c.  & d"]
        assert got[0].url == "https://xx.wiki.example/wiki/%C3%84_B"
        assert reasons(got) == {
            "redirect": 1,
            "page of namespace 1": 1,
            "page of json": 1,
            "longer than 40000000 bytes": 1,
        }
    assert texts(articles(tmp_path, raw, namespaces=(1,))) == ["talk"]


def test_a_dump_that_was_cut_or_declares_entities_is_refused(tmp_path):
    raw = dump(page("one"), page("two"))
    with pytest.raises(Refused, match=r"a\.xml: damaged or cut short \(unclosed token"):
        articles(tmp_path, raw[:-20])
    with pytest.raises(Refused, match=r"a\.xml\.bz2: (damaged or cut short|cannot be read)"):
        articles(tmp_path, bz2.compress(raw * 1)[:-9], "a.xml.bz2")
    bomb = raw.replace(b"<mediawiki>", b'<!DOCTYPE m [<!ENTITY a "b">]><mediawiki>', 1)
    with pytest.raises(Refused, match=r"looks like no file of this kind"):
        articles(tmp_path, bomb)


def test_older_revisions_of_a_page_are_counted(tmp_path):
    two = page("old").replace("</page>", "<revision><text>new</text></revision></page>")
    got = articles(tmp_path, dump(two))
    assert texts(got) == ["new"]
    assert reasons(got) == {"older revision of a page": 1}


@pytest.mark.parametrize(
    ("wikitext", "wanted"),
    [
        ("'''Bold''' and ''slanted''.", "Bold and slanted."),
        ("a{{cite|b={{c}}}} d", "a d"),
        ("a<ref name='x'>note</ref> b<ref name=x /> c", "a b c"),
        ("[[Main page]] [[Main page|words]] [[wikt:house|house]]", "Main page words house"),
        ("a [[de:Haus]] [[Category:B|key]] [[:Category:C]]", "a   Category:C"),
        ("[[Star Trek: Voyager]]", "Star Trek: Voyager"),
        ("[http://a.example label] [//b.example] c", "label  c"),
        ("{|\n! a\n|-\n| b {{c|d}} || [[e|f]]\n|}\nafter", "after"),
        ("[[File:a.jpg|thumb|A [[b|c]] and {{d}}]]e", "e"),
        ("== Title ==\n* one\n# two\n== Empty ==\n=== Too ===\n", "Title\n\none\ntwo"),
        ("a<!-- b -->c<!-- d", "ac"),
        ("x<sub>2</sub> &lt; &nbsp;y<br/>z", "x2 < \xa0y\nz"),
        ("{{never ends [[a|b", "never ends a|b"),
        ("<math>x^2</math> <gallery>\na.jpg\n</gallery> a < b > c", "a < b > c"),
        ("עברית [[א|ב]] العربية", "עברית ב العربية"),
        ("__NOTOC__\na", "a"),
    ],
)
def test_wikitext_becomes_plain_text(wikitext, wanted):
    assert plain(wikitext) == wanted


@pytest.mark.slow
@pytest.mark.parametrize(
    "piece",
    ["{{", "[[", "<ref>", "<!--", "[http://", "<a ", "{|\n", "== a\n", "[[a|", "{{ [[", "'"],
)
def test_no_wikitext_takes_time_in_the_square_of_its_length(piece):
    import time

    begun = time.process_time()
    plain(piece * (300_000 // len(piece)))
    assert time.process_time() - begun < 5
