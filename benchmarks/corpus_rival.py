"""datatrove's chain, by datatrove: pages or texts -> its rules -> near-duplicates -> token files.

Run by an interpreter that has datatrove and no januslm, as a process that is timed as a whole:
    PYTHON corpus_rival.py warc|jsonl INPUT OUT TOKENIZER
The blocks and their order are those of its FineWeb example, without the language, whose model has
to be fetched, and with a local tokenizer.
"""

import argparse
import json
import shutil
from collections.abc import Callable
from pathlib import Path

BANDS = 14


def main() -> None:
    """Write OUT/tokens, and OUT/kept.json: the addresses that the rules, and then all, kept."""
    style = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=style)
    parser.add_argument("kind", choices=["warc", "jsonl"])
    for name in ("input", "out", "tokenizer"):
        parser.add_argument(name)
    given = parser.parse_args()
    shutil.rmtree(given.out, ignore_errors=True)
    run = _runner(given.out)
    _rules(run, given.kind, given.input, f"{given.out}/filtered")
    _near_duplicates(run, given.out, given.tokenizer)
    left, gone = (_addresses(f"{given.out}/{name}") for name in ("filtered", "duplicates"))
    kept = {"rules": sorted(left), "all": sorted(left - gone)}
    Path(given.out, "kept.json").write_text(json.dumps(kept))


def _runner(out: str) -> Callable:
    """Runs blocks as one step, in this process."""
    from datatrove.executor import LocalPipelineExecutor

    step = 0

    def run(*blocks, tasks: int = 1) -> None:
        nonlocal step
        step += 1
        logs = f"{out}/logs/{step}"
        LocalPipelineExecutor(list(blocks), tasks=tasks, workers=1, logging_dir=logs).run()

    return run


def _rules(run: Callable, kind: str, given: str, out: str) -> None:
    from datatrove.pipeline import filters
    from datatrove.pipeline.readers import JsonlReader
    from datatrove.pipeline.writers.jsonl import JsonlWriter

    reader = _pages(given) if kind == "warc" else [JsonlReader(given, glob_pattern="*.jsonl")]
    run(
        *reader,
        filters.GopherRepetitionFilter(),
        # In documentation 0.8 is where most pages lie, so that it decides what a word is.
        filters.GopherQualityFilter(max_non_alpha_words_ratio=0.5),
        filters.C4QualityFilter(filter_no_terminal_punct=False),
        filters.FineWebQualityFilter(),
        JsonlWriter(out),
    )


def _pages(given: str) -> list:
    import magic
    from datatrove.pipeline.extractors import Trafilatura
    from datatrove.pipeline.filters import URLFilter
    from datatrove.pipeline.readers import WarcReader

    # Common Crawl's archives name the type of each page; wget's do not, and libmagic, which is then
    # asked, takes XHTML for XML.
    magic.from_buffer = lambda content, mime: "text/html"
    return [
        WarcReader(given, glob_pattern="*.warc.gz"),
        URLFilter(use_integrated_lists=False),
        # Its `deduplicate` remembers lines of earlier pages, so it is off, as it is in ours.
        Trafilatura(favour_precision=True, deduplicate=False, timeout=10),
    ]


def _near_duplicates(run: Callable, out: str, tokenizer: str) -> None:
    from datatrove.pipeline import dedup
    from datatrove.pipeline.dedup.minhash import MinhashConfig
    from datatrove.pipeline.formatters import PIIFormatter
    from datatrove.pipeline.readers import JsonlReader
    from datatrove.pipeline.tokens import DocumentTokenizer
    from datatrove.pipeline.writers.jsonl import JsonlWriter
    from datatrove.utils.hashing import HashConfig

    hashes = HashConfig(precision=64)
    config = MinhashConfig(hash_config=hashes, num_buckets=BANDS, hashes_per_bucket=8)
    filtered, signatures, buckets, removed = (
        f"{out}/{name}" for name in ("filtered", "signatures", "buckets", "removed")
    )
    run(JsonlReader(filtered), dedup.MinhashDedupSignature(signatures, config))
    run(dedup.MinhashDedupBuckets(signatures, buckets, config=config), tasks=BANDS)
    run(dedup.MinhashDedupCluster(buckets, removed, config=config))
    run(
        JsonlReader(filtered),
        dedup.MinhashDedupFilter(removed, exclusion_writer=JsonlWriter(f"{out}/duplicates")),
        PIIFormatter(),
        DocumentTokenizer(f"{out}/tokens", tokenizer, eos_token="</s>", shuffle_documents=False),
    )


def _addresses(folder: str) -> set[str]:
    from datatrove.pipeline.readers import JsonlReader

    if not Path(folder).is_dir():
        return set()
    return {document.metadata["url"] for document in JsonlReader(folder)()}


if __name__ == "__main__":
    main()
