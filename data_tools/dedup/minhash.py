"""Documents that share most of their word n-grams: MinHash, candidates by LSH (Broder 1997).

The text is compared in lower case (and composed, NFC) as its runs of letters, digits and
underscores: what stands between them does not count.  A letter of a script that writes no spaces
between words (Thai, Lao, Burmese, Khmer, Chinese, Japanese) is a word by itself.
"""

import re
import unicodedata
from functools import partial
from typing import Annotated

import numpy as np
from xxhash import xxh3_64_intdigest

from data_tools.documents import Document
from data_tools.duplicates import NOTHING, Keep, Similar
from januslm.config import Allowed

UNSPACED = (
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
)
WORD = re.compile(f"[{UNSPACED}]|[^\\W{UNSPACED}]+")
# the same for ASCII alone, four times as fast: each byte in lower case, or a space
ASCII = bytes(ord(chr(i).lower()) if WORD.match(chr(i)) else 32 for i in range(128)) + b" " * 128
CHUNK = 1024  # n-grams hashed at a time, which a processor's cache holds
MIX = np.uint64(0x9E3779B97F4A7C15)  # odd, its bits half ones: the golden ratio's


def deduplicator(
    *,
    bands: Annotated[int, Allowed(low=1, high=256)] = 16,
    rows: Annotated[int, Allowed(low=1, high=64)] = 7,
    ngram: Annotated[int, Allowed(low=1, high=64)] = 5,
    threshold: Annotated[float, Allowed(low=0, high=1)] = 0.7,
    seed: Annotated[int, Allowed(low=0)] = 0,
    keep: Keep = "first",
) -> Similar:
    """Two documents that agree in all rows of a band are compared: 1 - (1 - J^rows)^bands of those
    whose n-grams overlap by J (Jaccard).

    bands: of numbers in a document's signature
    rows: numbers in a band
    ngram: words in an n-gram; a document with fewer is compared as a whole
    threshold: share of equal numbers, an estimate of J, from which on two are duplicates; 0: a band
    seed: of the hash functions
    keep: which document of a cluster stays; "longest": in tokens, the first of equals
    """
    signature = partial(_signature, hashes=functions(bands * rows, ngram, seed))
    return Similar(signature, bands, rows, threshold, keep)


Functions = tuple[np.ndarray, np.ndarray, np.ndarray]


def functions(count: int, ngram: int, seed: int) -> Functions:
    """Odd factors of the words of an n-gram, uint64 [ngram]; factors and summands, [count] each."""
    # Philox by number, whose stream numpy promises to keep
    draw = np.random.Philox(key=seed).random_raw(2 * count + ngram)
    words, factors, summands = np.split(draw.astype(np.uint64), [ngram, ngram + count])
    return words | np.uint64(1), factors | np.uint64(1), summands


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


def _signature(document: Document, hashes: Functions) -> np.ndarray:
    found = words(document.text)
    of_words, factors, summands = hashes
    least = np.full(len(factors), 2**64 - 1, np.uint64)
    if found:
        every = grams(found, of_words)
        for start in range(0, len(every), CHUNK):
            # multiply-shift (Dietzfelbinger 1997): the upper half of factor * gram + summand
            values = np.multiply.outer(every[start : start + CHUNK], factors)
            values += summands
            np.minimum(least, values.min(axis=0), out=least)
    numbers = (least >> np.uint64(32)).astype(np.uint32)
    return numbers if found else np.full_like(numbers, NOTHING)
