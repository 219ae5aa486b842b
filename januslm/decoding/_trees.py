"""What a pass verifies of a draft: its words, and a few in which one word is another choice.

The lines share their beginnings: a tree.  What the model reads after each word of it is decided by
the words on the way there, so that one pass verifies all of them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, cached_property

Swap = tuple[int, int]  # a place of the draft, and which choice stands there instead (0: the first)


@dataclass(frozen=True)
class Tree:
    """Node n is the draft's choice `rank[n]` at `place[n]` and follows node `parent[n]`.

    -1: it follows the last word that is right.  A parent comes before its children.
    """

    parent: tuple[int, ...] = ()
    place: tuple[int, ...] = ()
    rank: tuple[int, ...] = ()

    def __len__(self) -> int:
        return len(self.parent)

    @cached_property
    def children(self) -> dict[int, list[int]]:
        """By node, -1 the root, the likelier first."""
        found: dict[int, list[int]] = {node: [] for node in range(-1, len(self))}
        for node, parent in enumerate(self.parent):
            found[parent].append(node)
        return found

    @property
    def is_chain(self) -> bool:
        return self.parent == tuple(range(-1, len(self) - 1))

    def behind(self, head: int) -> tuple[int, ...]:
        """The parents of `head` words in a row and of the tree after them, as a pass reads them."""
        return (*range(-1, head - 1), *(parent + head for parent in self.parent))

    def words(self, choices: Sequence[Sequence[int]]) -> list[int | None]:
        """The word of each node; None where the draft ends before.  choices: by place and rank."""
        return [
            choices[place][rank] if place < len(choices) else None
            for place, rank in zip(self.place, self.rank, strict=True)
        ]

    def walk(self, words: Sequence[int | None], chosen: Sequence[int], eos: int) -> list[int]:
        """The nodes that are right, from the root on.

        chosen: what the model writes after the root, and after each node.
        """
        path, node = [], -1
        while (word := chosen[node + 1]) != eos:
            follows = [child for child in self.children[node] if words[child] == word]
            if not follows:
                break
            node = follows[0]
            path.append(node)
        return path

    def before(self, words: Sequence[int | None]) -> list[list[int | None]]:
        """The words from the root to each node, its own too; the first is the root's, of none."""
        ways: list[list[int | None]] = [[]]
        for node, parent in enumerate(self.parent):
            ways.append([*ways[parent + 1], words[node]])
        return ways


@cache
def tree(size: int, swaps: tuple[Swap, ...] = ()) -> Tree:
    """The draft's first `size` words, and for each swap the line with that one word replaced."""
    parent, place, rank = list(range(-1, size - 1)), list(range(size)), [0] * size
    for at, choice in swaps:
        before = at - 1  # nodes of the first line are its places
        for here in range(at, size):
            parent.append(before)
            place.append(here)
            rank.append(choice if here == at else 0)
            before = len(parent) - 1
    return Tree(tuple(parent), tuple(place), tuple(rank))
