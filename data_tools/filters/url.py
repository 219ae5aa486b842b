"""Documents from unwanted addresses: listed hosts and pages, and words in the address (FineWeb)."""

import re
from functools import cache, partial
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

from data_tools.documents import Document, Dropped
from data_tools.filtering import Prepared
from data_tools.filters._lists import entries, located
from januslm.config import Allowed

BETWEEN = re.compile(r"[^a-z0-9]+")


def prepared(root: Path, folder: Path, **options) -> Prepared:
    """The rule with the list files found, and hashes of what is in them."""
    patterns = {name: value for name, value in options.items() if name.endswith("_files")}
    found, hashes = located(root, **patterns)
    return Prepared(partial(of_text, **options | found), hashes)


def of_text(
    document: Document,
    *,
    domains: tuple[str, ...] = (),
    domain_files: tuple[str, ...] = (),
    pages: tuple[str, ...] = (),
    page_files: tuple[str, ...] = (),
    words: tuple[str, ...] = (),
    word_files: tuple[str, ...] = (),
    soft_words: tuple[str, ...] = (),
    soft_word_files: tuple[str, ...] = (),
    least_soft: Annotated[int, Allowed(low=1)] = 2,
    parts: tuple[str, ...] = (),
    part_files: tuple[str, ...] = (),
    without: Literal["keep", "drop"] = "keep",
) -> Document | Dropped:
    """Drop by the first list that the document's address is on; files are patterns below root.

    domains: hosts, with all below them: example.com is also www.example.com.
    domain_files: lists of such, an entry a line, # before a comment; the same for the others.
    pages: whole addresses.
    page_files: lists of such.
    words: letters and digits between other signs; one of these is enough.
    word_files: lists of such.
    soft_words: the same, but `least_soft` different ones are needed.
    soft_word_files: lists of such.
    least_soft: so many of `soft_words` drop a document.
    parts: letters and digits anywhere in the address, once its other signs are taken out.
    part_files: lists of such.
    without: what to do with documents without an address.
    """
    url = document.url.lower()
    if not url:
        return document if without == "keep" else Dropped("url: no address")
    if host := _listed_host(url, entries(domains, domain_files)):
        return Dropped("url: listed domain", words=host)
    if url in entries(pages, page_files):
        return Dropped("url: listed page", words=url)
    found = {*BETWEEN.split(url)}
    if hard := found & entries(words, word_files):
        return Dropped("url: listed word", len(hard), ", ".join(sorted(hard)))
    soft = found & entries(soft_words, soft_word_files)
    if len(soft) >= least_soft:
        return Dropped("url: soft words", len(soft), ", ".join(sorted(soft)))
    if part := _listed_part(BETWEEN.sub("", url), *_by_size(entries(parts, part_files))):
        return Dropped("url: listed part", words=part)
    return document


def _listed_host(url: str, listed: frozenset[str]) -> str:
    """The domain on the list that the address belongs to, "" if it is on none."""
    try:
        host = urlsplit(url).hostname or ""
    except ValueError:  # half of an IPv6 address
        return ""
    names = host.rstrip(".").split(".")
    return next((d for i in range(len(names)) if (d := ".".join(names[i:])) in listed), "")


@cache
def _by_size(listed: frozenset[str]) -> tuple[frozenset[str], list[int]]:
    """The entries without other signs, and the sizes that there are."""
    plain = frozenset(BETWEEN.sub("", entry) for entry in listed) - {""}
    return plain, sorted({len(entry) for entry in plain})


def _listed_part(url: str, listed: frozenset[str], sizes: list[int]) -> str:
    pieces = (url[at : at + size] for size in sizes for at in range(len(url) - size + 1))
    return next((piece for piece in pieces if piece in listed), "")
