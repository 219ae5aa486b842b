"""Which documents hang together by pairs of duplicates: union-find on arrays.

Memory is about 40 bytes for each document that is in a pair, and one array of pairs at a time.
"""

from collections.abc import Callable, Iterable, Iterator

import numpy as np

SMALL = 1 << 16  # values that are not worth a merge

Pairs = Callable[[], Iterator[np.ndarray]]  # the same arrays each time, uint64 [pairs, 2]


def clusters(pairs: Pairs) -> tuple[np.ndarray, np.ndarray]:
    """The documents of all pairs in order, uint64 [k], and the first of each one's cluster.

    Of equal arrays of pairs, in any order, come equal clusters.
    """
    members = _distinct(one.ravel() for one in pairs())
    parent = np.arange(len(members))
    for one in pairs():
        _join(parent, *np.searchsorted(members, one).T)
    while not np.array_equal(above := parent[parent], parent):
        parent = above
    return members, members[parent]


def _distinct(arrays: Iterable[np.ndarray]) -> np.ndarray:
    """All values in order; many small arrays are put together before they are merged."""
    found, waiting, size = np.empty(0, np.uint64), [], 0
    for one in arrays:
        waiting.append(np.unique(one))
        size += len(waiting[-1])
        if size > max(SMALL, len(found) // 4):
            found, waiting, size = np.unique(np.concatenate([found, *waiting])), [], 0
    return np.unique(np.concatenate([found, *waiting]))


def _join(parent: np.ndarray, left: np.ndarray, right: np.ndarray) -> None:
    """Make each pair one tree, whose root is the first of it; changes `parent`, int64 [k]."""
    while len(left):
        left, right = _root(parent, left), _root(parent, right)
        apart = left != right
        left, right = left[apart], right[apart]
        # A root hangs itself below the first of the earlier roots it is paired with: no circle.
        np.minimum.at(parent, np.maximum(left, right), np.minimum(left, right))


def _root(parent: np.ndarray, node: np.ndarray) -> np.ndarray:
    """The roots of nodes; every other node on the way is hung up higher (path halving)."""
    while True:
        above = parent[parent[node]]
        parent[node] = above
        if (above == node).all():
            return node
        node = above


def dropped(members: np.ndarray, first: np.ndarray, lengths: np.ndarray | None) -> np.ndarray:
    """The documents of clusters that do not stay, uint64 in order.

    lengths: int [k], where the longest of a cluster stays, the first of equals; None: the first.
    """
    if lengths is None:
        return members[members != first]
    order = np.lexsort((members, -lengths.astype(np.int64), first))
    again = np.zeros(len(order), bool)
    again[1:] = first[order[1:]] == first[order[:-1]]
    return np.sort(members[order[again]])
