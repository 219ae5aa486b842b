"""Token shards as training examples: which text comes at which step, and nothing else."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from januslm.config import Refused, setting
from januslm.data.sampler import Sampler
from januslm.data.shards import Corpus, Verify, open_corpus
from januslm.data.tokenizer import Tokenizer


@dataclass(frozen=True)
class Source:
    """One corpus in the mix."""

    corpus: str  # the folder that `data_tools build` wrote, its train/ or valid/
    weight: int = setting(1, low=1)  # samples per round of the mix, in whole numbers


@dataclass(frozen=True)
class PretrainData:
    """[data]: what is read.

    unit "pieces": each sample is a document, or a part of one that is longer than `length`; nothing
    crosses documents.  "windows": `length` tokens of the running text, as fairseq's break mode
    "complete" without its rounding; no token is left out but the last of a shard.
    """

    train: list[Source]  # the mix that is trained on
    valid: list[Source]  # what is validated on
    length: int = setting(512, low=4)  # target tokens with BOS and EOS
    unit: Literal["pieces", "windows"] = "pieces"  # whole documents, or windows of running text
    verify: Verify = "full"  # "lazy" for corpora of terabytes
    valid_samples: int = setting(512, low=1)  # samples that are validated on

    def __post_init__(self):
        for key in ("train", "valid"):
            if not getattr(self, key):
                raise Refused(f"{key} must name a corpus at least, got an empty list")


class Texts:
    """Samples of several corpora by their global id; the order is a pure function of (seed, id)."""

    def __init__(
        self, data: PretrainData, sources: Sequence[Source], tokenizer: Tokenizer, seed: int
    ):
        self.unit, self.room = data.unit, data.length - 2
        self.special = tokenizer.special
        self.corpora = [open_corpus(s.corpus, tokenizer.sha256, data.verify) for s in sources]
        sizes = [self._size(c) for c in self.corpora]
        for source, size in zip(sources, sizes, strict=True):
            if not size:
                raise Refused(
                    f"{source.corpus}: no {data.unit} of {self.room} tokens in its documents"
                )
        self.sampler = Sampler(sizes, [s.weight for s in sources], seed)
        self.fingerprint = [c.fingerprint for c in self.corpora]

    def _size(self, corpus: Corpus) -> int:
        count = corpus.windows if self.unit == "windows" else corpus.pieces
        return count(self.room)

    def __len__(self) -> int:
        return sum(self.sampler.sizes)

    def read(self, ids: np.ndarray) -> list[tuple[None, np.ndarray]]:
        """(no source, int64 [T] target from BOS to EOS) of each global sample id."""
        source, index, _ = self.sampler.locate(ids)
        return [
            (None, self._ends(self._text(int(s), int(i))))
            for s, i in zip(source, index, strict=True)
        ]

    def _text(self, source: int, index: int) -> np.ndarray:
        corpus = self.corpora[source]
        read = corpus.window if self.unit == "windows" else corpus.piece
        return read(index, self.room)

    def _ends(self, tokens: np.ndarray) -> np.ndarray:
        return np.concatenate([[self.special.bos], tokens, [self.special.eos]])
