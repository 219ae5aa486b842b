"""The chain of FineWeb, ours and datatrove's, on the same crawl: CPU time and what is kept."""

import json
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import zstandard

from januslm import registry
from januslm.data.shards import open_corpus

AGREED = 0.8  # of the pages that either keeps; in documentation many lie at the limits
RULES = """
[filters.url]
[filters.gopher_repetition]
[filters.gopher_quality]
word = "marks"
least_alphabetic = 0.5
[filters.c4]
end_marks = false
policies = true
[filters.fineweb]
[filters.personal_data]
phone = ""
[deduplicate.minhash]
bands = 14
rows = 8
threshold = 0.0
"""
SOURCES = {
    "warc": '[sources.warc]\nfiles = ["*.warc.gz"]\nextractor = "trafilatura"\n',
    "jsonl": '[sources.jsonl]\nfiles = ["*.jsonl"]\nurl_field = "url"\n',
}


def texts_of(warc: Path, folder: Path) -> Path:
    """A folder with the pages' texts as JSONL with addresses, taken out of them once."""
    out = folder / "chain-texts"
    path = out / "pages.jsonl"
    if not path.exists():
        out.mkdir(parents=True, exist_ok=True)
        aside = path.with_suffix(".new")
        warcs = registry.find("data_tools.sources", "warc")
        with aside.open("w") as file:
            for one in warcs.inputs(warc, files=["*.warc.gz"], extractor="trafilatura"):
                for found in one.read():
                    if isinstance(found, warcs.Document) and found.text:
                        row = {"text": found.text, "url": found.url, "id": found.url}
                        file.write(json.dumps(row) + "\n")
        aside.rename(path)
    return out


def measured(
    run: Callable, kind: str, given: Path, folder: Path, tokenizer: Path, rival: str, rounds: int
) -> dict:
    """CPU seconds of both in turns; ValueError where they keep other documents.

    kind: warc or jsonl, of the files in `given`; run: a command -> what it took.
    """
    ours_out, theirs_out = folder / f"chain-ours-{kind}", folder / f"chain-theirs-{kind}"
    recipe = folder / f"chain-{kind}.toml"
    recipe.write_text(
        f'out = "{ours_out}"\nroot = "{given}"\ntokenizer = "{tokenizer}"\nrejected = true\n'
        f"processes = 1\nvalidation = 0.0\n{SOURCES[kind]}{RULES}"
    )
    there = Path(__file__).with_name("corpus_rival.py")
    spent = []
    for _ in range(rounds):
        ours = run(sys.executable, "-m", "data_tools", "build", recipe, "--fresh")
        theirs = run(rival, there, kind, given, theirs_out, tokenizer)
        spent.append({"januslm": ours.cpu, "datatrove": theirs.cpu})
    kept = json.loads((theirs_out / "kept.json").read_text())
    corpus = open_corpus(ours_out / "train", verify="full")
    pages = {json.loads(line)["url"] for line in (folder / "chain-texts" / "pages.jsonl").open()}
    mine, others = pages - _dropped(ours_out), set(kept["rules"])
    agreed = len(mine & others) / max(1, len(mine | others))
    if agreed < AGREED:
        raise ValueError(
            f"{kind}: the rules keep {len(mine):,} pages here and {len(others):,} there, of which "
            f"{len(mine & others):,} are the same"
        )
    return {
        "pages_with_text": len(pages),
        "kept_by_rules": {"januslm": len(mine), "datatrove": len(others)},
        "the_same_share": agreed,
        "kept_in_the_end": {"januslm": corpus.documents, "datatrove": len(kept["all"])},
        "cpu_seconds": spent,
        "median_paired_ratio": float(
            np.median([one["datatrove"] / one["januslm"] for one in spent])
        ),
    }


def _dropped(out: Path) -> set[str]:
    """The addresses of what the rules dropped of a corpus."""
    found = set()
    for path in (out / "rejected").glob("part-*.jsonl.zst"):
        with zstandard.open(path, "rt", encoding="utf-8") as file:
            found |= {json.loads(line)["url"] for line in file}
    return found
