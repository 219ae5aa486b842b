"""What a pass costs on this machine: seconds by the rows it reads, measured once for each batch."""

import bisect
import itertools
import time
from collections.abc import Sequence
from weakref import WeakKeyDictionary

import numpy as np
import torch

WORDS = (1, 2, 4, 8, 16, 32, 64)  # of the passes that are measured
TIMES = 4  # each of them, of which the least counts: what disturbs a pass makes it longer
MOST_GAIN = 16  # a pass that takes so many times the first's never pays, nor does a larger one

_measured: WeakKeyDictionary = WeakKeyDictionary()  # decoder -> {(sentences, masks): costs}


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


def costs(decoder, sources: Sequence[np.ndarray], masks: int = 0) -> Costs:
    """Costs of a decoder for batches of about so many sentences; measured where they are not known.

    Batches are told apart by powers of two.  sources: of the batch that is to be written.  masks:
    read passes with so many behind each word, as drafts are made, not words alone.
    """
    known = _measured.setdefault(decoder, {})
    key = 1 << (len(sources) - 1).bit_length(), masks
    if key not in known:
        known[key] = _measure(decoder, sources, masks)
    return known[key]


def clock(device: torch.device) -> float:
    """Seconds: of this process on a CPU, which other programs hardly stretch; by the clock else."""
    if device.type == "cpu":
        return time.process_time()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def _measure(decoder, sources: Sequence[np.ndarray], masks: int) -> Costs:
    """Passes over one more state of these sources, which is then forgotten."""
    state = decoder.start(sources)
    device = state.length_scores.device
    prefix = torch.tensor(decoder.prefix, device=device).expand(len(sources), -1)
    decoder.block(state, prefix[:, None])
    rows: list[int] = []
    seconds: list[float] = []
    runs = [(1, 0), *((run, masks) for run in WORDS)] if masks else [(run, 0) for run in WORDS]
    for run, size in runs:
        words = prefix[:, :1].expand(-1, run)
        taken = []
        for _ in range(TIMES):
            before = clock(device)
            if size:
                decoder.draft(state, words, size)
            else:
                decoder.block(state, words[:, None])
            taken.append(clock(device) - before)
            state.take_back(torch.full((len(sources),), run, device=device))
        rows.append(run * (1 + size))
        seconds.append(min(taken))
        if seconds[-1] > MOST_GAIN * seconds[0]:
            break
    return Costs(rows, seconds)
