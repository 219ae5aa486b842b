"""Has blocks far away fetched before their samples are read, whose order is known beforehand."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from januslm.data.sampler import Sampler
from januslm.data.shards import Corpus

ALONE = 256  # samples looked ahead where each of them lies in another block
MOST = 1 << 18  # samples looked ahead at most


class FetchAhead:
    """Looks one group of blocks ahead of the samples that are read (see Sampler.group)."""

    def __init__(self, corpora: Sequence[Corpus], unit: str, length: int, sampler: Sampler):
        self.corpora, self.unit, self.length = corpora, unit, length
        self.sampler = replace(sampler)  # which keeps other parts of the order at hand
        self.sizes = sampler.blocks if sampler.group else [1] * len(corpora)
        self.ahead = ALONE
        if sampler.group:
            total = sum(sampler.weights)
            groups = (
                -(-sampler.group * size * total // max(1, weight))
                for size, weight in zip(sampler.blocks, sampler.weights, strict=True)
            )
            self.ahead = min(MOST, max(ALONE, *groups, 0))
        self._asked = 0  # the first sample that nobody has looked at

    def after(self, ids: np.ndarray) -> None:
        """These samples are read now; int64 [B]."""
        if not len(ids):
            return
        now = int(ids.max()) + 1
        first = self._asked if now < self._asked <= now + self.ahead else now
        end = now + self.ahead
        if first > now and end - first < self.ahead // 4:
            return  # many at a time
        self._asked = end
        source, index, _ = self.sampler.locate(np.arange(first, end))
        for number, corpus in enumerate(self.corpora):
            if corpus.far:
                size, samples = self.sizes[number], self.sampler.sizes[number]
                blocks, places = np.unique(index[source == number] // size, return_index=True)
                for block in blocks[np.argsort(places)].tolist():
                    until = min((block + 1) * size, samples)
                    corpus.soon(self.unit, self.length, block * size, until)
