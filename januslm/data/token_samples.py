"""Token shards as training examples: which text comes at which step, and nothing else."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from januslm.config import Refused, setting
from januslm.data.block_cache import HELD, BlockCache
from januslm.data.far_tokens import Address
from januslm.data.fetch_ahead import FetchAhead
from januslm.data.sampler import Sampler
from januslm.data.shards import BLOCK, Corpus, Verify, located, open_corpus
from januslm.data.tokenizer import Tokenizer


@dataclass(frozen=True)
class Source:
    """One corpus in the mix."""

    # the folder that `data_tools build` wrote, its train/ or valid/; or its address, as https://
    corpus: str
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
    verify: Verify = "full"  # "lazy" for corpora of terabytes; far ones are always lazy
    # shuffle inside so many blocks of 4 MiB, read one after another: for disks and for corpora that
    # are far away; 0: over all of it.  What is validated on is always drawn from all.
    shuffle_blocks: int = setting(0, low=0, high=64)
    # a folder for what is fetched of corpora at an address; "": ~/.cache/januslm/corpora
    cache: str = ""
    cache_gigabytes: float = setting(100.0, above=0)  # that lie in it at most
    valid_samples: int = setting(512, low=1)  # samples that are validated on

    def __post_init__(self):
        for key in ("train", "valid"):
            if not getattr(self, key):
                raise Refused(f"{key} must name a corpus at least, got an empty list")


def _cache(data: PretrainData, sources: Sequence[Source]) -> BlockCache:
    """Refused where what is shuffled at a time, and the next of it, do not fit."""
    far = sum(isinstance(located(s.corpus), Address) for s in sources)
    need, most = 2 * data.shuffle_blocks * BLOCK * far, data.cache_gigabytes * 1e9
    if need > most:
        raise Refused(
            f"data.cache_gigabytes must be at least {need / 1e9:.2f} for shuffle_blocks "
            f"{data.shuffle_blocks} of {far} corpora far away, got {data.cache_gigabytes:g}"
        )
    held = max(HELD, data.shuffle_blocks * far + HELD // 4)
    folder = data.cache or Path.home() / ".cache" / "januslm" / "corpora"
    return BlockCache(Path(folder).expanduser(), most, held)


class Texts:
    """Samples of several corpora by their global id; the order is a pure function of (seed, id)."""

    def __init__(
        self, data: PretrainData, sources: Sequence[Source], tokenizer: Tokenizer, seed: int
    ):
        self.unit, self.room = data.unit, data.length - 2
        self.special = tokenizer.special
        cache = _cache(data, sources)
        self.corpora = [
            open_corpus(s.corpus, tokenizer.sha256, data.verify, cache) for s in sources
        ]
        sizes = [self._size(c) for c in self.corpora]
        for source, size in zip(sources, sizes, strict=True):
            if not size:
                raise Refused(
                    f"{source.corpus}: no {data.unit} of {self.room} tokens in its documents"
                )
        blocks = [c.per_block(size) for c, size in zip(self.corpora, sizes, strict=True)]
        weights = [s.weight for s in sources]
        self.sampler = Sampler(sizes, weights, seed, blocks, data.shuffle_blocks)
        far = any(c.far for c in self.corpora)
        self._ahead = FetchAhead(self.corpora, self.unit, self.room, self.sampler) if far else None
        self.fingerprint = [c.fingerprint for c in self.corpora]

    def _size(self, corpus: Corpus) -> int:
        count = corpus.windows if self.unit == "windows" else corpus.pieces
        return count(self.room)

    def __len__(self) -> int:
        return sum(self.sampler.sizes)

    def read(self, ids: np.ndarray) -> list[tuple[None, np.ndarray]]:
        """(no source, int64 [T] target from BOS to EOS) of each global sample id."""
        source, index, _ = self.sampler.locate(ids)
        if self._ahead:
            self._ahead.after(ids)
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
