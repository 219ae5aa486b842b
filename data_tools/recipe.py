"""A corpus file (TOML) as checked values, and the work it means: inputs in bundles."""

import difflib
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, replace
from importlib.metadata import version
from pathlib import Path

from data_tools import duplicates, filtering
from data_tools.documents import LONGEST, Input, pieces
from data_tools.filtering import Rule
from januslm.config import Refused, build, setting, tree
from januslm.data.shards import FORMAT
from januslm.registry import extend, find, options

BESIDES = ("license", "filters")  # keys of a source's table that are no options of its kind
PREPARED = "prepared"  # folder of OUT; a finished build deletes it


@dataclass(frozen=True)
class Recipe:
    """What a corpus is made of; every key of a corpus file."""

    out: str  # the folder to write: train/, valid/, the tokenizer, the journal
    # one table per source: [sources.NAME] with kind = a file of data_tools/sources/, if it is not
    # NAME itself, license = what the corpus card is to say, that source's own options, and filters
    # for it alone, [sources.NAME.filters.x]
    sources: dict[str, dict]
    plugins: str = ""  # a folder of your own with sources/, filters/, dedup/
    root: str = "."  # where the sources' relative file patterns start
    # a tokenizer.json or a SentencePiece model, ours or another's; empty: OUT/tokenizer.json
    tokenizer: str = ""
    vocabulary: int = setting(16384, low=261, high=2**24)  # for `tokenizer`: tokens to learn
    tokenizer_megabytes: float = setting(
        64.0, above=0, high=1e6
    )  # for `tokenizer`: text to learn them from
    processes: int = setting(2, low=1, high=1024)  # the shards do not depend on it
    part_megabytes: float = setting(
        16.0, above=0, high=1e9
    )  # inputs, or bytes of a large one, that one process works on at a time
    # tokens of several parts share a shard up to this
    shard_megabytes: float = setting(512.0, above=0, high=1e9)
    # one table per filter: [filters.NAME], a file of data_tools/filters/, with its options;
    # asked in this order, after those of a source alone
    filters: dict[str, dict] = field(default_factory=dict)
    rejected: bool = False  # keep what filters drop, with the reason, in OUT/rejected/*.jsonl.zst
    # share of its documents that a source must be able to read, or the build stops; 0: none
    minimum_kept: float = setting(0.05, low=0, high=1)
    # which duplicates are dropped, in any source: a file of data_tools/dedup/, a list of them, or a
    # table per file with its options, [deduplicate.minhash]; "": all stay
    deduplicate: dict[str, dict] = field(default_factory=lambda: {"exact": {}})
    # memory that a process takes to find duplicates, about; they do not depend on it
    deduplicate_megabytes: float = setting(256.0, above=0, high=1e6)
    validation: float = setting(0.0, low=0, below=1)  # share of documents held out, by their hash
    validation_groups: tuple[str, ...] = ()  # packages (docstrings) or files held out as a whole

    def __post_init__(self):
        if not self.sources:
            raise Refused("sources must have at least one table, e.g. [sources.docstrings]")

    @property
    def tokenizer_file(self) -> Path:
        """Where the tokenizer is, or will be written by `tokenizer`."""
        return Path(self.tokenizer or self.kept_tokenizer)

    @property
    def kept_tokenizer(self) -> Path:
        """Where it lies beside the shards, as it was used."""
        return Path(self.out) / "tokenizer.json"

    def longest(self, source: str) -> int:
        """Bytes of one document that a source may hold."""
        own = self.sources[source].get("filters", {})
        table = own.get("max_bytes") or self.filters.get("max_bytes", {})
        return table.get("limit", LONGEST.get())

    @property
    def licenses(self) -> dict[str, str]:
        """Of the sources that name theirs."""
        given = {name: table.get("license", "") for name, table in self.sources.items()}
        return {name: license for name, license in given.items() if license}

    @property
    def holds_out(self) -> bool:
        """Whether there will be a validation corpus."""
        return self.validation > 0 or bool(self.validation_groups)


@dataclass(frozen=True)
class Bundle:
    """Inputs of one source that one process works on at a time; they become one part."""

    number: int
    source: str
    inputs: tuple[Input, ...]
    rules: tuple[Rule, ...] = ()

    @property
    def bytes(self) -> int:
        """Size of the inputs, as they lie on disk."""
        return sum(one.bytes for one in self.inputs)


