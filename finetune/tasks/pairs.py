"""Your own pairs: any text -> any text, from files and columns that the run file names."""

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import xxhash

from finetune.tasks._tables import rows
from januslm import registry
from januslm.config import Allowed, Refused, assignments, json_table, suggest
from januslm.data import atomic
from januslm.data.text_pairs import (
    MADE,
    Pair,
    checked,
    distinct,
    known,
    leading,
    made_for,
    whole,
)

Share = Annotated[float, Allowed(low=0, below=1)]

METRICS = ("exact_match", "bleu")
DECODE = {"beam": 5, "length_penalty": 1.0, "max_length": 200}


def sentence(source: str) -> str:
    """A capital at the beginning and a full stop at the end: what a rule restores."""
    return f"{source[:1].upper()}{source[1:].rstrip('.')}."


BASELINES: dict[str, dict[str, Callable[[str], str]]] = {
    "copy": {"copy": str},
    "lead": {"lead-1": leading},
    "sentence": {"copy": str, "capital and full stop": sentence},
    "none": {},
}


@dataclass(frozen=True)
class Columns:
    """Where a row's texts stand."""

    source: str
    target: str
    references: tuple[str, ...]  # of a test row
    id: str = ""  # "": its place in the file
    header: tuple[str, ...] = ()

    def of(self, split: str) -> list[str]:
        """Those that a row of the split must have."""
        answers = self.references if split == "test" else (self.target,)
        return list(dict.fromkeys([self.source, *answers, *([self.id] if self.id else [])]))

    def pair(self, split: str, place: str, cells: Mapping[str, Any], number: int) -> Pair:
        """The pair of a row; cells without text give an empty one, which is counted later."""
        source = _one(cells[self.source], f"{place}: {self.source!r}")
        answers = self.references if split == "test" else (self.target,)
        found = [t for name in answers for t in _texts(cells[name], f"{place}: {name!r}")]
        targets = [text for text in found if text.strip()] or [""] * bool(answers)
        name = _one(cells[self.id], f"{place}: {self.id!r}") if self.id else f"{split}-{number}"
        return Pair(name, source, tuple(targets))


@dataclass(frozen=True)
class Pairs:
    """The task that `configured` makes: read, save and what else a file of this folder has."""

    files: dict[str, str]  # by split; "": held out of train's
    columns: Columns
    shares: dict[str, float]  # of train's rows that are held out, by split
    METRICS: tuple[str, ...] = METRICS
    OPTIONS: dict[str, dict] = field(default_factory=dict)
    DECODE: dict[str, Any] = field(default_factory=lambda: DECODE)
    BASELINES: dict[str, Callable[[str], str]] = field(default_factory=lambda: BASELINES["copy"])
    ROOT: str = "."  # a relative name is meant from where you stand, unless data.root is set
    __name__ = "finetune.tasks.pairs"

    @property
    def texts(self) -> dict:
        """What decides the pairs that are trained on; the test set may change under way."""
        names = {split: self.files[split] for split in ("train", "valid")}
        columns = {
            key: list(v) if isinstance(v, tuple) else v for key, v in vars(self.columns).items()
        }
        del columns["references"]
        return names | columns | {"shares": self.shares}

    @property
    def TITLE(self) -> str:
        """For tables."""
        file = self.files["test"] or self.files["train"]
        return f"pairs ({self.columns.source} -> {self.columns.target}, {file})"

    def read(self, root: Path, split: str, skipped: Counter | None = None) -> Iterator[Pair]:
        """The pairs of a split, from its own file or from the rows that train's holds out for it.

        A teacher's folder (`januslm distill`) has files of its own, which are read as they are.
        """
        root, at = Path(root), known(split)
        if (root / MADE).is_file():
            self._same(root)
            return _saved(root, at, skipped)
        name = self.files[at] or self.files["train"]
        held_out = not self.files[at]
        if held_out and not self.shares[at]:
            raise Refused(f"task_options: no {at} set: name its file, {at} = ..., or {at}_share")
        where = str(root / name)
        if held_out:
            where += f" (the share of {self.shares[at]:g} held out for {at})"
        found = self._pairs(root, name, at)
        if self.columns.id:
            found = distinct(found, where)
        return checked(found, where, at, skipped)

    def _pairs(self, root: Path, name: str, split: str) -> Iterator[Pair]:
        cut = split == "train" or not self.files[split]
        columns = self.columns.of(split)
        for number, (place, cells) in enumerate(rows(root, name, columns, self.columns.header), 1):
            pair = self.columns.pair(split, place, cells, number)
            if cut and self.side(pair.source) != split:
                continue
            if split != "train":
                yield pair
                continue
            for again, target in enumerate(pair.targets):  # each right answer is one to learn
                yield Pair(pair.id + f"-{again + 1}" * bool(again), pair.source, (target,))

    def side(self, source: str) -> str:
        """Where a row of train's file belongs: by its source's hash, so that equal ones meet."""
        place = xxhash.xxh3_64_intdigest(" ".join(source.split()).encode()) / 2**64
        for split in ("test", "valid"):
            if (place := place - self.shares[split]) < 0:
                return split
        return "train"

    def save(self, folder: Path, split: str, pairs: Iterable[Pair]) -> int:
        """Write pairs as JSONL, as `read` reads them beside a teacher's note; returns how many."""
        folder.mkdir(parents=True, exist_ok=True)
        count = 0
        with atomic.plain(folder / f"{known(split)}.jsonl") as file:
            for count, pair in enumerate(pairs, 1):  # noqa: B007
                row = {"id": pair.id, "source": pair.source, "target": pair.targets}
                file.write(json.dumps(row, ensure_ascii=False) + "\n")
        return count

    def _same(self, root: Path) -> None:
        """Refused where a teacher of other pairs has written a folder."""
        made_for("pairs", root)
        there = json_table(root / MADE)["about"].get("texts", {})
        for key, value in self.texts.items():
            if there.get(key) != value:
                raise Refused(
                    f"{root / MADE}: a distillation of other pairs: there {key} = "
                    f"{there.get(key)!r}, here {value!r}"
                )


