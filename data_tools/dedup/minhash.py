"""Documents that share most of their word n-grams: MinHash LSH (Broder 1997), and a sketch.

Documents that have all numbers of a band of their MinHash signatures in common are compared; what
decides is the overlap of their n-grams (Jaccard), which a sketch of each estimates more closely.

The text is compared in lower case (and composed, NFC) as its runs of letters, digits and
underscores: what stands between them does not count.  A letter of a script that writes no spaces
between words (Thai, Lao, Burmese, Khmer, Chinese, Japanese) is a word by itself.
"""

import re
import unicodedata
from functools import partial
from typing import Annotated

import numpy as np
from xxhash import xxh3_64_intdigest, xxh3_128_digest

from data_tools.documents import Document
from data_tools.duplicates import Keep, Similar
from januslm.config import Allowed

UNSPACED = (
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
)
WORD = re.compile(f"[{UNSPACED}]|[^\\W{UNSPACED}]+")
# the same for ASCII alone, four times as fast: each byte in lower case, or a space
ASCII = bytes(ord(chr(i).lower()) if WORD.match(chr(i)) else 32 for i in range(128)) + b" " * 128
CHUNK = 1024  # n-grams hashed at a time, which a processor's cache holds
BINS = 1024  # of a sketch
BIN_SHIFT = np.uint64(64 - 10)
MIX = np.uint64(0x9E3779B97F4A7C15)  # odd, its bits half ones: the golden ratio's


def deduplicator(
    *,
    bands: Annotated[int, Allowed(low=1, high=256)] = 18,
    rows: Annotated[int, Allowed(low=1, high=64)] = 7,
    ngram: Annotated[int, Allowed(low=1, high=64)] = 5,
    threshold: Annotated[float, Allowed(low=0, high=1)] = 0.8,
    seed: Annotated[int, Allowed(low=0)] = 0,
    keep: Keep = "first",
) -> Similar:
    """Of documents whose n-grams overlap by J, 1 - (1 - J^rows)^bands are compared.

    bands: of numbers in a document's signature.  rows: numbers in a band.  ngram: words in one; a
    document with fewer is compared as a whole.  threshold: the overlap from which on two documents
    are duplicates, as their sketches estimate it; 0: a band in common is enough, as in FineWeb.
    seed: of the hash functions.  keep: which document of a cluster stays; "longest": in tokens, the
    first of equals.
    """
    sketched = partial(
        _sketched,
        rows=rows,
        hashes=functions(bands * rows, ngram, seed),
        sketches=bool(threshold),
    )
    agree = partial(agreeing, threshold=threshold) if threshold else None
    return Similar(sketched, bands, BINS if threshold else 0, agree, keep)


Functions = tuple[np.ndarray, np.ndarray, np.ndarray]


def functions(count: int, ngram: int, seed: int) -> Functions:
    """Odd factors of the words of an n-gram, uint64 [ngram]; factors and summands, [count] each."""
    # Philox by number, whose stream numpy promises to keep
    draw = np.random.Philox(key=seed).random_raw(2 * count + ngram)
    words, factors, summands = np.split(draw.astype(np.uint64), [ngram, ngram + count])
    return words | np.uint64(1), factors | np.uint64(1), summands


def _sketched(
    document: Document, rows: int, hashes: Functions, sketches: bool
) -> tuple[list[bytes], bytes] | None:
    found = words(document.text)
    if not found:
        return None
    of_words, factors, summands = hashes
    every = grams(found, of_words)
    raw, size = signature(every, factors, summands).tobytes(), 4 * rows
    # the band is the seed: equal numbers in different bands mean nothing
    keys = [xxh3_128_digest(raw[at : at + size], seed=at) for at in range(0, len(raw), size)]
    return keys, sketch(every).tobytes() if sketches else b""


def words(text: str) -> list[bytes]:
    """The words of a text that are compared, as UTF-8."""
    if text.isascii():
        return text.encode().translate(ASCII).split()
    text = unicodedata.normalize("NFC", text.lower())
    return [word.encode() for word in WORD.findall(text)]


def grams(found: list[bytes], factors: np.ndarray) -> np.ndarray:
    """A hash of each run of len(factors) words, uint64 [grams]; of all of them if there are fewer.

    A sum of xxh3_64 of the words, each by its place's factor, mixed.
    """
    hashes = np.fromiter(map(xxh3_64_intdigest, found), np.uint64, len(found))
    size = min(len(factors), len(found))
    count = len(found) - size + 1
    total = np.zeros(count, np.uint64)
    for place in range(size):
        total += hashes[place : place + count] * factors[place]
    total ^= total >> np.uint64(32)
    total *= MIX
    total ^= total >> np.uint64(29)
    return total


def signature(every: np.ndarray, factors: np.ndarray, summands: np.ndarray) -> np.ndarray:
    """The least hash of all n-grams by each of some functions, uint32 [functions]."""
    least = np.full(len(factors), 2**64 - 1, np.uint64)
    for start in range(0, len(every), CHUNK):
        # multiply-shift (Dietzfelbinger 1997): the upper half of factor * gram + summand
        values = np.multiply.outer(every[start : start + CHUNK], factors)
        values += summands
        np.minimum(least, values.min(axis=0), out=least)
    return (least >> np.uint64(32)).astype(np.uint32)


def sketch(every: np.ndarray) -> np.ndarray:
    """One permutation hashing (Li, Owen & Zhang 2012): uint8 [BINS], 0 for an empty bin.

    Each n-gram falls into a bin, which keeps a byte of its least.  Of few n-grams most are kept.
    """
    ordered = np.sort(every)
    bins = ordered >> BIN_SHIFT
    first = np.ones(len(bins), bool)
    first[1:] = bins[1:] != bins[:-1]
    kept = np.zeros(BINS, np.uint8)
    kept[bins[first].astype(np.intp)] = 1 + ordered[first] % np.uint64(255)
    return kept


def overlap(ours: np.ndarray, theirs: np.ndarray) -> np.ndarray:
    """The Jaccard estimate of pairs of sketches, uint8 [pairs, BINS] each: float [pairs].

    Of the bins that one of both has filled, the share in which they are the same.
    """
    filled = ((ours | theirs) != 0).sum(axis=1)
    same = ((ours == theirs) & (ours != 0)).sum(axis=1)
    return same / np.maximum(1, filled)


def agreeing(ours: np.ndarray, theirs: np.ndarray, threshold: float) -> np.ndarray:
    """Whether pairs of sketches are of duplicates: bool [pairs]."""
    return overlap(ours, theirs) >= threshold
