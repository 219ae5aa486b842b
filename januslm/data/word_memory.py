"""Ids of texts by their pieces: each piece is encoded once, texts are joined from what is known.

Byte-level BPE divides a text by GPT-2's regular expression, and merges nothing across.  It asks for
classes of letters that `re` does not have; PIECES divides at some of the same places, which is
enough: where all is ASCII it is that expression, and elsewhere a piece goes on to the next space.
"""

import re
from collections.abc import Callable, Mapping
from itertools import chain
from threading import Lock

import numpy as np

# White space is Unicode's; Python's \s has the separators \x1c to \x1f more.
PIECES = re.compile(
    r"""
      '(?:s|t|re|ve|m|ll|d)
    | [ ]? [A-Za-z]++ (?![^\x00-\x7f])      # the class may go on behind what is not ASCII
    | [ ]? [0-9]++ (?![^\x00-\x7f])
    | [ ]? [!-/:-@\[-`{-~\x00-\x08\x0e-\x1f\x7f]++ (?![^\x00-\x7f])
    | (?! [\t-\r ]*+ [^\x00-\x7f] ) [\t-\r ]+ (?!\S)  # the last space belongs to what follows
    | [\t-\r] (?! [\t-\r ] | [^\x00-\x7f] )
    | [^\S\x1c-\x1f]* (?: \S | [\x1c-\x1f] )+
    | [^\S\x1c-\x1f]+
    """,
    re.VERBOSE,
)
LONGEST = 64  # letters of a piece that is remembered
MOST = 200_000  # pieces, some 30 MB; then all are forgotten, and the usual ones soon known again

Encode = Callable[[list[str]], list[np.ndarray]]


def divides(tree: Mapping) -> bool:
    """Whether a tokenizer.json gives pieces the ids that they have in their text."""
    before, model = tree.get("pre_tokenizer") or {}, tree["model"]
    added = tree.get("added_tokens") or []
    return (
        model.get("type") == "BPE"
        and not model.get("dropout")
        and not tree.get("normalizer")
        and before.get("type") == "ByteLevel"
        and before.get("use_regex", True)
        and not before.get("add_prefix_space", True)
        and all(token.get("special") for token in added)  # others are found across spaces
    )


class WordMemory:
    """Encodes texts with `encode`, which is asked only for pieces that are not known yet.

    Threads may share it.
    """

    def __init__(self, encode: Encode):
        self._encode = encode
        self._known: dict[str, bytes] = {}
        self._lock = Lock()

    def encode(self, texts: list[str]) -> list[np.ndarray]:
        """int32 [T] of each text."""
        pieces = [PIECES.findall(text) for text in texts]
        with self._lock:
            return self._joined(pieces)

    def _joined(self, pieces: list[list[str]]) -> list[np.ndarray]:
        known = self._known
        if len(known) > MOST:
            known.clear()
        new = [one for one in dict.fromkeys(chain.from_iterable(pieces)) if one not in known]
        known.update(zip(new, (ids.tobytes() for ids in self._encode(new)), strict=True))
        found = [
            np.frombuffer(bytearray().join(map(known.__getitem__, each)), np.int32)
            for each in pieces
        ]
        for one in new:
            if len(one) > LONGEST:
                del known[one]
        return found
