"""One corpus as several: by the hash of each document, or by whole shards."""

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
from xxhash import xxh3_64_intdigest

from data_tools.inspect_corpus import folder_of, tokenizer_of
from data_tools.merge import SAME, made_of
from data_tools.new_folder import new_folder, place
from januslm.cli.progress import Progress
from januslm.config import Refused
from januslm.data.shard_writer import Writer, write_manifest
from januslm.data.shards import Corpus, Shard, open_corpus

REST = "rest"
EVERY = 2**64  # hashes
ROUNDED = 2**16  # of them, by which shares that sum to 1 may miss it
COPIED = 8192  # documents copied at a time


def split(given: str, out: str, sizes: Mapping[str, str], report: Callable[[str], None]) -> None:
    """Write OUT/NAME for each name; its documents, which are chosen by their hash alone.

    sizes: by name a share below 1, a number of documents, or `rest`.  Documents with the same
    tokens stay together, so that a number may be exceeded where there are some.
    """
    corpus = open_corpus(given, verify="full")
    owner = _owners(_hashes(corpus), sizes)
    names = list(sizes)
    with new_folder(out) as aside:
        written = {name: _written(corpus, aside / name, owner == i) for i, name in enumerate(names)}
        for name, shards in written.items():
            _manifest(aside / name, shards, corpus, {"name": name, "size": sizes[name]})
        _tokenizer(corpus, aside)
    counts = {name: sum(one.documents for one in shards) for name, shards in written.items()}
    for name, shards in written.items():
        tokens = sum(one.tokens for one in shards)
        report(f"{Path(out) / name}: {counts[name]:,} documents, {tokens:,} tokens")
    left = int((owner < 0).sum())
    report(f"left out: {left:,} documents of {corpus.documents:,}")
    assert left + sum(counts.values()) == corpus.documents, counts


def pieces(
    given: str, out: str, count: int, report: Callable[[str], None], copy: bool = False
) -> None:
    """Write OUT/piece-0 and so on: whole shards, about as many tokens in each; links if it can."""
    corpus = open_corpus(given, verify="full")
    shards = [Shard(**row) for row in corpus.manifest["shards"]]
    if not 1 <= count <= len(shards):
        raise Refused(
            f"{given}: has {len(shards)} shards, which make 1 to {len(shards)} pieces, not {count}"
        )
    groups = _groups([shard.tokens for shard in shards], count)
    with new_folder(out) as aside:
        for number, members in enumerate(groups):
            folder = aside / f"piece-{number}"
            folder.mkdir()
            for i in members:
                for suffix in shards[i].sizes:
                    name = f"{shards[i].name}.{suffix}"
                    place(folder_of(corpus) / name, folder / name, copy)
            mine = [shards[i] for i in members]
            _manifest(folder, mine, corpus, {"name": folder.name, "size": f"1 of {count}"})
        _tokenizer(corpus, aside)
    for number, members in enumerate(groups):
        tokens = sum(shards[i].tokens for i in members)
        report(f"{Path(out) / f'piece-{number}'}: {len(members)} shards, {tokens:,} tokens")


def _groups(sizes: list[int], count: int) -> list[list[int]]:
    """Neighbours in `count` groups, none empty, each ending nearest to its share of the whole."""
    ends, groups, first = np.cumsum(sizes), [], 0
    for number in range(1, count + 1):
        aim = ends[-1] * number / count
        last = int(np.abs(ends - aim).argmin()) + 1 if number < count else len(sizes)
        last = min(max(last, first + 1), len(sizes) - (count - number))
        groups.append(list(range(first, last)))
        first = last
    return groups


def _owners(hashes: np.ndarray, sizes: Mapping[str, str]) -> np.ndarray:
    """The place in `sizes` of every document, -1 for those that nobody wants: int64 [documents].

    The range of hashes is cut into runs, one a name, in their order; `rest` takes what is left.
    """
    if strange := [name for name in sizes if Path(name).name != name or name == ".."]:
        raise Refused(f"{strange[0]!r} is no name of a folder in OUT")
    if list(sizes.values()).count(REST) > 1 or not sizes:
        raise Refused("NAME=SHARE, NAME=DOCUMENTS, and NAME=rest at most once")
    ordered, low = np.sort(hashes), 0  # hashes below `low` have an owner
    owner = np.full(len(hashes), -1)
    for at, (name, size) in enumerate(sizes.items()):
        if size == REST:
            continue
        number = _number(name, size)
        before = int((ordered < low).sum()) if low < EVERY else len(ordered)
        if number < 1:
            high = low + round(number * EVERY)
        else:
            last = before + int(number) - 1
            high = int(ordered[last]) + 1 if last < len(ordered) else EVERY + 2
        if high > EVERY + 1:  # 1: shares that sum to 1 may be rounded
            raise Refused(
                f"{name}={size}: only {len(ordered) - before:,} documents are left for it"
            )
        mine = (hashes >= low) & (hashes <= min(high, EVERY) - 1)
        owner[mine] = at
        low = min(high, EVERY)
    for at, (name, size) in enumerate(sizes.items()):
        if size == REST:
            owner[owner < 0] = at
        if not (owner == at).any():
            raise Refused(f"{name}={size}: none of {len(hashes):,} documents falls to it")
    return owner


def _number(name: str, size: str) -> float:
    try:
        number = float(size)
    except ValueError:
        number = 0.0
    if not (0 < number < 1 or (number >= 1 and number.is_integer())):
        raise Refused(f"{name}={size}: must be a share below 1, a number of documents, or {REST!r}")
    return number


def _hashes(corpus: Corpus) -> np.ndarray:
    """xxh3_64 of the tokens of every document: uint64 [documents]."""
    progress = Progress("split", corpus.documents, "documents hashed")
    found = np.empty(corpus.documents, np.uint64)
    for i in range(corpus.documents):
        found[i] = xxh3_64_intdigest(corpus.document(i).astype("<i4").tobytes())
        if i % COPIED == 0:
            progress.show(i)
    progress.end()
    return found


def _written(corpus: Corpus, folder: Path, mine: np.ndarray) -> list[Shard]:
    """Copy the documents that `mine` marks, bool [documents], a shard for each that has some."""
    shards: list[Shard] = []
    first = 0
    for row in corpus.manifest["shards"]:
        chosen = np.flatnonzero(mine[first : first + row["documents"]]) + first
        first += row["documents"]
        if not len(chosen):
            continue
        about = corpus.manifest
        with Writer(folder, f"shard-{len(shards):05d}", about["dtype"], about["eos"]) as writer:
            for start in range(0, len(chosen), COPIED):
                writer.add(corpus.document(int(i)) for i in chosen[start : start + COPIED])
            shards.append(writer.close())
    return shards


def _manifest(folder: Path, shards: list[Shard], corpus: Corpus, part: dict) -> None:
    about = {key: corpus.manifest[key] for key in SAME}
    write_manifest(folder, shards, split=part["name"], **about, made_of=[made_of(corpus) | part])


def _tokenizer(corpus: Corpus, aside: Path) -> None:
    if file := tokenizer_of(folder_of(corpus), corpus.manifest["tokenizer"]):
        place(file, aside / "tokenizer.json", copy=True)
