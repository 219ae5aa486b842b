"""Lists of words, addresses and the like, in a corpus file or in files of their own."""

from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path

from xxhash import xxh3_128_hexdigest

from data_tools.files import matching
from januslm.config import Refused
from januslm.data.text_pairs import lines


def located(root: Path, **patterns: Sequence[str]) -> tuple[dict[str, list[str]], dict[str, str]]:
    """The files that patterns below root match, and the hash of each list, both by option."""
    found, hashes = {}, {}
    for option, wanted in patterns.items():
        try:
            files = matching(root, list(wanted))
        except Refused as error:
            raise Refused(f"{option}: {error}") from None
        found[option] = [file.place for file in files]
        if files:
            listed = sorted(entries((), found[option]))
            hashes[option] = xxh3_128_hexdigest("\n".join(listed).encode())
    return found, hashes


def entries(given: Iterable[str], files: Iterable[str]) -> frozenset[str]:
    """The entries of a corpus file and of list files, in small letters."""
    return _entries(tuple(given), tuple(files))


@cache
def _entries(given: tuple[str, ...], files: tuple[str, ...]) -> frozenset[str]:
    """The same, read once per process: an entry a line, but for blank ones and # comments."""
    found = [*given]
    for name in files:
        found += (line for line in lines(Path(name)) if not line.startswith("#"))
    return frozenset(entry.strip().lower() for entry in found) - {""}
