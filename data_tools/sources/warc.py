"""Crawled pages, WARC files plain or .gz: the text of each page that was answered with 200."""

import codecs
import io
import re
import zlib
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Literal, NamedTuple

from data_tools.documents import LONGEST, Document, Dropped, Found, Input, Invalid, Span, document
from data_tools.files import File, buffered, frames, matching
from data_tools.formats import MARKS, WARC, mark_of
from data_tools.sources._warc_records import Record, fields, records, with_headers
from januslm.config import Refused

READ = ("text/html", "application/xhtml+xml", "text/plain")
MARKUP = 4  # bytes of a page for each byte of text that filters.max_bytes would keep
# resiliparse takes time in the square of the depth: 0.4 s for 5,000, a minute for 50,000 elements.
DEEPEST = 2000
_TAG = re.compile(r"<(/?)([a-zA-Z][a-zA-Z0-9]*)")
# Elements that hold nothing, or that the next of their kind ends: they do not make a page deeper.
_FLAT = re.compile(
    "area|base|br|col|embed|hr|img|input|link|meta|param|source|track|wbr|"
    "p|li|dd|dt|option|tr|td|th|tbody|thead|tfoot",
    re.IGNORECASE,
)
_REASON = "text/html that the extractor cannot read"


def inputs(
    root: Path,
    *,
    files: list[str],
    extractor: Literal["resiliparse", "trafilatura"] = "resiliparse",
    main_content: bool = True,
    invalid: Invalid = "replace",
) -> list[Input]:
    """One input per file.

    files: patterns below root, ** for any depth, or addresses.  extractor: resiliparse is ten
    times as fast, trafilatura keeps less that is no prose.  main_content: without menus, headers,
    footers and readers' comments.  invalid: what to do with bytes that are not of the page's
    encoding, which its HTTP header, its <meta> or its bytes tell.
    """
    extract = _Extract(extractor, main_content)
    extract.check()
    return [
        Input(
            file.name, file.bytes, partial(_read, file, extract, invalid), file.version, file.shared
        )
        for file in matching(root, files, WARC)
    ]


class _Extract(NamedTuple):
    name: str
    main: bool

    def check(self) -> None:
        """Refused where the package is missing."""
        try:
            __import__(self.name)
            __import__("resiliparse")  # it also finds out encodings
        except ImportError as error:
            raise Refused(f"sources of kind warc: {error}; pip install 'januslm[web]'") from None

    def text(self, html: str) -> str:
        """What a page says."""
        if self.name == "trafilatura":
            from trafilatura import extract as main_text

            found = main_text(html, favor_precision=self.main, include_comments=not self.main)
            return found or ""
        from resiliparse.extract.html2text import extract_plain_text

        return extract_plain_text(html, main_content=self.main, alt_texts=False)


def _read(file: File, extract: _Extract, invalid: str, span: Span | None = None) -> Iterator[Found]:
    for record in records(file, MARKUP * LONGEST.get(), span):
        if isinstance(record, Dropped):
            yield record
            continue
        page = _page(record, MARKUP * LONGEST.get())
        if isinstance(page, Dropped):
            yield page
        else:
            found = _document(page, file.name, extract, invalid, record.where)
            yield with_headers(found, record) if isinstance(found, Document) else found


class _Page(NamedTuple):
    body: bytes
    kind: str  # its media type
    charset: str  # that its HTTP header tells, or ""


def _page(record: Record, most: int) -> _Page | Dropped:
    """The page of a response with status 200 and a type that is read."""
    kind = record.headers.get("warc-type", "")
    if kind == "conversion":
        return Dropped('no page: WARC conversion, which kind = "wet" reads')
    if kind != "response":
        return Dropped(f"no page: WARC {kind[:20] or 'record without a type'}")
    first, _, rest = record.block.partition(b"\n")
    status = re.match(rb"HTTP/\d(?:\.\d)? (\d{3})\b", first)
    if not status:
        return Dropped("response that is not HTTP")
    if status[1] != b"200":
        return Dropped(f"HTTP status {status[1].decode()}")
    head = re.match(rb"(?:[^\r\n]+\r?\n)*\r?\n", rest)
    if not head:
        return Dropped("HTTP headers cut short")
    headers = fields(head[0].splitlines())
    kind, _, more = headers.get("content-type", "unknown").partition(";")
    kind = kind.strip().lower()
    if kind not in READ:
        return Dropped(f"Content-Type {kind[:60]}")
    body = rest[head.end() :]
    chunked = "chunked" in headers.get("transfer-encoding", "").lower()
    joined = _joined(body) if chunked else body
    encoding = headers.get("content-encoding", "").lower()
    unpacked = None if joined is None else _unpacked(joined, encoding, most)
    if unpacked is None:
        return Dropped("HTTP body damaged or cut short")
    charset = re.search(r"charset\s*=\s*[\"']?([^\s\"';]+)", more, re.IGNORECASE)
    return _Page(unpacked, kind, charset[1] if charset else "")


