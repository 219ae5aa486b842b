"""How many words of a whole-sentence draft a pass is to verify, and in how many readings.

As in `_forms`: the most words a second, by the cost of rows here and what was accepted so far; and
nothing is drafted where greedy alone is as fast.
"""

from collections.abc import Callable
from weakref import WeakKeyDictionary

BLOCKS = (2, 4, 6, 8, 12, 16)  # words of the draft that a pass may verify
FIRST = (0.55, 0.15, 0.06, 0.04, 0.03)  # before any was seen: how often each reading is right
NEXT = 0.75  # how often the word after a right one is
WEIGHT = 20.0  # of these, in passes seen
GAIN = 1.05  # a draft must promise so much more than greedy
MEMORY = 0.8  # of what texts took against what was promised

Cost = Callable[[float], float]  # seconds of a pass by the rows it reads


class Readings:
    """What was seen of the drafts of one decoder."""

    def __init__(self) -> None:
        self.tried, self.first = [0] * len(FIRST), [0] * len(FIRST)  # passes, by reading
        self.followed, self.right = 0, 0
        self.slower: dict[str, float] = {}  # than the passes alone

    def count(self, readings: int, reading: int | None, right: int, tried: int) -> None:
        """Of a pass with so many readings the best, None: all were wrong at once.

        right: its right words, of those that were tried.
        """
        for place in range(min(readings, len(FIRST))):
            self.tried[place] += 1
        if reading is not None and reading < len(FIRST):
            self.first[reading] += 1
            self.right += right - 1
            self.followed += min(right, tried - 1)

    def words(self, block: int, readings: int) -> float:
        """Of a pass, in the mean, its own word among them."""
        each = zip(self.first[:readings], FIRST, self.tried, strict=False)
        hit = sum((first + WEIGHT * usual) / (tried + WEIGHT) for first, usual, tried in each)
        share = (self.right + WEIGHT * NEXT) / (self.followed + WEIGHT)
        return 1 + min(hit, 1.0) * sum(share**n for n in range(block))

    def best(
        self, length: float, passes: int, cost: Cost, block: int, readings: int
    ) -> tuple[int, int] | None:
        """Words and readings for texts of so many words; None: greedy.

        passes: that make the draft, each of which reads the text once.  block, readings: what is
        given, 0: what pays; greedy is possible where both are 0.
        """
        seconds = {
            (words, lines): self.seconds(length, passes, cost, words, lines)
            for words in ((block,) if block else BLOCKS)
            for lines in ((readings,) if readings else range(1, len(FIRST) + 1))
        }
        best = min(seconds, key=seconds.__getitem__)
        plain = self._slower("greedy") * length * cost(1)
        return None if not block and not readings and GAIN * seconds[best] > plain else best

    def seconds(self, length: float, passes: int, cost: Cost, block: int, readings: int) -> float:
        """Of a batch whose texts have so many words."""
        verifying = length / self.words(block, readings) * cost(readings * (1 + block))
        return self._slower("draft") * (passes * cost(length) + verifying)

    def took(self, kind: str, seconds: float, promised: float) -> None:
        """A batch took so long, where its passes alone promised less, or more."""
        self.slower[kind] = MEMORY * self._slower(kind) + (1 - MEMORY) * seconds / promised

    def _slower(self, kind: str) -> float:
        """What was not tried yet has at least to do what greedy does."""
        return self.slower.get(kind, self.slower.get("greedy", 1.0))


_known: WeakKeyDictionary = WeakKeyDictionary()


def seen_of(decoder) -> Readings:
    """The one of this decoder: what was accepted in one batch is known in the next."""
    return _known.setdefault(decoder, Readings())
