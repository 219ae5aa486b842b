"""Wikipedia dumps, pages-articles.xml plain or packed (.bz2, .gz, .zst): one article a document."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from urllib.parse import quote, urljoin
from xml.parsers import expat

from data_tools.documents import LONGEST, Document, Dropped, Found, Input, too_long
from data_tools.files import CHUNK, File, matching, opened
from data_tools.formats import WIKIPEDIA
from data_tools.sources._wikitext import GONE_SPACES, plain
from januslm.config import Refused

SPACE = "mediawiki/siteinfo/namespaces/namespace"
GONE = ("-2", "6", "14")  # namespaces of media, files and categories
MARKUP = 4  # bytes of wikitext for each byte of text that filters.max_bytes would keep
FIELDS = ("base", "title", "ns", "id", "model", "timestamp", "text")
PATHS = {  # where a dump has them: export-0.11.xsd of MediaWiki
    "mediawiki/siteinfo/base": "base",
    "mediawiki/page/title": "title",
    "mediawiki/page/ns": "ns",
    "mediawiki/page/id": "id",
    "mediawiki/page/revision/model": "model",
    "mediawiki/page/revision/timestamp": "timestamp",
    "mediawiki/page/revision/text": "text",
}


def inputs(root: Path, *, files: list[str], namespaces: tuple[int, ...] = (0,)) -> list[Input]:
    """One input per file.

    files: patterns below root, ** for any depth, or addresses.  namespaces: of the pages to read:
    0 articles, 1 their talk pages, 2 users, 14 categories.
    """
    return [
        Input(file.name, file.bytes, partial(_read, file, namespaces), file.version)
        for file in matching(root, files, WIKIPEDIA)
    ]


def _read(file: File, namespaces: tuple[int, ...]) -> Iterator[Found]:
    dump = _Dump(file, namespaces, MARKUP * LONGEST.get())
    with opened(file, WIKIPEDIA) as stream:
        while dump.open:
            try:
                dump.parse(stream.read(CHUNK))
            except expat.ExpatError as error:
                raise Refused(f"{file.place}: damaged or cut short ({error})") from None
            while dump.found:
                yield dump.found.pop(0)


class _Dump:
    """Pages out of pieces of XML."""

    def __init__(self, file: File, namespaces: tuple[int, ...], most: int):
        self.found: list[Found] = []
        self.open = True
        self._file, self._namespaces, self._most = file, namespaces, most
        self._parser = expat.ParserCreate()
        self._parser.StartElementHandler = self._start
        self._parser.EndElementHandler = self._end
        self._parser.CharacterDataHandler = self._characters
        self._parser.EntityDeclHandler = self._entity
        self._parser.buffer_text = True
        self._path: list[str] = []
        self._parts: list[str] | None = None
        self._size = 0
        self._values: dict[str, str] = {}
        self._redirect, self._revisions = False, 0
        self._gone, self._key = set(GONE_SPACES), ""

    def parse(self, piece: bytes) -> None:
        """Read on; an empty piece is the end, which must be that of the last element, too."""
        self._parser.Parse(piece, not piece)
        self.open = bool(piece)

    def _entity(self, *_) -> None:
        raise Refused(f"{self._file.place}: declares XML entities, which no dump does")

    def _start(self, name: str, attributes: dict[str, str]) -> None:
        self._path.append(name)
        path = "/".join(self._path)
        if path == "mediawiki/page":
            base = self._values.get("base", "")
            self._values, self._redirect, self._revisions = {"base": base}, False, 0
        elif path == "mediawiki/page/redirect":
            self._redirect = True
        elif path == "mediawiki/page/revision":
            self._revisions += 1
        elif path == SPACE:
            self._key = attributes.get("key", "")
        if path in PATHS or path == SPACE:
            self._parts, self._size = [], 0

    def _characters(self, some: str) -> None:
        if self._parts is None:
            return
        self._size += len(some)
        if self._size <= self._most:
            self._parts.append(some)

    def _end(self, name: str) -> None:
        path = "/".join(self._path)
        self._path.pop()
        if path in PATHS:
            whole = "".join(self._parts or ())
            self._values[PATHS[path]] = whole if self._size <= self._most else "\0"
            self._parts = None
        elif path == SPACE:
            if self._key in GONE:
                self._gone.add("".join(self._parts or ()).lower())
            self._parts = None
        elif path == "mediawiki/page":
            self.found += [Dropped("older revision of a page")] * (self._revisions - 1)
            self.found.append(self._page())

    def _page(self) -> Found:
        base, title, ns, number, model, time, text = (self._values.get(k, "") for k in FIELDS)
        if ns not in map(str, self._namespaces):
            return Dropped(f"page of namespace {ns[:10] or '?'}")
        if self._redirect or text.lstrip()[:9].lower() == "#redirect":
            return Dropped("redirect")
        if model not in ("", "wikitext"):
            return Dropped(f"page of {model[:20]}")
        if text == "\0":
            return too_long(self._most)
        return Document(
            plain(text, self._gone),
            self._file.name,
            url=urljoin(base, quote(title.replace(" ", "_"))) if base else "",
            facts={"id": number, "title": title, "date": time},
        )