def _joined(body: bytes) -> bytes | None:
    """The chunks of a body as one (RFC 9112, 7.1); None where one is missing.

    Many crawlers join them and leave the header as it was: a body without chunks is a body.
    """
    if not re.match(rb"[0-9a-fA-F]{1,8}[ \t]*(?:;[^\n]*)?\r?\n", body):
        return body
    stream = io.BytesIO(body)
    whole: list[bytes] = []
    while True:
        size = stream.readline().partition(b";")[0].strip()
        if not re.fullmatch(rb"[0-9a-fA-F]{1,8}", size):
            return None
        if not int(size, 16):
            return b"".join(whole)
        whole.append(stream.read(int(size, 16)))
        if len(whole[-1]) < int(size, 16) or stream.readline().strip():
            return None


def _unpacked(body: bytes, encoding: str, most: int) -> bytes | None:
    """A body without its Content-Encoding; None where it is damaged, cut, or a bomb.

    Many crawlers unpack it and leave the header as it was: what cannot be packed is taken as it is.
    """
    try:
        if encoding in ("gzip", "x-gzip") and body.startswith(b"\x1f\x8b"):
            return _inflated(body, 31, most)
        if encoding == "deflate" and body[:1] == b"\x78":
            return _inflated(body, 15, most)
        if encoding == "br" and body.lstrip()[:1] != b"<":
            from fastwarc.stream_io import BrotliReader

            whole = BrotliReader(io.BytesIO(body)).read(most + 1)
            return whole if len(whole) <= most else None
        if encoding == "zstd" and body.startswith(b"\x28\xb5\x2f\xfd"):
            whole = buffered(frames(io.BytesIO(body))).read(most + 1)
            return whole if len(whole) <= most else None
    except Exception:  # each library has its own
        return None
    return body


def _inflated(body: bytes, window: int, most: int) -> bytes | None:
    unpacker = zlib.decompressobj(window)
    whole = unpacker.decompress(body, most)
    return whole if unpacker.eof else None


def _document(page: _Page, group: str, extract: _Extract, invalid: str, where: str) -> Found:
    html, repaired = _decoded(page)
    if repaired and invalid == "drop":
        return Dropped("invalid in its encoding")
    if repaired and invalid == "refuse":
        raise Refused(f"{where}: not of its encoding; invalid = 'replace' or 'drop' would read on")
    if page.kind != "text/plain":
        if html.count("<") > DEEPEST and _depth(html) > DEEPEST:
            return Dropped(f"text/html nested deeper than {DEEPEST} elements")
        try:
            html = extract.text(html)
        except Exception:  # a page may spoil a parser in any way; it is one page
            return Dropped(_REASON)
    nuls = "\0" in html
    found = document(html.replace("\0", "").strip(), group, invalid, where)
    return (
        replace(found, repaired=True) if isinstance(found, Document) and repaired | nuls else found
    )


def _depth(html: str) -> int:
    """How deep elements lie in each other, at most."""
    depth = deepest = 0
    for closes, name in _TAG.findall(html):
        if not _FLAT.fullmatch(name):
            depth = max(0, depth - 1) if closes else depth + 1
            deepest = max(deepest, depth)
    return deepest


def _decoded(page: _Page) -> tuple[str, bool]:
    """A page as text, and whether some of its bytes had to be replaced.

    By its byte order mark, its HTTP header, its <meta>, its bytes; the first that fits them all.
    """
    from resiliparse.parse.encoding import detect_encoding, map_encoding_to_html5

    if mark := mark_of(page.body):
        return _replaced(page.body, MARKS[mark])
    wanted = []
    if page.charset:
        wanted.append(map_encoding_to_html5(page.charset, fallback_utf8=False))
    for by_meta in (page.kind != "text/plain", False):
        wanted.append(detect_encoding(page.body, html5_compatible=True, from_html_meta=by_meta))
    known = [name for name in wanted if name and _is_codec(name)] or ["utf-8"]
    for name in known:
        try:
            return page.body.decode(name), False
        except UnicodeError:
            continue
    return _replaced(page.body, known[0])


def _replaced(body: bytes, encoding: str) -> tuple[str, bool]:
    try:
        return body.decode(encoding), False
    except UnicodeError:
        return body.decode(encoding, "replace"), True


def _is_codec(name: str) -> bool:
    try:
        return bool(codecs.lookup(name)._is_text_encoding)  # type: ignore[attr-defined]
    except LookupError:
        return False
