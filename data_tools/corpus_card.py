"""A corpus described for people: OUT/README.md, made of its manifests and nothing else."""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import fields
from importlib.metadata import version
from pathlib import Path
from typing import Any

from data_tools.counts import table
from data_tools.journal import SPLITS
from data_tools.recipe import Recipe
from januslm.data import atomic
from januslm.data.shards import MANIFEST, fingerprint, read_manifest

MARK = "<!-- written by januslm data build, which replaces it; notes belong elsewhere -->"
LISTED = 200  # shards; of more, a manifest has the hashes
Rows = list[tuple[str, ...]]
BARE = re.compile(r"[A-Za-z0-9_-]+")  # a key of TOML's without quotes


def write(out: Path, licenses: Mapping[str, str]) -> str:
    """Write OUT/README.md; what to say if somebody else's file has that name, else "".

    licenses: of the sources, as their corpus file gives them.
    """
    path = out / "README.md"
    if path.exists() and not path.read_bytes().startswith(MARK.encode()):
        return f"{path}: is not a corpus card of ours, so none is written"
    with atomic.plain(path) as file:
        file.write("\n".join(_lines(out, licenses)) + "\n")
    return ""


def _lines(out: Path, licenses: Mapping[str, str]) -> Iterator[str]:
    folders = [out / split for split in SPLITS if (out / split / MANIFEST).exists()]
    manifests = {folder.name: read_manifest(folder) for folder in folders}
    about = next(iter(manifests.values()))
    made_from = about.get("made_from", {})
    yield from (MARK, "# Corpus card", "")
    rows: Rows = [("split", "documents", "tokens", "shards", "fingerprint (xxh3, 128 bits)")]
    for split, one in manifests.items():
        numbers = (f"{n:,}" for n in (one["documents"], one["tokens"], len(one["shards"])))
        rows.append((split, *numbers, f"`{fingerprint(one)}`"))
    yield from _table(rows)
    yield from _sources(made_from.get("sources", {}), about, licenses)
    yield from _filters(about, made_from)
    yield from _duplicates(about)
    rows = [("what", ""), ("tokenizer (sha256)", f"`{about['tokenizer']}`")]
    rows += [(key, f"{about[key]}") for key in ("vocabulary", "dtype", "eos")]
    rows += [("recipe (xxh3, 128 bits)", f"`{about.get('recipe', 'none')}`")]
    rows += [(name, which) for name, which in _versions(about, made_from).items()]
    yield from ("", "## Tokenizer and versions", "", *_table(rows))
    yield from _files(manifests)
    yield from _again(made_from, licenses)


def _table(rows: Rows) -> Iterator[str]:
    for number, row in enumerate(rows):
        cells = (" ".join(cell.replace("|", "\\|").split()) for cell in row)
        yield f"| {' | '.join(cells)} |"
        if not number:
            yield f"|{' --- |' * len(row)}"


def _sources(sources: Mapping, about: Mapping, licenses: Mapping[str, str]) -> Iterator[str]:
    yield from ("", "## Sources", "")
    rows: Rows = [("source", "kind", "licence, as given", "options")]
    for name, options in sources.items():
        given = {k: v for k, v in options.items() if k not in ("kind", "filters")}
        shown = ", ".join(f"`{key} = {_value(value)}`" for key, value in given.items())
        rows.append((name, str(options.get("kind", name)), licenses.get(name, "not given"), shown))
    yield from _table(rows)
    counters = about.get("counters", {})
    yield from ("", "What became of every document:", "", "```text", table(counters), "```")


