"""Token shards on disk: Megatron's .bin/.idx byte for byte, plus hashes so that damage is found.

A corpus is a folder: shard-00000.bin (the ids, every document ends with eos), shard-00000.idx
(Megatron's index), shard-00000.xxh (one xxh3_64 per 4 MiB of the .bin) and manifest.json.
This file reads; januslm/data/shard_writer.py writes.
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Literal, Protocol, get_args

import numpy as np
from xxhash import xxh3_64, xxh3_128

from januslm.config import Refused, build, json_table
from januslm.data import remote, sealed
from januslm.data.block_cache import BlockCache
from januslm.data.far_tokens import Address, FarTokens

FORMAT = 2
MANIFEST = "manifest.json"
BLOCK = 4 << 20  # bytes under one hash in .xxh
HEADER = 34  # of .idx: magic 9, version 8, dtype code 1, sequences 8, documents + 1 8
DTYPES = ("uint16", "int32")  # Megatron has no uint32, so vocabularies above 65,536 use int32
Verify = Literal["size", "lazy", "full"]
Place = Path | Address  # of a corpus
AGAIN = "build it again (data build ... --fresh)"


@dataclass(frozen=True)
class Shard:
    """One finished shard as the manifest lists it; bin, idx and xxh are xxh3_128 of those files."""

    name: str
    tokens: int
    documents: int
    bytes: int
    bin: str
    idx: str
    xxh: str

    def __post_init__(self):
        if Path(self.name).name != self.name:  # from elsewhere, it could lead anywhere
            raise Refused(f"name must be that of a file in the corpus, got {self.name!r}")
        if min(self.tokens, self.documents, self.bytes) < 0:
            raise Refused(f"{self.name}: tokens, documents and bytes must be at least 0")

    @property
    def sizes(self) -> dict[str, int]:
        """The bytes of each of its files, by their suffix."""
        index = HEADER + 12 * self.documents + 8 * (self.documents + 1)
        return {"bin": self.bytes, "idx": index, "xxh": 8 * -(-self.bytes // BLOCK)}


@dataclass(frozen=True)
class Manifest:
    """What reading a corpus needs of its manifest; `shards` in the order of their documents."""

    dtype: str
    vocabulary: int
    tokenizer: str  # its sha256
    eos: int
    documents: int
    tokens: int
    shards: tuple[Shard, ...]

    def __post_init__(self):
        if self.dtype not in DTYPES:
            raise Refused(f"dtype {self.dtype!r}, possible are {', '.join(DTYPES)}")
        size = np.dtype(self.dtype).itemsize
        for shard in self.shards:
            if shard.bytes != shard.tokens * size:
                raise Refused(f"{shard.name}: {shard.bytes} bytes are not {shard.tokens} tokens")
        for key in ("documents", "tokens"):
            if (found := sum(getattr(one, key) for one in self.shards)) != getattr(self, key):
                raise Refused(f"{key} {getattr(self, key)}, its shards have {found}")


def open_corpus(
    folder: str | Path,
    tokenizer_sha256: str | None = None,
    verify: Verify = "size",
    cache: BlockCache | None = None,
) -> "Corpus":
    """Open a finished corpus and check it; raises Refused naming the file and what is wrong.

    `verify`: "size" checks every file's presence and size and the hashes of the small files;
    "lazy" also hashes each 4 MiB of tokens when it is first read; "full" hashes all of it now.
    An address in place of a folder is read through `cache`, each 4 MiB as it is needed, and
    hashed then, whatever `verify` says.
    """
    if verify not in get_args(Verify):
        raise Refused(f"verify must be one of {', '.join(get_args(Verify))}, got {verify!r}")
    place = located(folder)
    manifest = read_manifest(place)
    facts = _facts(place, manifest)
    theirs = facts.tokenizer
    if tokenizer_sha256 not in (None, theirs):
        raise Refused(
            f"{place / MANIFEST}: the shards were made with tokenizer {theirs[:12]}..., "
            f"this one is {tokenizer_sha256[:12]}...: its ids mean other words"
        )
    dtype = np.dtype(facts.dtype)
    if isinstance(place, Address) and cache is None:
        raise Refused(f"{place}: only a run's data.train and data.valid may be far away")
    shards = [_open(place, about, dtype, verify != "size", cache) for about in facts.shards]
    corpus = Corpus(place, manifest, facts, shards)
    if verify == "full" and not isinstance(place, Address):
        for number in range(len(shards)):
            corpus.check(number)
    return corpus


def _open(
    place: Place, about: Shard, dtype: np.dtype, watch: bool, cache: BlockCache | None
) -> "_Open":
    documents, stem = about.documents, place / about.name
    index, hashes = (_small(place, about, suffix, cache) for suffix in ("idx", "xxh"))
    lengths = index[HEADER : HEADER + 4 * documents].view("<i4")
    pointers = index[HEADER + 4 * documents : HEADER + 12 * documents].view("<i8")
    sums = hashes.view("<u8")
    tokens: Tokens
    if isinstance(stem, Address):
        assert cache, "open_corpus refuses it"
        tokens = FarTokens(f"{stem}.bin", about.bin, about.bytes, dtype, sums, BLOCK, cache)
    else:
        path = stem.with_name(f"{about.name}.bin")
        unchecked = np.ones(len(sums), dtype=bool) if watch else None
        tokens = _MappedTokens(path, _mapped(path, about.bytes).view(dtype), sums, unchecked)
    return _Open(tokens, lengths, pointers)


def _small(place: Place, about: Shard, suffix: str, cache: BlockCache | None) -> np.ndarray:
    """The .idx or .xxh of a shard, its hash compared: uint8 [N]."""
    wanted, size = getattr(about, suffix), about.sizes[suffix]
    file = f"{place / about.name}.{suffix}"
    if isinstance(place, Address):
        assert cache, "open_corpus refuses it"
        return cache.get(
            f"{about.bin}/{wanted}.{suffix}",
            lambda: remote.part(file),
            lambda raw: len(raw) == size and xxh3_128(raw.data).hexdigest() == wanted,
            file,
        )
    raw = _mapped(Path(file), size)
    if xxh3_128(raw.data).hexdigest() != wanted:
        raise Refused(
            f"{file}: does not match its hash in {MANIFEST}; "
            "the file was changed or damaged after it was written"
        )
    return raw


def _mapped(path: Path, wanted: int) -> np.ndarray:
    """The bytes of a file as uint8 [wanted], not read yet."""
    try:
        size = path.stat().st_size
        if size != wanted:
            raise Refused(f"{path}: has {size} bytes, {MANIFEST} says {wanted}")
        # a plain array over the map: slicing a np.memmap costs ten times as much
        return np.asarray(np.memmap(path, np.uint8, "r")) if size else np.empty(0, np.uint8)
    except FileNotFoundError:
        raise Refused(f"{path}: missing, {MANIFEST} lists it") from None
    except OSError as error:
        raise Refused(f"{path}: cannot be read ({error.strerror})") from None


def located(folder: str | Path) -> Place:
    """The folder, or the address, of a corpus."""
    far = isinstance(folder, str) and remote.is_remote(folder)
    return Address(str(folder).rstrip("/")) if far else Path(folder)


def read_manifest(folder: Place | str) -> dict:
    """The manifest of a corpus folder; raises Refused where it is missing or damaged."""
    path = (folder if isinstance(folder, Address) else Path(folder)) / MANIFEST
    if isinstance(path, Address):
        raw = remote.part(path, first=True)
        try:
            body = json.loads(raw)
        except ValueError as error:
            raise Refused(f"{path}: not JSON ({error})") from None
        if not isinstance(body, dict):
            raise Refused(f"{path}: must be a table")
    elif not path.exists():
        raise Refused(
            f"{path}: missing; {folder} is not a finished corpus "
            "(data build makes one, and continues an interrupted one)"
        )
    else:
        body = json_table(path)
    if sealed.KEY not in body and "self" in body:
        raise Refused(f"{path}: of an earlier version, without a seal; {AGAIN}")
    if not sealed.is_whole(body):
        raise Refused(f"{path}: does not match its own hash; it was edited or damaged: {AGAIN}")
    if body.get("format") != FORMAT:
        raise Refused(f"{path}: format {body.get('format')}, this version reads {FORMAT}; {AGAIN}")
    return {key: value for key, value in body.items() if key != sealed.KEY}


def fingerprint(manifest: dict) -> str:
    """A checksum of a manifest, and so of all its shards."""
    return xxh3_128(json.dumps(manifest, sort_keys=True).encode()).hexdigest()


def _facts(folder: Place, manifest: dict) -> Manifest:
    """The manifest's part that reading needs, checked key by key."""
    known = {field.name for field in fields(Manifest)}
    found = {key: value for key, value in manifest.items() if key in known}
    return build(Manifest, found, str(folder / MANIFEST))


