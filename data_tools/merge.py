"""Corpora of one tokenizer as one: their shards under one manifest, the documents as they are."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from data_tools.inspect_corpus import folder_of, tokenizer_of
from data_tools.journal import SPLITS
from data_tools.new_folder import new_folder, place
from januslm.cli.progress import Progress
from januslm.config import Refused
from januslm.data.shard_writer import write_manifest
from januslm.data.shards import MANIFEST, Corpus, Shard, open_corpus

SAME = ("dtype", "vocabulary", "tokenizer", "eos")  # in manifests of corpora that may be one


def merge(
    out: str, given: Sequence[str], report: Callable[[str], None], copy: bool = False
) -> None:
    """Write `out` with all shards of some corpora, hard links where possible.

    given: corpora, or folders that hold their train/ and valid/, which are merged each by itself.
    Raises Refused where they are damaged, of several tokenizers, or the same one twice.
    """
    splits = {split: chosen for split in SPLITS if (chosen := _with(given, split))}
    plain = [one for one in given if (Path(one) / MANIFEST).exists()]
    if plain and splits:
        other = next(iter(splits.values()))[0].parent
        raise Refused(f"{plain[0]} is a corpus, {other} holds {' and '.join(splits)}: not both")
    groups = splits or {"": [Path(one) for one in given]}
    opened = {split: _opened(folders) for split, folders in groups.items()}
    with new_folder(out) as aside:
        for split, corpora in opened.items():
            _write(aside / split, split, corpora, copy)
        _place_tokenizer(aside, [corpus for corpora in opened.values() for corpus in corpora])
    for split, corpora in opened.items():
        documents, tokens = sum(c.documents for c in corpora), sum(c.tokens for c in corpora)
        parts = f"{len(corpora)} corpora"
        report(f"{Path(out) / split}: {documents:,} documents, {tokens:,} tokens of {parts}")


def _with(given: Sequence[str], split: str) -> list[Path]:
    return [Path(one) / split for one in given if (Path(one) / split / MANIFEST).exists()]


def _opened(folders: Sequence[Path]) -> list[Corpus]:
    """The corpora with every byte hashed; Refused where they do not belong together."""
    corpora: list[Corpus] = []
    progress = Progress("verify", len(folders), "corpora")
    for number, folder in enumerate(folders):
        progress.show(number, str(folder))
        corpus = open_corpus(folder, verify="full")
        for other in corpora:
            if other.fingerprint == corpus.fingerprint:
                raise Refused(f"{folder} and {other.folder} are the same corpus; mix repeats one")
        for key in SAME:
            first, mine = corpora[0].manifest[key] if corpora else None, corpus.manifest[key]
            if corpora and first != mine:
                raise Refused(
                    f"{folder} has the {key} {mine}, {corpora[0].folder} has {first}: corpora that "
                    "are merged must be of one tokenizer"
                )
        corpora.append(corpus)
    progress.end()
    return corpora


def _write(folder: Path, split: str, corpora: Sequence[Corpus], copy: bool) -> None:
    folder.mkdir(exist_ok=True)
    shards: list[Shard] = []
    for corpus in corpora:
        for row in corpus.manifest["shards"]:
            shard = replace(Shard(**row), name=f"shard-{len(shards):05d}")
            for suffix in shard.sizes:
                old = folder_of(corpus) / f"{row['name']}.{suffix}"
                place(old, folder / f"{shard.name}.{suffix}", copy)
            shards.append(shard)
    about = {key: corpora[0].manifest[key] for key in SAME}
    parts = [made_of(corpus) for corpus in corpora]
    write_manifest(folder, shards, **({"split": split} if split else {}), **about, made_of=parts)


def made_of(corpus: Corpus) -> dict:
    """What a manifest keeps of a corpus that another was made of."""
    folder = folder_of(corpus).resolve()
    name = f"{folder.parent.name}/{folder.name}" if folder.name in SPLITS else folder.name
    kept = {key: corpus.manifest[key] for key in ("recipe", "licenses") if key in corpus.manifest}
    sizes = {"documents": corpus.documents, "tokens": corpus.tokens}
    return {"corpus": name, "fingerprint": corpus.fingerprint, **sizes, **kept}


def _place_tokenizer(out: Path, corpora: Sequence[Corpus]) -> None:
    """Beside the corpora their tokenizer, where it is beside one of them."""
    for corpus in corpora:
        if file := tokenizer_of(folder_of(corpus), corpus.manifest["tokenizer"]):
            place(file, out / "tokenizer.json", copy=True)
            return