def _filters(about: Mapping, made_from: Mapping) -> Iterator[str]:
    yield from ("", "## Filters", "", "In this order, with all their options:", "")
    # a manifest may know more: of each source, in order, the options and hashes of files
    chains = about.get("filters") or {
        name: {rule: {"options": options} for rule, options in made_from.get("filters", {}).items()}
        for name in made_from.get("sources", {})
    }
    alike = len({json.dumps(chain) for chain in chains.values()}) == 1
    rows: Rows = [("asked of", "filter", "options")]
    for where, filters in [*chains.items()][: 1 if alike else None]:
        for name, rule in filters.items():
            given = rule["options"] | rule.get("files", {})
            shown = ", ".join(f"`{key} = {_value(value)}`" for key, value in given.items())
            rows.append(("all sources" if alike else where, name, shown))
    yield from _table(rows)


def _duplicates(about: Mapping) -> Iterator[str]:
    """The share of the documents that came so far and were dropped as duplicates."""
    yield from ("", "## Duplicates", "")
    left, lost = 0, dict[str, int]()
    for report in about.get("counters", {}).values():
        left += sum(report[split] for split in SPLITS)
        for reason, number in report["dropped"].items():
            if "duplicate" in reason:
                lost[reason] = lost.get(reason, 0) + number
    among = left + sum(lost.values())
    rows: Rows = [("dropped as", "documents", f"share of {among:,} that passed the filters")]
    rows += [(why, f"{n:,}", f"{n / max(among, 1):.2%}") for why, n in sorted(lost.items())]
    yield from _table(rows) if lost else ["None was dropped."]


def _versions(about: Mapping, made_from: Mapping) -> dict[str, str]:
    found = {"januslm": version("januslm"), "tokenizers": made_from.get("tokenizers", "?")}
    return found | {name: str(which) for name, which in about.get("packages", {}).items()}


def _files(manifests: Mapping[str, Mapping]) -> Iterator[str]:
    yield from ("", "## Files", "")
    if sum(len(one["shards"]) for one in manifests.values()) > LISTED:
        yield "Their hashes are in each `manifest.json`, whose own are above."
        return
    rows: Rows = [("file", "documents", "tokens", "xxh3 of 128 bits")]
    for split, one in manifests.items():
        for shard in one["shards"]:
            numbers = f"{shard['documents']:,}", f"{shard['tokens']:,}"
            rows.append((f"{split}/{shard['name']}.bin", *numbers, f"`{shard['bin']}`"))
    yield from _table(rows)


def _again(made_from: Mapping, licenses: Mapping[str, str]) -> Iterator[str]:
    """The recipe as a corpus file; where it reads and writes is not its business."""
    keys = {one.name for one in fields(Recipe)} - {"tokenizer"}  # here its hash, there a file
    recipe = {key: value for key, value in made_from.items() if key in keys}
    for name, options in recipe.get("sources", {}).items():
        if name in licenses:
            options = {"license": licenses[name], **options}
        recipe["sources"] = recipe["sources"] | {name: options}
    if isinstance(recipe.get("deduplicate"), list):  # pairs, whose order counts
        recipe["deduplicate"] = dict(recipe["deduplicate"])
    yield from ("", "## Build it again", "", "With this as corpus.toml, to the same bytes:", "")
    yield "    januslm data build corpus.toml out=OUT root=ROOT tokenizer=OUT/tokenizer.json"
    yield from ("", "```toml", *toml(recipe), "```")


def toml(tables: Mapping[str, Any], inside: str = "") -> list[str]:
    """The lines of a TOML file: values first, then tables, in their order."""
    lines = [f"{_key(k)} = {_value(v)}" for k, v in tables.items() if not isinstance(v, Mapping)]
    for key, value in tables.items():
        if isinstance(value, Mapping):
            name = f"{inside}{_key(key)}"
            lines += [f"[{name}]", *toml(value, f"{name}.")]
    return lines


def _key(key: str) -> str:
    return key if BARE.fullmatch(key) else _value(key)


def _value(value: Any) -> str:
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{_key(k)} = {_value(v)}" for k, v in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_value, value)) + "]"
    if isinstance(value, float):
        return repr(value)  # inf and nan are TOML's words too
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