class Tokens(Protocol):
    """The tokens of a shard, hashed when they are first read."""

    def __len__(self) -> int: ...

    def span(self, first: int, end: int) -> np.ndarray:
        """Tokens first..end-1 as they lie on disk; Refused where they are damaged."""

    def rows(self, rows: np.ndarray, length: int) -> np.ndarray:
        """Windows of `length` tokens by their numbers: [B] -> uint16 or int32 [B, length]."""

    def check(self) -> None:
        """Hash what is not hashed yet; Refused where it is damaged."""


@dataclass
class _Open:
    """One opened shard: its tokens, and int32 and int64 [documents], pointers being bytes."""

    tokens: Tokens
    lengths: np.ndarray
    pointers: np.ndarray


@dataclass
class _MappedTokens:
    """A .bin on this machine; `unchecked` marks 4 MiB blocks not hashed yet (lazy)."""

    path: Path
    tokens: np.ndarray
    hashes: np.ndarray
    unchecked: np.ndarray | None

    def __len__(self) -> int:
        return len(self.tokens)

    def span(self, first: int, end: int) -> np.ndarray:
        self._touch(first, end)
        return self.tokens[first:end]

    def rows(self, rows: np.ndarray, length: int) -> np.ndarray:
        if self.unchecked is not None:
            for row in rows.tolist():
                self._touch(row * length, (row + 1) * length)
        whole = self.tokens[: len(self.tokens) // length * length].reshape(-1, length)
        return whole[rows]

    def check(self) -> None:
        self._touch(0, len(self.tokens))

    def _touch(self, first: int, end: int) -> None:
        """Hash the blocks that hold tokens first..end-1, each once; Refused if one is damaged."""
        if self.unchecked is None:
            return
        size = self.tokens.itemsize
        blocks = slice(first * size // BLOCK, -(-end * size // BLOCK))
        if not self.unchecked[blocks].any():
            return
        raw = self.tokens.view(np.uint8)
        for block in np.flatnonzero(self.unchecked[blocks]) + blocks.start:
            content = raw[block * BLOCK : (block + 1) * BLOCK]
            if xxh3_64(content.data).intdigest() != self.hashes[block]:
                raise Refused(
                    f"{self.path}: bytes {block * BLOCK} to {block * BLOCK + len(content) - 1} "
                    "do not match their hash; the file was changed or damaged after it was written"
                )
            self.unchecked[block] = False


class Corpus:
    """The documents and windows of an opened corpus; make one with `open_corpus`.

    Windows do not cross shards: the last few tokens of a shard (fewer than one window) are unused.
    """

    def __init__(self, folder: Place, manifest: dict, facts: Manifest, shards: list[_Open]):
        self.folder, self.manifest, self._shards = folder, manifest, shards
        self.documents, self.tokens, self.eos = facts.documents, facts.tokens, facts.eos
        self._itemsize = np.dtype(facts.dtype).itemsize
        self._first = _starts(len(shard.lengths) for shard in shards)
        self._tables: dict[tuple[str, int], np.ndarray] = {}

    @property
    def fingerprint(self) -> str:
        """A checksum of the manifest, and so of every shard: what a checkpoint remembers."""
        return fingerprint(self.manifest)

    @property
    def far(self) -> bool:
        """Whether it is at an address, and its blocks are fetched as they are read."""
        return isinstance(self.folder, Address)

    def per_block(self, samples: int) -> int:
        """How many of so many samples lie in 4 MiB, about."""
        return max(1, samples * BLOCK // max(1, self.tokens * self._itemsize))

    def soon(self, unit: str, length: int, first: int, end: int) -> None:
        """Have the blocks of the windows or pieces first..end-1 fetched, if they are far away."""
        ends = (self._place(unit, length, i) for i in (first, end - 1))
        (low, start, _), (high, _, stop) = ends
        for number in range(low, high + 1):
            tokens = self._shards[number].tokens
            if isinstance(tokens, FarTokens):
                until = stop if number == high else len(tokens)
                tokens.soon(start if number == low else 0, until)

    def _place(self, unit: str, length: int, i: int) -> tuple[int, int, int]:
        """Shard, and the first and the end of its tokens, of a window; of a piece its document."""
        if unit == "windows":
            starts = self._window_starts(length)
            number = int(np.searchsorted(starts, i, "right")) - 1
            row = i - int(starts[number])
            return number, row * length, (row + 1) * length
        document = int(np.searchsorted(self._piece_starts(length), i, "right")) - 1
        shard, inside = self._document(document)
        number = int(np.searchsorted(self._first, document, "right")) - 1
        start = int(shard.pointers[inside]) // self._itemsize
        return number, start, start + int(shard.lengths[inside])

    def check(self, number: int) -> None:
        """Hash what is not hashed yet of one shard; raises Refused where it is damaged."""
        self._shards[number].tokens.check()

    def lengths(self) -> np.ndarray:
        """Tokens of every document, its eos not counted: int32 [documents]."""
        return np.concatenate([shard.lengths for shard in self._shards]) - 1

    def document(self, i: int) -> np.ndarray:
        """The ids of document i without its final eos: int64 [T]."""
        shard, inside = self._document(i)
        return self._span(shard, inside, 0, int(shard.lengths[inside]) - 1)

    def windows(self, length: int) -> int:
        """How many windows of `length` tokens there are."""
        return int(self._window_starts(length)[-1])

    def window(self, i: int, length: int) -> np.ndarray:
        """Window i of the token stream, eos included: int64 [length]."""
        return self.read_windows(np.array([i]), length)[0]

    def read_windows(self, indices: np.ndarray, length: int) -> np.ndarray:
        """Many windows in one read: int64 [B] -> int64 [B, length]."""
        starts = self._window_starts(length)
        indices = np.asarray(indices, dtype=np.int64)
        if indices.size and not (
            np.minimum.reduce(indices) >= 0 and np.maximum.reduce(indices) < starts[-1]
        ):
            raise IndexError(f"windows are 0 to {starts[-1] - 1}, asked for {indices}")
        if len(self._shards) == 1:
            return self._shards[0].tokens.rows(indices, length).astype(np.int64)
        place = np.searchsorted(starts, indices, "right") - 1
        out = np.empty((len(indices), length), np.int64)
        for number in set(place.tolist()):
            mine = np.flatnonzero(place == number)
            rows = indices[mine] - starts[number]
            out[mine] = self._shards[number].tokens.rows(rows, length)
        return out

    def pieces(self, length: int) -> int:
        """How many pieces of at most `length` tokens the documents are cut into."""
        return int(self._piece_starts(length)[-1])

    def piece(self, i: int, length: int) -> np.ndarray:
        """Piece i: a document, or one of the near-equal parts of a longer one: int64 [T]."""
        starts = self._piece_starts(length)
        if not 0 <= i < starts[-1]:
            raise IndexError(f"pieces are 0 to {starts[-1] - 1}, asked for {i}")
        document = int(np.searchsorted(starts, i, "right")) - 1
        part, parts = i - starts[document], starts[document + 1] - starts[document]
        shard, inside = self._document(document)
        total = int(shard.lengths[inside]) - 1
        return self._span(shard, inside, part * total // parts, (part + 1) * total // parts)

    def _document(self, i: int) -> tuple[_Open, int]:
        if not 0 <= i < self.documents:
            raise IndexError(f"documents are 0 to {self.documents - 1}, asked for {i}")
        number = int(np.searchsorted(self._first, i, "right")) - 1
        return self._shards[number], i - int(self._first[number])

    def _span(self, shard: _Open, i: int, low: int, high: int) -> np.ndarray:
        start = int(shard.pointers[i]) // self._itemsize
        return shard.tokens.span(start + low, start + high).astype(np.int64)

    def _window_starts(self, length: int) -> np.ndarray:
        key = ("window", length)
        if key not in self._tables:
            self._tables[key] = _starts(len(shard.tokens) // length for shard in self._shards)
        return self._tables[key]

    def _piece_starts(self, length: int) -> np.ndarray:
        key = ("piece", length)
        if key not in self._tables:
            counts = [-(-(shard.lengths - 1) // length) for shard in self._shards]
            self._tables[key] = _starts(np.concatenate([np.empty(0, np.int64), *counts]))
        return self._tables[key]


def _starts(counts: Iterable[int]) -> np.ndarray:
    if not isinstance(counts, np.ndarray):
        counts = np.array(list(counts), dtype=np.int64)
    return np.concatenate([[0], np.cumsum(counts, dtype=np.int64)])
