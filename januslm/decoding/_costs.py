"""What a pass costs on this machine: seconds by the rows it reads, measured once for each batch."""

import bisect
import itertools
import time
from collections.abc import Callable, Sequence
from weakref import WeakKeyDictionary

import numpy as np
import torch

WORDS = (1, 1, 2, 4, 8, 16, 32)  # of a measured pass: the first alone, the others each with a block
TIMES = 3  # each of them, of which the least counts: what disturbs a pass makes it longer

_measured: WeakKeyDictionary = WeakKeyDictionary()  # decoder -> {sentences: points}


class Costs:
    """Seconds of a pass, between what was measured in straight lines, as beyond it.

    rows: slots of one sentence that the pass reads, ascending; seconds: of a pass for all.
    """

    def __init__(self, rows: Sequence[float], seconds: Sequence[float]):
        # More rows never cost less; where they seem to, a measurement was disturbed.
        self.rows, self.seconds = list(rows), list(itertools.accumulate(seconds, max))

    def __call__(self, rows: float) -> float:
        if len(self.rows) < 2:
            return self.seconds[0]
        right = min(max(bisect.bisect_left(self.rows, rows), 1), len(self.rows) - 1)
        (r0, r1), (t0, t1) = self.rows[right - 1 : right + 1], self.seconds[right - 1 : right + 1]
        return t0 + (rows - r0) * (t1 - t0) / (r1 - r0)


def costs(decoder, sources: Sequence[np.ndarray], clock: Callable[[], float] | None = None):
    """Costs of a decoder for batches of about so many sentences; measured where it is not known.

    Batches are told apart by powers of two.  The sources are those of a batch to be written.
    """
    known = _measured.setdefault(decoder, {})
    size = 1 << (len(sources) - 1).bit_length()
    if size not in known:
        known[size] = _measure(decoder, sources, clock or _clock)
    return known[size]


def _clock() -> float:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


def _measure(decoder, sources: Sequence[np.ndarray], clock: Callable[[], float]) -> Costs:
    """Passes over one more state of these sources, which is then forgotten.

    No larger one than could ever pay: a pass gives a block's words at most.
    """
    state = decoder.start(sources)
    device = state.length_scores.device
    prefix = torch.tensor(decoder.prefix, device=device).expand(len(sources), -1)
    decoder.draft(state, prefix, 0)
    rows, seconds = [], []
    for number, run in enumerate(WORDS):
        size = decoder.most_block if number else 0
        words = prefix[:, :1].expand(-1, run)
        taken = []
        for _ in range(TIMES):
            before = clock()
            decoder.draft(state, words, size)
            taken.append(clock() - before)
            state.take_back(torch.full((len(sources),), run, device=device))
        rows.append(run * (1 + size))
        seconds.append(min(taken))
        if seconds[-1] > (1 + decoder.most_block) * seconds[0]:
            break
    return Costs(rows, seconds)