def read(path: str, changes: Iterable[str] = ()) -> Recipe:
    """The corpus file with the command line's changes; sources and filters with all options."""
    tables = tree(path, changes)
    tables["deduplicate"] = duplicates.tables(tables.get("deduplicate", "exact"), path)
    recipe = build(Recipe, tables, path)
    extend(recipe.plugins)
    sources = {}
    for name, table in recipe.sources.items():
        kind = table.get("kind", name)
        where = f"{path}: sources.{name}"
        if not isinstance(kind, str):
            raise Refused(f"{where}: kind must be a text, got {kind!r}")
        function = find("data_tools.sources", kind).inputs
        besides = build(_Besides, {k: table[k] for k in BESIDES if k in table}, where)
        sources[name] = {"kind": kind, "license": besides.license}
        sources[name] |= options(function, _own(table), where)
        sources[name]["filters"] = filtering.checked(besides.filters, where, always=())
    return replace(
        recipe,
        sources=sources,
        filters=filtering.checked(recipe.filters, path),
        deduplicate=duplicates.checked(recipe.deduplicate, path),
    )


@dataclass(frozen=True)
class _Besides:
    license: str = ""
    filters: dict[str, dict] = field(default_factory=dict)


def _own(table: dict) -> dict:
    """The options that go to a source's `inputs`."""
    return {key: value for key, value in table.items() if key not in ("kind", *BESIDES)}


def rules(recipe: Recipe) -> dict[str, tuple[Rule, ...]]:
    """By source, what its documents are asked, in order; Refused where a filter lacks a file.

    What filters need beside the recipe, hashes of test sets say, is written to OUT/prepared.
    """
    folder = Path(recipe.out) / PREPARED
    ready: dict[str, Rule] = {}
    chains = {}
    for name, table in recipe.sources.items():
        chain = []
        for rule, given in filtering.chain(recipe.filters, table["filters"]).items():
            key = f"{rule} {given}"
            if key not in ready:  # once, not once per source
                ready[key] = filtering.prepared(rule, given, Path(recipe.root), folder)
            chain.append(ready[key])
        chains[name] = tuple(chain)
    return chains


def bundles(recipe: Recipe) -> list[Bundle]:
    """All the work of a recipe, in the order of its documents."""
    found: list[tuple[str, list[Input]]] = []
    for name, table in recipe.sources.items():
        function = find("data_tools.sources", table["kind"]).inputs
        whole = function(Path(recipe.root), **_own(table))
        most = recipe.part_megabytes * 1e6
        inputs = [piece for one_input in whole for piece in pieces(one_input, most)]
        room = -1.0  # not even an empty file goes to the source before
        for one_input in inputs:
            if one_input.bytes > room:
                found.append((name, []))
                room = most
            found[-1][1].append(one_input)
            room -= one_input.bytes
    names = [one_input.name for _, inputs in found for one_input in inputs]
    for group in recipe.validation_groups:
        if not any(f"{name}/".startswith(f"{group}/") for name in names):
            close = difflib.get_close_matches(group, names, 1) or names[:1]
            raise Refused(f"validation_groups: no input {group!r}; there is {', '.join(close)}")
    asked = rules(recipe)
    return [Bundle(i, name, tuple(inputs), asked[name]) for i, (name, inputs) in enumerate(found)]


def notes(work: list[Bundle]) -> list[str]:
    """What filters have to say before any document is read, each line once."""
    return [*dict.fromkeys(note for b in work for rule in b.rules for note in rule.notes)]


def identity(recipe: Recipe, work: list[Bundle], tokenizer_sha256: str) -> dict:
    """Everything that decides the shards' bytes; two builds mix only if it is equal."""
    keys = asdict(recipe)
    free = ("out", "plugins", "root", "processes", "minimum_kept", "deduplicate_megabytes")
    for name in (*free, "tokenizer", "vocabulary", "tokenizer_megabytes"):
        del keys[name]
    for table in keys["sources"].values():
        table.pop("license", None)  # words of the card's
    inputs = [[b.source, one.name, one.version, one.bytes] for b in work for one in b.inputs]
    asked = {bundle.source: bundle.rules for bundle in work}
    return keys | {
        "deduplicate": [*keys["deduplicate"].items()],  # their order decides who counts what
        # tables that are compared have no order
        "filter_order": {name: [rule.name for rule in rules] for name, rules in asked.items()},
        "filter_files": {
            name: {rule.name: rule.files for rule in rules if rule.files}
            for name, rules in asked.items()
        },
        "format": FORMAT,
        "tokenizer": tokenizer_sha256,
        "tokenizers": version("tokenizers"),
        "inputs": inputs,
    }
