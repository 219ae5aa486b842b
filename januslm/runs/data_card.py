"""What a run was trained on, by the manifests of its corpora or of its prepared pairs."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from januslm.cli.table import shown_bytes
from januslm.config import Refused
from januslm.data import shards, token_pairs
from januslm.data.remote import is_remote
from januslm.runs.story import Story, shown_time

SPLITS = ("train", "valid")
FAR = "lies at an address, which is not asked for this"


@dataclass(frozen=True)
class Card:
    """One set of texts.  manifest: {} where it cannot be read; note: why, or whose it is."""

    split: str
    place: str
    manifest: dict[str, Any]
    note: str
    weight: Any = None

    @property
    def size(self) -> str:
        """18,520 documents, 2,727,407 tokens."""
        counts = inner(self.manifest, "counts")
        if "pairs" in counts:
            parts = [(counts.get(k), k) for k in ("pairs", "source tokens", "target tokens")]
        else:
            parts = [(self.manifest.get(k), k) for k in ("documents", "tokens")]
        return ", ".join(f"{shown(number)} {name}" for number, name in parts if number is not None)

    def rows(self) -> Iterator[tuple[str, str]]:
        """All that is to be said of it but for the hashes of its files."""
        about = self.manifest
        yield "size", self.size
        if self.weight is not None:
            yield "weight", shown(self.weight)
        for key in ("task", "split", "root", "recipe", "dtype", "vocabulary"):
            if key in about:
                yield key, shown(about[key])
        yield "tokenizer (sha256)", shown(about.get("tokenizer", "?"))
        for file in about.get("files") or []:
            if isinstance(file, list) and len(file) == 3:
                yield "file", _file(*file)
        yield from _numbers("limits", inner(about, "limits"))
        yield from _numbers("counts", inner(about, "counts"))
        yield from _numbers("left out", inner(about, "skipped"))
        yield from _numbers("counts", inner(about, "counters"))
        if licenses := inner(about, "licenses"):
            yield "licences, as given", ", ".join(f"{k}: {shown(v)}" for k, v in licenses.items())
        if packages := inner(about, "packages"):
            yield "packages", ", ".join(f"{k} {shown(v)}" for k, v in packages.items())

    def hashes(self) -> Iterator[tuple[str, str, str]]:
        """Of each file: name, bytes, hash (xxh3 of 128 bits)."""
        for shard in self.manifest.get("shards") or []:
            if isinstance(shard, dict):
                for suffix in ("bin", "idx", "xxh"):
                    size = shown(shard.get("bytes")) if suffix == "bin" else ""
                    yield f"{shown(shard.get('name'))}.{suffix}", size, shown(shard.get(suffix))


def cards(story: Story) -> list[Card]:
    """Training and validation texts, in this order; nothing but manifests is read."""
    data = inner(story.config, "data")
    if "task" in story.config:
        wanted = inner(data, "pairs").get("train")
        return [
            _card(split, story.folder / "data" / split, wanted if split == "train" else None, True)
            for split in SPLITS
        ]
    marks = data.get("fingerprints")
    found = []
    for split in SPLITS:
        for number, source in enumerate(data.get(split) or []):
            if not isinstance(source, dict):
                continue
            mark = None
            if split == "train" and isinstance(marks, list) and number < len(marks):
                mark = marks[number]
            corpus, weight = str(source.get("corpus", "?")), source.get("weight")
            if is_remote(corpus):
                found.append(Card(split, corpus, {}, FAR, weight))
            else:
                found.append(_card(split, _place(story, corpus), mark, False, weight))
    return found


def inner(table: Mapping, key: str) -> dict:
    """A table inside a table; {} where there is none."""
    value = table.get(key)
    return value if isinstance(value, dict) else {}


def shown(value: Any) -> str:
    """Whole numbers with commas, all else as it is."""
    whole = isinstance(value, int) and not isinstance(value, bool)
    return f"{value:,}" if whole else f"{value:g}" if isinstance(value, float) else str(value)


def _card(split: str, place: Path, mark: Any, pairs: bool, weight: Any = None) -> Card:
    try:
        manifest = shards.read_manifest(place)
        own = (token_pairs if pairs else shards).fingerprint(manifest)
    except (Refused, OSError, KeyError, TypeError) as error:
        return Card(split, str(place), {}, f"cannot be described: {error}", weight)
    note = ""
    if isinstance(mark, str):
        same = "the texts that the run was trained on, by their hashes"
        note = same if own == mark else "NOT the texts that the run was trained on: other hashes"
    return Card(split, str(place), manifest, note, weight)


def _place(story: Story, corpus: str) -> Path:
    """Paths are meant from where training was started: here, or where the run's `out` leads to."""
    here, out = Path(corpus), Path(str(story.config.get("out", "")))
    folder = story.folder.resolve()
    if here.exists() or out.is_absolute() or folder.parts[-len(out.parts) :] != out.parts:
        return here
    there = folder.parents[len(out.parts) - 1] / corpus
    return there if there.exists() else here


def _file(name: Any, size: Any, time: Any) -> str:
    if not all(isinstance(number, int) for number in (size, time)):
        return str(name)
    return f"{name}, {shown_bytes(size)}, of {shown_time(time / 1e9)}"


def _numbers(name: str, table: Mapping) -> Iterator[tuple[str, str]]:
    """One row; a table inside it has a row of its own."""
    flat = [f"{shown(v)} {k}" for k, v in table.items() if not isinstance(v, dict)]
    if flat:
        yield name, ", ".join(flat)
    for key, value in table.items():
        if isinstance(value, dict):
            yield from _numbers(str(key), value)
