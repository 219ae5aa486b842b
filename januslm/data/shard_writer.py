"""Writes token shards and manifests so that a crash leaves whole files or none."""

import json
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path

import numpy as np
from xxhash import xxh3_64, xxh3_128

from januslm.data import atomic, sealed
from januslm.data.shards import BLOCK, FORMAT, MANIFEST, Shard

MAGIC = b"MMIDIDX\x00\x00"
CODES = {"uint16": 8, "int32": 4}  # Megatron's numbers for the types


def dtype_for(vocabulary: int) -> str:
    """The smallest type of Megatron's that holds every id of the vocabulary."""
    return "uint16" if vocabulary <= 1 << 16 else "int32"


class Writer:
    """Writes one shard; nothing has its final name before `close` returned.

    Memory is 4 bytes per document, whatever the size.
    """

    def __init__(self, folder: str | Path, name: str, dtype: str, eos: int):
        self.folder, self.name, self.dtype, self.eos = Path(folder), name, np.dtype(dtype), eos
        self.folder.mkdir(parents=True, exist_ok=True)
        self._lengths: list[np.ndarray] = []
        self._whole, self._block = xxh3_128(), xxh3_64()
        self._blocks: list[int] = []  # one hash per BLOCK bytes
        self._room = BLOCK  # bytes until the block that is being hashed is full
        self._open = ExitStack()
        self._bin = self._open.enter_context(atomic.durable(self._path("bin"), "wb"))

    def __enter__(self) -> "Writer":
        return self

    def __exit__(self, *error) -> None:
        """Leave nothing of the shard behind if an error comes before `close`."""
        if error[0] is not None:
            self._open.__exit__(*error)

    def add(self, documents: Iterable[np.ndarray]) -> None:
        """Append documents of int [T] ids without their eos, which is added here."""
        eos = np.array([self.eos], dtype=self.dtype)
        parts = [part for ids in documents for part in (ids.astype(self.dtype), eos)]
        if parts:
            lengths = np.array([len(ids) + 1 for ids in parts[::2]], dtype=np.int32)
            self.copy(np.concatenate(parts), lengths)

    def copy(self, tokens: np.ndarray, lengths: np.ndarray) -> None:
        """Append documents that have their eos: their tokens end to end, and their lengths."""
        self._lengths.append(lengths)
        raw = memoryview(tokens.tobytes())
        self._bin.write(raw)
        self._whole.update(raw)
        while len(raw) >= self._room:
            self._end_block(raw[: self._room])
            raw, self._room = raw[self._room :], BLOCK
        self._block.update(raw)
        self._room -= len(raw)

    def _end_block(self, last: bytes | memoryview) -> None:
        self._block.update(last)
        self._blocks.append(self._block.intdigest())
        self._block.reset()

    def close(self) -> Shard:
        """Finish the three files, each whole and on the disk under its name."""
        if self._room < BLOCK:
            self._end_block(b"")
        size = self._bin.tell()
        self._open.close()
        lengths = np.concatenate([np.empty(0, np.int32), *self._lengths])
        others = {"idx": _index(lengths, self.dtype), "xxh": [np.array(self._blocks, "<u8")]}
        digests = {suffix: _written(self._path(suffix), parts) for suffix, parts in others.items()}
        tokens = size // self.dtype.itemsize
        return Shard(self.name, tokens, len(lengths), size, self._whole.hexdigest(), **digests)

    def _path(self, suffix: str) -> Path:
        return self.folder / f"{self.name}.{suffix}"


def _written(path: Path, parts: Iterable[np.ndarray]) -> str:
    """Write arrays end to end; xxh3_128 of the file."""
    whole = xxh3_128()
    with atomic.durable(path, "wb") as file:
        for part in parts:
            file.write(part.data)
            whole.update(part.data)
    return whole.hexdigest()


def _index(lengths: np.ndarray, dtype: np.dtype) -> Iterator[np.ndarray]:
    """Megatron's .idx for documents of one sequence each, part by part."""
    count = len(lengths)
    head = np.array([1], "<u8").tobytes() + bytes([CODES[dtype.name]])
    head += np.array([count, count + 1], "<u8").tobytes()
    yield np.frombuffer(MAGIC + head, np.uint8)
    yield lengths
    pointers = np.zeros(count, np.int64)
    np.cumsum(lengths[:-1].astype(np.int64) * dtype.itemsize, out=pointers[1:])
    yield pointers
    yield np.arange(count + 1)


def write_manifest(folder: str | Path, shards: list[Shard], **about) -> None:
    """Write manifest.json, last of all: dtype, vocabulary, tokenizer, eos and any other facts."""
    body = {
        "format": FORMAT,
        **about,
        "documents": sum(shard.documents for shard in shards),
        "tokens": sum(shard.tokens for shard in shards),
        "shards": [asdict(shard) for shard in shards],
    }
    with atomic.durable(Path(folder) / MANIFEST) as file:
        file.write(json.dumps(sealed.sealed(body), indent=1))
