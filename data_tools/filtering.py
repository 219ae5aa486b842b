"""The filters of a recipe: found by name, checked, and asked about each document in turn."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial

import numpy as np

from data_tools.documents import Document, Dropped
from januslm.registry import find, options

PACKAGE = "data_tools.filters"
ALWAYS = ("empty", "max_bytes")  # before those of the recipe, which may set their options
BEFORE, AFTER = "of_text", "of_tokens"  # the tokenizer


def checked(tables: Mapping[str, Mapping], where: str) -> dict[str, dict]:
    """All filters with all their options, in the order they are asked; Refused for a mistake."""
    every: dict[str, Mapping] = {name: {} for name in ALWAYS}
    every |= tables
    return {
        name: options(_function(name), table, f"{where}: filters.{name}")
        for name, table in every.items()
    }


def rules(tables: Mapping[str, Mapping], kind: str) -> list[Callable]:
    """The functions of one kind, BEFORE or AFTER, with the recipe's options."""
    return [
        partial(_function(name), **table)
        for name, table in tables.items()
        if _function(name).__name__ == kind
    ]


def _function(name: str) -> Callable:
    module = find(PACKAGE, name)
    return next(getattr(module, kind) for kind in (BEFORE, AFTER) if hasattr(module, kind))


def text_passed(document: Document, before: Sequence[Callable]) -> Document | Dropped:
    """The document, as the filters may have changed it, or why the first of them drops it."""
    for rule in before:
        found = rule(document)
        if isinstance(found, Dropped):
            return found
        document = found
    return document


def tokens_dropped(ids: np.ndarray, after: Sequence[Callable]) -> Dropped | None:
    """Why the first of the filters drops a document of int [T] ids, if one does."""
    return next((found for rule in after if (found := rule(ids))), None)
