"""Spoils files of every kind and hands them to every source, whole and in pieces.

What must hold, whatever a file holds: a source gives documents and reasons, or refuses in one line;
it gives the same a second time; the pieces of a file give what the whole gives; and of a file that
was cut, no document that the whole one has not.

  python -m benchmarks.fuzz_sources --cases 5000
  python -m benchmarks.fuzz_sources --case 1234 --keep /tmp/case     one case again, and its folder
"""

import argparse
import bz2
import gzip
import importlib
import lzma
import signal
import sys
import tempfile
import time
import tomllib
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from random import Random

import zstandard

from benchmarks import fuzz_mutations
from januslm.cli.table import drawn
from januslm.config import Refused
from januslm.registry import find, names, options

documents = importlib.import_module("data_tools.documents")  # programs do not import each other
FIXTURES = Path(__file__).resolve().parents[1] / "tests" / "fixtures"
SECONDS = 120  # that a case may take
PACKERS: dict[str, Callable[[bytes], bytes]] = {
    "": bytes,
    ".gz": gzip.compress,
    ".bz2": bz2.compress,
    ".xz": lzma.compress,
    ".zst": zstandard.compress,
}
ONE_BY_ONE = ("warc", "wet")  # records are packed by themselves
OWN = ("docstrings", "hf")  # read no files of their own kind
# Where the end of a file, or of a line, does not say whether it is the end of a document.
OPEN_ENDED = ("text", "table")


@dataclass(frozen=True)
class Sound:
    """A file as it should be, and what its source gives of it."""

    kind: str
    name: str
    raw: bytes
    options: dict
    texts: tuple[str, ...]


@dataclass(frozen=True)
class Case:
    """One spoiled file; failure: "" or what is wrong."""

    number: int
    kind: str
    spoiled: str
    end: str
    failure: str = ""


def main() -> int:
    given = _arguments()
    with tempfile.TemporaryDirectory(prefix="januslm-fuzz-") as place:
        folder = given.keep or Path(place)
        folder.mkdir(parents=True, exist_ok=True)
        sound = list(sound_files(folder))
        if given.case is not None:
            case = run_case(given.case, sound, folder, given.seed, keep=True)
            print(case)
            return int(bool(case.failure))
        return _report(run_case(number, sound, folder, given.seed) for number in range(given.cases))


def _arguments() -> argparse.Namespace:
    known = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    known.add_argument("--cases", type=int, default=1000, metavar="N")
    known.add_argument("--seed", type=int, default=0, help="the same seed, the same cases")
    known.add_argument("--case", type=int, help="only this one")
    known.add_argument("--keep", type=Path, help="with --case: a folder to leave its file in")
    return known.parse_args()


def sound_files(folder: Path) -> Iterator[Sound]:
    """The fixture of every source, several times over, plain and packed in every way it reads."""
    for kind in names("data_tools.sources"):
        if kind in OWN:
            continue
        chosen = tomllib.loads((FIXTURES / "sources" / f"{kind}.toml").read_text())["options"]
        path = FIXTURES / chosen.pop("files")[0]
        raw, name = path.read_bytes(), path.name
        if path.suffix in PACKERS:
            unpack = {".gz": gzip.decompress, ".bz2": bz2.decompress}[path.suffix]
            raw, name = unpack(raw), name.removesuffix(path.suffix)
        raw = raw * (9 if kind in ("jsonl", "datatrove", "dolma", "text", *ONE_BY_ONE) else 1)
        for end, pack in PACKERS.items():
            if end and kind == "parquet":
                continue
            packed = pack(raw)
            if end == ".gz" and kind in ONE_BY_ONE:
                parts = raw.split(b"WARC/1.0\r\n")[1:]
                packed = b"".join(pack(b"WARC/1.0\r\n" + part) for part in parts)
            (folder / f"{name}{end}").write_bytes(packed)
            made = Sound(kind, f"{name}{end}", packed, chosen, ())
            texts = tuple(_texts(_read(made, folder)))
            assert texts, made.name
            yield Sound(kind, made.name, packed, chosen, texts)


def run_case(number: int, sound: list[Sound], folder: Path, seed: int, keep: bool = False) -> Case:
    """Spoil one file, or hand it to another source, and look at what comes of it."""
    rng = Random(f"{seed}/{number}")
    plain = [one for one in sound if Path(one.name).suffix not in PACKERS]
    file = rng.choice(plain if rng.random() < 0.6 else sound)  # packed ones are mostly refused
    reader = rng.choice(sound) if rng.random() < 0.15 else file
    raw, spoiled, is_cut = _spoiled(file.raw, sound, rng)
    wrong = Sound(reader.kind, file.name, raw, reader.options, file.texts)
    (folder / wrong.name).write_bytes(raw)
    signal.signal(signal.SIGALRM, _too_long)
    signal.alarm(SECONDS)
    end, failure = "", ""
    try:
        end, failure = _judged(wrong, folder, rng, is_cut and reader is file)
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt):
            raise
        place = traceback.extract_tb(error.__traceback__)[-1]
        failure = f"{type(error).__name__} at {place.name}:{place.lineno} ({str(error)[:100]})"
    finally:
        signal.alarm(0)
        if not keep:
            (folder / wrong.name).unlink(missing_ok=True)
    what = f"{file.name} {spoiled}, read as {reader.kind}"
    return Case(number, reader.kind, what, end or "failed", failure)


