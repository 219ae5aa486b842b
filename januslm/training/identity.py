"""What a run must keep while it goes on, what may change if the user says so, and what just may."""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from januslm.config import Refused, suggest

# The first rule whose key is the changed one, or a table around it, holds; [] stands for any
# number.  Keys that no rule names need --allow.
ANOTHER, ALLOW, HARMLESS = "another run", "allow", "harmless"
RULES: tuple[tuple[str, str, str], ...] = (
    ("task", ANOTHER, "the same sample ids would be other pairs"),
    ("tokenizer_sha256", ANOTHER, "the same ids would be other words"),
    ("model", ANOTHER, "the weights would not fit, or compute something else"),
    ("objective", ANOTHER, "the weights would learn something else"),
    ("data.fingerprints", ANOTHER, "the same sample ids would be other texts"),
    ("data.train[].corpus", HARMLESS, "a corpus is known by its fingerprint, not by its path"),
    ("data.valid", HARMLESS, "validation trains nothing"),
    ("data.valid_samples", HARMLESS, "validation trains nothing"),
    ("data.verify", HARMLESS, "how bytes are checked, not which they are"),
    ("data.cache", HARMLESS, "where bytes lie, not which they are"),
    ("data.cache_gigabytes", HARMLESS, "where bytes lie, not which they are"),
    ("data.root", HARMLESS, "pairs are known by their hash, not by their path"),
    ("tokenizer", HARMLESS, "a tokenizer is known by its hash, not by its path"),
    ("task_options", HARMLESS, "pairs are known by their hash, not by how they were named"),
    ("texts", HARMLESS, "pairs are known by their hash, not by where they lie"),
    ("plugins", HARMLESS, "a folder may be moved"),
    ("data.max_source", ALLOW, "it changes what is left of the pairs"),
    ("data.max_target", ALLOW, "it changes what is left of the pairs"),
    ("data.longer", ALLOW, "it changes what is left of the pairs"),
    ("data.pairs", ALLOW, "the same sample ids would be other pairs"),
    ("data", ALLOW, "it changes which samples come when, or what is left of them"),
    ("train.seed", ALLOW, "it changes the order of samples and their noise"),
    ("train.batch", ALLOW, "it changes how many samples an update has"),
    ("noise", ALLOW, "it changes what is learnt from a sample"),
    ("loss", ALLOW, "it changes the objective"),
    ("start", ALLOW, "the weights come from the checkpoint and not from there"),
    ("optimizer.lr", HARMLESS, "the schedule is a function of the step"),
    ("optimizer", ALLOW, "the moments in the checkpoint were made with the former"),
    ("schedule", HARMLESS, "it is a function of the step"),
    ("validate", HARMLESS, "validation trains nothing"),
    ("train.clip", HARMLESS, "it holds for the updates to come"),
    ("train.accumulate", HARMLESS, "the same samples in other portions"),
    ("train", HARMLESS, "how long, and how often it looks and saves"),
    ("packing", HARMLESS, "how examples share rows"),
    ("ds", HARMLESS, "how a run is spread"),
    ("out", HARMLESS, "a folder may be moved"),
    ("published", HARMLESS, "what it sets is compared by itself"),
)


def check(
    folder: str | Path, old: Mapping, new: Mapping, allowed: Sequence[str] = ()
) -> dict[str, list]:
    """What has changed since the run's last start: {key: [before, now]}.

    allowed: keys, or tables of them, that the user lets change.  Raises Refused for another run,
    and for a key that changes samples or objective and is not allowed.
    """
    changes: dict[str, list] = {}
    found = sorted(changed(old, new), key=lambda one: _place(one[0]))
    for key, before, now in found:
        kind, why = _rule(key, new)
        if kind == ANOTHER:
            raise Refused(
                f"{folder} holds another run: there {key} = {before!r}, here {now!r} ({why}); "
                "choose another folder"
            )
        if kind == ALLOW and not any(_inside(key, one) for one in allowed):
            raise Refused(
                f"{folder}: {key} was {before!r} and is now {now!r}, while the run goes on: {why}; "
                f"--allow {key} if that is meant, else choose another folder"
            )
        changes[key] = [before, now]
    return changes


def check_allowed(allowed: Sequence[str], config: Mapping) -> None:
    """Refuse an --allow for a key that no run has."""
    known = {key for key, _ in _flat(json.loads(json.dumps(config)))} | {"config.json"}
    tables = {key.rsplit(".", n)[0] for key in known for n in range(1, 4)}
    for one in allowed:
        if one not in known | tables:
            raise Refused(f"--allow {one}: no such key{suggest(one, known)}")


def changed(old: Mapping, new: Mapping) -> Iterator[tuple[str, Any, Any]]:
    """(key, before, now) wherever two configurations differ; lists of tables are gone through.

    A key that is not there is younger than the run, or, of the data, not known yet.
    """
    before, now = dict(_flat(old)), dict(_flat(json.loads(json.dumps(new))))
    for key in sorted(before.keys() | now.keys()):
        if before.get(key) == now.get(key) or _unknown_yet(key, before, now):
            continue
        yield key, before.get(key), now.get(key)


def _unknown_yet(key: str, before: Mapping, now: Mapping) -> bool:
    if key not in now:  # pairs are hashed after the first look at a run
        return key.startswith("data.pairs.") and not any(k.startswith("data.pairs.") for k in now)
    if key in before:
        return False
    first = key.split(".")[0].split("[")[0]
    whole = not any(k == first or k.startswith((f"{first}.", f"{first}[")) for k in before)
    kind, _ = _rule(key, {})
    # An option of a model or a list that grew is no younger key: only a whole table is, there.
    return whole or (kind == HARMLESS and "[" not in key) or key.startswith("data.pairs.")


def _flat(value: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted keys and plain values: data.train[0].corpus."""
    if isinstance(value, Mapping) and (value or not key):
        for name, inside in value.items():
            yield from _flat(inside, f"{key}.{name}" if key else str(name))
    elif isinstance(value, list) and value and all(isinstance(one, Mapping) for one in value):
        for number, inside in enumerate(value):
            yield from _flat(inside, f"{key}[{number}]")
    else:
        yield key, value


def _rule(key: str, config: Mapping) -> tuple[str, str]:
    if key == "train.accumulate" and config.get("loss", {}).get("normalize") == "microbatch":
        return ALLOW, 'with loss.normalize = "microbatch" it changes the objective'
    for pattern, kind, why in RULES:
        if _inside(key, pattern):
            return kind, why
    return ALLOW, "nobody has said that it may"


def _place(key: str) -> int:
    """The rule's place: what causes other changes comes before its consequences."""
    first = (number for number, rule in enumerate(RULES) if _inside(key, rule[0]))
    return next(first, len(RULES))


def _inside(key: str, pattern: str) -> bool:
    """Whether a key is the pattern, or in the table or list of that name."""
    if "[]" in pattern:
        head, tail = pattern.split("[]")
        return key.startswith(head + "[") and key.endswith("]" + tail)
    return key == pattern or key.startswith((f"{pattern}.", f"{pattern}["))