def configured(
    *,
    train: str = "train.jsonl",
    valid: str = "",
    test: str = "",
    source: str = "source",
    target: str = "target",
    references: list[str] | None = None,
    id: str = "",
    header: list[str] | None = None,
    valid_share: Share = 0.05,
    test_share: Share = 0.05,
    metrics: list[str] | None = None,
    decode: dict | None = None,
    baseline: Literal["copy", "lead", "sentence", "none"] = "copy",
) -> Pairs:
    """The task of a table [task_options].

    train: a file with the training pairs, .jsonl .csv .tsv .parquet, `train.{de,en}`, or a folder.
    valid: the same for validation; empty, a share of train's rows is held out.
    test: the same for the test set.
    source: the column of the text that is read; `a.b` goes into nested objects.
    target: the column of the text that is written; in JSON a list holds several right answers.
    references: the columns of a test row's right answers, if not `target`; [] where it has none.
    id: the column with a row's name; empty, rows are numbered.
    header: the columns of a .csv or .tsv whose first line is a row already.
    valid_share: where `valid` is empty: of train's rows, those whose source hashes into it.
    test_share: the same where `test` is empty.
    metrics: files of januslm/metrics, with options as in `evaluate --metric`: bleu:mode=compound;
        exact_match and bleu if left out.
    decode: options of decoding algorithms, where the command line says nothing; a beam of 5.
    baseline: what a model has to beat: the source itself, its first sentence, the source with a
        capital and a full stop, or nothing.
    """
    shares = {"valid": 0.0 if valid else valid_share, "test": 0.0 if test else test_share}
    if sum(shares.values()) >= 1:
        raise Refused(f"valid_share and test_share leave nothing to train on: {shares}")
    if not valid and not valid_share:
        raise Refused("valid_share must be more than 0 where `valid` names no file")
    chosen = [_metric(text) for text in metrics or METRICS]
    return Pairs(
        files={"train": train, "valid": valid, "test": test},
        columns=Columns(
            source=source,
            target=target,
            references=(target,) if references is None else tuple(references),
            id=id,
            header=tuple(header or ()),
        ),
        shares=shares,
        METRICS=tuple(name for name, _ in chosen),
        OPTIONS={name: options for name, options in chosen if options},
        DECODE=_decoding(decode or {}),
        BASELINES=BASELINES[baseline],
    )


def _metric(text: str) -> tuple[str, dict]:
    """NAME:option=value,option=value -> the metric and its options, checked."""
    name, _, rest = text.partition(":")
    given = assignments([part for part in rest.split(",") if part], "mode=compound")
    known_options = registry.declared("januslm.metrics", name, "score")
    registry.options(known_options, given, f"metrics: {name}")
    return name, given


def _decoding(given: dict) -> dict:
    """The usual options with those given, each checked by every algorithm that has it."""
    package, free = "januslm.decoding", set(given)
    every: set[str] = set()
    for name in registry.names(package):
        declared = registry.declared(package, name, "decode")
        registry.options(
            declared, {k: given[k] for k in given if k in declared.parameters}, "decode"
        )
        every |= declared.parameters.keys()
        free -= declared.parameters.keys()
    if free:
        raise Refused(
            f"decode: no algorithm has an option {min(free)!r}{suggest(min(free), every)}"
        )
    return DECODE | given


def _texts(cell: Any, where: str) -> list[str]:
    """The texts of a cell: none, one, or those of a list; a whole number is its digits."""
    if cell is None:
        return []
    if isinstance(cell, list):
        return [text for one in cell for text in _texts(one, where)]
    if isinstance(cell, int) and not isinstance(cell, bool):
        return [str(cell)]
    if not isinstance(cell, str):
        raise Refused(f"{where} must be a text, got {cell!r:.60}")
    whole(cell, where)
    return [cell]


def _one(cell: Any, where: str) -> str:
    """The text of a cell that has one, "" if it has none."""
    found = _texts(cell, where)
    if len(found) > 1:
        raise Refused(f"{where} must be one text, got {len(found)}")
    return "".join(found)


def _saved(root: Path, split: str, skipped: Counter | None) -> Iterator[Pair]:
    columns = Columns("source", "target", ("target",), id="id")
    found = (
        Pair(cells["id"], cells["source"], tuple(cells["target"]))
        for _, cells in rows(root, f"{split}.jsonl", columns.of(split), ())
    )
    return checked(found, str(root / f"{split}.jsonl"), split, skipped)


_USUAL = configured()
read, save = _USUAL.read, _USUAL.save