def _too_long(*_) -> None:
    raise TimeoutError(f"more than {SECONDS} s")


def _spoiled(raw: bytes, sound: list[Sound], rng: Random) -> tuple[bytes, str, bool]:
    """Other bytes, what was done to them, and whether they are just the first of the old ones."""
    at, upto = sorted((rng.randrange(len(raw) + 1), rng.randrange(len(raw) + 1)))
    match rng.randrange(12):
        case 0 | 1:
            return raw[:at], f"cut at byte {at}", True
        case 2:
            return raw[:at] + raw[upto:], f"without bytes {at} to {upto}", False
        case 3:
            return raw[:at] + bytes(upto - at) + raw[upto:], f"zeros from {at} to {upto}", False
        case 4:
            more = rng.randbytes(rng.choice([1, 8, 100]))
            return raw[:at] + more + raw[at:], f"{len(more)} more bytes at {at}", False
        case 5:
            return raw[:upto] + raw[at:], f"bytes {at} to {upto} twice", False
        case 6:
            other = rng.choice(sound).raw
            cut = rng.randrange(len(other) + 1)
            return raw[:at] + other[cut:], f"goes on as another from {at}", False
        case 7:
            return b"", "emptied", True
        case 8:
            words = rng.choice([*fuzz_mutations.TEXTS, fuzz_mutations.LONG, "[" * 3000]).encode()
            return raw[:at] + words + raw[at:], f"{words[:9]!r} at {at}", False
        case _:
            changed = bytearray(raw)
            places = [rng.randrange(len(raw) * 8) for _ in range(rng.choice([1, 1, 3, 20]))]
            for place in places:
                changed[place // 8] ^= 1 << place % 8
            return bytes(changed), f"bits {places[:3]} flipped", False


def _read(file: Sound, folder: Path, size: int = 0) -> list:
    """What its source gives of a file, whole or in pieces of `size` bytes."""
    function = find("data_tools.sources", file.kind).inputs
    given = options(function, {**file.options, "files": [file.name]}, file.kind)
    inputs = function(folder, **given)
    if size:
        inputs = [piece for one in inputs for piece in documents.pieces(one, size)]
    return [one for some in inputs for one in some.read()]


def _judged(file: Sound, folder: Path, rng: Random, is_cut: bool) -> tuple[str, str]:
    """How reading ended, and what is wrong with it."""
    ends: list[list | None] = []
    for size in (0, 0, rng.randrange(30, 4000)):
        try:
            ends.append(_read(file, folder, size))
        except Refused as error:
            ends.append(None)
            if file.name not in str(error):
                return "", f"refused without the file's name: {error}"
    whole, again, cut = ends
    if whole != again:
        return "", "another time it reads otherwise"
    if whole is None or cut is None:
        return "refused", "" if whole == cut else "refused as a whole or in pieces, not both"
    texts = _texts(whole)
    if whole != cut:
        return (
            "",
            f"{len(texts)} of {len(whole)} as a whole, {len(_texts(cut))} of {len(cut)} in pieces",
        )
    if is_cut and file.kind not in OPEN_ENDED and not set(texts) <= {*file.texts, ""}:
        return "", "a document of a file that was cut is none of the whole file"
    if not whole:
        return "nothing", ""
    return "read" if len(texts) == len(whole) else "read and counted", ""


def _texts(found: list) -> list[str]:
    return [one.text for one in found if isinstance(one, documents.Document)]


def _report(cases: Iterator[Case]) -> int:
    counts: dict[str, Counter] = {}
    failures: dict[str, list[Case]] = {}
    began, shown = time.monotonic(), 0.0
    for done, case in enumerate(cases, 1):
        counts.setdefault(case.kind, Counter())[case.end] += 1
        if case.failure:
            failures.setdefault(case.failure, []).append(case)
        if (now := time.monotonic()) - shown > 10:
            shown = now
            print(f"fuzz: {done:,} cases, {len(failures)} kinds of failure", flush=True)
    for what, several in sorted(failures.items(), key=lambda one: -len(one[1])):
        print(f"\n{len(several)}x {what}\n   case {several[0].number}: {several[0].spoiled}")
    ends = ("read", "read and counted", "nothing", "refused", "failed")
    rows = [
        [kind, f"{one.total():,}", *(f"{one[end]:,}" for end in ends)]
        for kind, one in sorted(counts.items())
    ]
    whole = sum(counts.values(), Counter())
    rows.append(["all", f"{whole.total():,}", *(f"{whole[end]:,}" for end in ends)])
    print("\n" + drawn([["kind", "cases", *ends], *rows]))
    print(f"{time.monotonic() - began:.0f} s")
    return int(bool(failures))


if __name__ == "__main__":
    sys.exit(main())
