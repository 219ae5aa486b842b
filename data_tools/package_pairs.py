"""Pairs of texts from the documentation of the installed packages, split by package.

Which pairs a docstring gives is another file's: summaries.py, damaged.py.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

from xxhash import xxh3_64_intdigest, xxh3_128

from data_tools.counts import DROP
from data_tools.sources.docstrings import Package, chosen, docstrings
from data_tools.workers import finished, pool
from januslm.cli.progress import Progress
from januslm.config import Refused
from januslm.data import atomic, sealed

SPLITS = ("test", "valid", "train")  # of pairs that occur twice, the first of these keeps one
TEST = ("networkx",)
VALID = ("huggingface_hub",)
TRAIN = (
    "stdlib",
    "torch",
    "numpy",
    "pandas",
    "sympy",
    "deepspeed",
    "datasets",
    "fsspec",
    "pyarrow",
    "tensorboard",
    "mpmath",
    "jinja2",
    "werkzeug",
    "markdown",
    "google",
    "grpc",
    "pip",
    "setuptools",
    "tqdm",
    "packaging",
)


@dataclass(frozen=True)
class PackagePair:
    """One example; `id` begins with package/file:name of the object that was documented."""

    id: str
    package: str
    source: str
    target: str


Made = Iterator[PackagePair | str]  # pairs, and the reasons why a text gave none


def write(
    out: str,
    kind: str,
    made_of: Callable[[str, str, str], Made],
    packages: dict[str, list[str]],
    report: Callable[[str], None],
    processes: int = 2,
    most: int = 0,
) -> None:
    """Write OUT/train.jsonl, valid.jsonl and test.jsonl; no package is in two of them.

    kind: the command's name.  made_of(package, where, text): what a docstring gives.
    packages: their names by split.  most: keep at most so many pairs of valid and of test.
    What was written from the same files before is kept.
    """
    _disjoint(packages)
    tasks = [(split, one) for split in SPLITS for one in chosen(packages[split], [])]
    made = Path(out) / "made.json"
    mark = {"kind": kind, "packages": packages, "most": most, "files": _fingerprint(tasks)}
    if _written(made, mark):
        report(f"reused: {out}, made from the same files")
        return
    made.unlink(missing_ok=True)
    progress = Progress(kind, len(tasks), "packages read")
    found: dict[int, tuple[list[PackagePair], Counter]] = {}
    order = sorted(range(len(tasks)), key=lambda i: -len(tasks[i][1].files()))
    with pool(processes) as executor:
        work = [partial(pairs, tasks[i][1], made_of) for i in order]
        for place, result in finished(executor, work, progress.show):
            found[order[place]] = result
    progress.end()
    seen: set[str] = set()
    counts: dict[str, Counter] = {split: Counter() for split in SPLITS}
    for split in SPLITS:
        kept: list[PackagePair] = []
        for i, (owner, _) in enumerate(tasks):
            if owner == split:
                kept += _unseen(found[i][0], seen, counts[split])
                counts[split].update(found[i][1])
        if not kept:
            raise Refused(f"no pairs for {split} in the packages {', '.join(packages[split])}")
        kept = _sampled(kept, most if split != "train" else 0, counts[split])
        Path(out).mkdir(parents=True, exist_ok=True)
        with atomic.durable(Path(out) / f"{split}.jsonl") as file:
            file.writelines(json.dumps(asdict(pair), ensure_ascii=False) + "\n" for pair in kept)
    with atomic.durable(made) as file:
        file.write(json.dumps(sealed.sealed(mark | {"texts": _digests(made.parent)})))
    report(_summary(out, packages, counts, progress.seconds))


def _written(made: Path, mark: dict) -> bool:
    """Whether the files of an earlier call with the same mark are there as they were written."""
    try:
        return sealed.read(made) == mark | {"texts": _digests(made.parent)}
    except (Refused, OSError):  # missing or damaged: written again
        return False


def _digests(folder: Path) -> dict[str, str]:
    found = {}
    for split in SPLITS:
        with (folder / f"{split}.jsonl").open("rb") as file:
            found[split] = hashlib.file_digest(file, xxh3_128).hexdigest()
    return found


def _fingerprint(tasks: list[tuple[str, Package]]) -> str:
    """Changes when a file of a package comes, goes or changes its size."""
    sizes = [
        [package.name, name, path.stat().st_size]
        for _, package in tasks
        for name, path in package.files()
    ]
    return f"{xxh3_64_intdigest(json.dumps(sizes).encode()):016x}"


def _disjoint(packages: dict[str, list[str]]) -> None:
    for i, split in enumerate(SPLITS):
        for other in SPLITS[i + 1 :]:
            for name in set(packages[split]) & set(packages[other]):
                raise Refused(f"package {name!r} cannot be in both {split} and {other}")


def _unseen(pairs: list[PackagePair], seen: set[str], counts: Counter) -> Iterator[PackagePair]:
    for pair in pairs:
        if pair.source in seen or pair.target in seen:
            counts[DROP + "duplicate of another pair's source or target"] += 1
            continue
        seen.update((pair.source, pair.target))
        yield pair


def _sampled(pairs: list[PackagePair], most: int, counts: Counter) -> list[PackagePair]:
    """At most so many, chosen by the hash of the id: the same ones on every machine."""
    if most and len(pairs) > most:
        counts[DROP + f"past the first {most}"] += len(pairs) - most
        pairs = sorted(pairs, key=lambda pair: xxh3_64_intdigest(pair.id.encode()))[:most]
    counts["kept"] = len(pairs)
    return pairs


def pairs(
    package: Package, made_of: Callable[[str, str, str], Made]
) -> tuple[list[PackagePair], Counter]:
    """The pairs of one package, and what became of its texts."""
    found: list[PackagePair] = []
    counts: Counter = Counter()
    times: Counter = Counter()  # a name that is defined twice in its file is two objects
    for name, path in package.files():
        if path.suffix != ".py":
            continue
        try:
            texts = list(docstrings(path))
        except SyntaxError:
            counts["files that are not valid Python"] += 1
            continue
        for owner, text in texts:
            counts["docstrings"] += 1
            where = f"{package.name}/{name}:{owner}"
            times[where] += 1
            where += f"#{times[where]}" if times[where] > 1 else ""
            for one in made_of(package.name, where, text):
                if isinstance(one, PackagePair):
                    found.append(one)
                else:
                    counts[DROP + one] += 1
    return found, counts


def _summary(out: str, packages: dict, counts: dict[str, Counter], seconds: float) -> str:
    lines = []
    for split in reversed(SPLITS):
        one = counts[split]
        lines.append(
            f"{out}/{split}.jsonl: {one['kept']:,} pairs of {one['docstrings']:,} docstrings"
        )
        lines += [
            f"  {number:>9,}  {key}"
            for key, number in sorted(one.items())
            if key not in ("kept", "docstrings")
        ]
        lines.append(f"             from {', '.join(packages[split])}")
    return "\n".join([*lines, f"written in {seconds:.0f} s"])
