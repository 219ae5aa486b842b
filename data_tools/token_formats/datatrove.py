"""datatrove's tokenized files: NAME.ds holds ids of 2 or 4 bytes, NAME.ds.index where texts end.

NAME.ds.metadata says TOKENIZER|BYTES and how many tokens there are.  Masks (.ds.loss) are not read.
"""

from pathlib import Path

import numpy as np

from data_tools.token_file import TokenFile, mapped
from januslm.config import Refused
from januslm.data.shards import Shard

SUFFIXES = (".ds", ".ds.index")  # of one file; the first holds the tokens
TYPES = {2: "<u2", 4: "<u4"}


def read(stem: Path) -> TokenFile:
    """NAME.ds with its index, and its metadata where it is there; raises Refused where they differ.

    Without metadata the size of a token is what makes the tokens end where the last document does.
    """
    path = stem.with_name(stem.name + ".ds")
    ends = mapped(stem.with_name(stem.name + ".ds.index"), "<u8").astype(np.int64)
    raw = mapped(path, "u1")
    lengths = np.diff(ends, prepend=0)
    count = int(ends[-1]) if len(ends) else 0
    size, said = _metadata(stem.with_name(stem.name + ".ds.metadata"))
    size = size or len(raw) // max(count, 1)
    if size not in TYPES and len(raw):
        raise Refused(f"{path}: {len(raw):,} bytes are not {count:,} tokens of 2 or 4 bytes each")
    if said not in (None, count) or len(raw) != count * size:
        raise Refused(
            f"{path}: {len(raw):,} bytes, the index ends at token {count:,}"
            + (f", the metadata says {said:,} tokens" if said is not None else "")
            + f", of {size} bytes each: cut short, or of another index"
        )
    return TokenFile(path, mapped(path, TYPES.get(size, "<u2")), lengths)


def _metadata(path: Path) -> tuple[int, int | None]:
    """(bytes of a token, tokens); (0, None) where there is no such file."""
    if not path.exists():
        return 0, None
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    size = lines[0].rpartition("|")[2] if lines else ""
    if size not in ("2", "4") or len(lines) < 2 or not lines[1].strip().isdecimal():
        raise Refused(f"{path}: must say TOKENIZER|2 or |4, then the number of tokens")
    return int(size), int(lines[1])


def files(stem: str, shard: Shard, lengths: np.ndarray, about: dict) -> dict[str, bytes | str]:
    """What to write for a shard: file name -> its content, or the suffix of the shard's file."""
    size = shard.bytes // max(shard.tokens, 1) or 2
    count = f"{shard.tokens / 1e6:.3g} MT" if shard.tokens >= 1e6 else f"{shard.tokens} T"
    metadata = f"{about['tokenizer']}|{size}\n{shard.tokens}\n{count}"
    ends = np.cumsum(lengths, dtype=np.int64).astype("<u8")
    return {
        f"{stem}.ds": "bin",  # int32 is uint32, where nothing is below 0
        f"{stem}.ds.index": ends.tobytes(),
        f"{stem}.ds.metadata": metadata.encode(),
    }
