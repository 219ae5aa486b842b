"""The filters of a recipe: found by name, checked, and asked about each document in turn."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np

from data_tools.documents import Document, Dropped
from januslm.config import Refused
from januslm.registry import find, options

PACKAGE = "data_tools.filters"
ALWAYS = ("empty", "max_bytes")  # before those of the recipe, which may set their options
BEFORE, AFTER = "of_text", "of_tokens"  # the tokenizer
CHANGED, EDITED = "changed: ", "edited: "  # before the names of what is counted
READY = "prepared"  # makes a rule of texts from what lies in files


@dataclass(frozen=True)
class Edited:
    """A document that a filter has changed, and how often it did what: {"lines left out": 3}."""

    document: Document
    edits: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Prepared:
    """A filter made ready once, before any document is read: what a filter's `prepared` gives.

    ask: in the place of `of_text`; it travels to other processes, so it is a functools.partial of a
    module's function.  files: a hash of each thing beside the options that its answers depend on;
    where one changes, it is another corpus.  notes: lines for people.
    """

    ask: Callable[[Document], Document | Dropped | Edited]
    files: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Rule:
    """One filter with its options, ready to be asked; it travels to other processes."""

    name: str
    kind: str  # BEFORE or AFTER
    ask: Callable
    options: Mapping  # as the recipe has them
    files: Mapping[str, str] = field(default_factory=dict)  # hashes of what it depends on besides
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Rejected:
    """A document that a filter dropped: which filter, and why."""

    document: Document
    rule: str
    dropped: Dropped


def checked(
    tables: Mapping[str, Mapping], where: str, always: Sequence[str] = ALWAYS
) -> dict[str, dict]:
    """Filters with all their options, `always` first; Refused for a mistake."""
    every: dict[str, Mapping] = {name: {} for name in always}
    every |= tables
    return {
        name: options(_function(name), table, f"{where}: filters.{name}")
        for name, table in every.items()
    }


def chain(tables: Mapping[str, dict], own: Mapping[str, dict]) -> dict[str, dict]:
    """What the documents of a source are asked, in order.

    tables: for all sources.  own: for this one; they come first, but for ALWAYS.  A filter that is
    in both is asked once, where and as the source has it.
    """
    first = {name: own.get(name, tables[name]) for name in ALWAYS}
    rest = {name: table for name, table in tables.items() if name not in own}
    return {**first, **own, **rest}


def described(rules: Iterable[Rule]) -> dict[str, dict]:
    """{filter: {"options": ..., "files": hashes of what it depends on besides}}, in order."""
    return {rule.name: {"options": rule.options, "files": rule.files} for rule in rules}


def prepared(name: str, table: Mapping, root: Path, folder: Path) -> Rule:
    """A filter with its checked options, ready; Refused where what it needs is not there.

    root: of the recipe.  folder: where a filter may write what all processes share.
    """
    module = find(PACKAGE, name)
    if hasattr(module, AFTER):
        return Rule(name, AFTER, partial(module.of_tokens, **table), table)
    if not hasattr(module, READY):
        return Rule(name, BEFORE, partial(module.of_text, **table), table)
    try:
        ready = module.prepared(root, folder, **table)
    except Refused as error:
        raise Refused(f"filters.{name}: {error}") from None
    return Rule(name, BEFORE, ready.ask, table, ready.files, ready.notes)


def _function(name: str) -> Callable:
    """The function whose keyword-only arguments are the filter's options."""
    module = find(PACKAGE, name)
    return next(getattr(module, k) for k in (BEFORE, AFTER, READY) if hasattr(module, k))


def text_passed(
    document: Document, rules: Iterable[Rule], counts: Counter | None = None
) -> Document | Rejected:
    """The document, as the filters may have changed it, or which of them drops it and why.

    counts: gets what was changed: {"changed: FILTER": 1, "edited: FILTER: WHAT": number}.
    """
    for rule in rules:
        if rule.kind != BEFORE:
            continue
        found = rule.ask(document)
        if isinstance(found, Dropped):
            return Rejected(document, rule.name, found)
        if isinstance(found, Edited):
            if counts is not None:
                counts.update({f"{EDITED}{rule.name}: {k}": n for k, n in found.edits.items()})
            found = found.document
        if counts is not None and found is not document and found.text != document.text:
            counts[CHANGED + rule.name] += 1
        document = found
    return document


def tokens_dropped(document: Document, ids: np.ndarray, rules: Iterable[Rule]) -> Rejected | None:
    """Which of the filters drops a document of int [T] ids and why, if one does."""
    for rule in rules:
        if rule.kind == AFTER and (dropped := rule.ask(ids)):
            return Rejected(document, rule.name, dropped)
    return None
