"""Megatron-LM's indexed data sets, version 1: PREFIX.bin holds ids, PREFIX.idx says what they are.

Ours are the same to the byte, so that writing them is a link.  A document of Megatron's may be of
several sequences, of which ours is the join.
"""

from pathlib import Path

import numpy as np

from data_tools.token_file import TokenFile, mapped
from januslm.config import Refused
from januslm.data.shard_writer import MAGIC
from januslm.data.shards import HEADER, Shard

SUFFIXES = (".bin", ".idx")  # of one file; the first holds the tokens
TYPES = {1: "u1", 2: "i1", 3: "<i2", 4: "<i4", 5: "<i8", 8: "<u2"}  # Megatron's numbers for them


def read(stem: Path) -> TokenFile:
    """PREFIX.bin and PREFIX.idx; raises Refused for what is cut short or does not fit together."""
    path = stem.with_name(stem.name + ".idx")
    raw = mapped(path, "u1")
    if len(raw) < HEADER or raw[:9].tobytes() != MAGIC or int(raw[9:17].view("<u8")[0]) != 1:
        raise Refused(f"{path}: no index of Megatron's, version 1 (MMIDIDX)")
    code = int(raw[17])
    if code not in TYPES:
        raise Refused(f"{path}: type {code} of tokens, possible are {', '.join(map(str, TYPES))}")
    sequences, bounds = (int(raw[at : at + 8].view("<u8")[0]) for at in (18, 26))
    size = HEADER + 12 * sequences + 8 * bounds
    if len(raw) != size or bounds < 1:
        raise Refused(
            f"{path}: {len(raw):,} bytes, but {sequences:,} sequences and {bounds - 1:,} documents "
            f"take {size:,}: cut short, or with more than text in it"
        )
    at = HEADER + 4 * sequences
    lengths = raw[HEADER:at].view("<i4").astype(np.int64)
    pointers = raw[at : at + 8 * sequences].view("<i8")
    documents = raw[at + 8 * sequences :].view("<i8")
    ends = np.concatenate([[0], np.cumsum(lengths)])
    if not np.array_equal(pointers, ends[:-1] * np.dtype(TYPES[code]).itemsize):
        raise Refused(f"{path}: its sequences do not lie end to end in their order")
    rising = documents[0] == 0 and documents[-1] == sequences and (np.diff(documents) >= 0).all()
    if not rising:
        raise Refused(f"{path}: its documents are not all of its sequences in their order")
    tokens = mapped(stem.with_name(stem.name + ".bin"), TYPES[code])
    return TokenFile(stem.with_name(stem.name + ".bin"), tokens, np.diff(ends[documents]))


def files(stem: str, shard: Shard, lengths: np.ndarray, about: dict) -> dict[str, bytes | str]:
    """What to write for a shard: file name -> its content, or the suffix of the shard's file."""
    return {f"{stem}.bin": "bin", f"{stem}.idx": "idx"}
