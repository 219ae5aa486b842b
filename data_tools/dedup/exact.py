"""Of documents with the same text, to the byte, the first one stays."""

from collections.abc import Sequence

import numpy as np
from xxhash import xxh3_128_intdigest

from data_tools.documents import Document

FINGERPRINT = np.dtype([("high", "<u8"), ("low", "<u8")])


def fingerprint(document: Document) -> tuple[int, int]:
    """What `kept` needs to know of a document, one FINGERPRINT; made in the worker processes."""
    digest = xxh3_128_intdigest(document.raw)
    return digest >> 64, digest & (2**64 - 1)


def kept(parts: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Which documents of each part have a text that none before them has: bool [documents] each.

    parts: the fingerprints of each part, in the order of the corpus.
    """
    whole = np.concatenate(parts)
    order = np.lexsort((whole["low"], whole["high"]))  # stable: equal texts stay in order
    ordered = whole[order]
    first = np.ones(len(whole), dtype=bool)
    first[order[1:]] = ordered[1:] != ordered[:-1]
    return np.split(first, np.cumsum([len(one) for one in parts])[:-1])
