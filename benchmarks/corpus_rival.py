"""datatrove's chain, by datatrove: pages or texts -> its rules -> near-duplicates -> token files.

Run by an interpreter that has datatrove, as a process that is timed as a whole:
    PYTHON corpus_rival.py warc|jsonl INPUT OUT TOKENIZER
It has no januslm.  The blocks and their order are those of its FineWeb example, without the
language, whose model has to be fetched, and with a local tokenizer.
"""

import json
import shutil
import sys
from pathlib import Path

import magic
from datatrove.executor import LocalPipelineExecutor
from datatrove.pipeline.dedup import (
    MinhashDedupBuckets,
    MinhashDedupCluster,
    MinhashDedupFilter,
    MinhashDedupSignature,
)
from datatrove.pipeline.dedup.minhash import MinhashConfig
from datatrove.pipeline.extractors import Trafilatura
from datatrove.pipeline.filters import (
    C4QualityFilter,
    FineWebQualityFilter,
    GopherQualityFilter,
    GopherRepetitionFilter,
    URLFilter,
)
from datatrove.pipeline.formatters import PIIFormatter
from datatrove.pipeline.readers import JsonlReader, WarcReader
from datatrove.pipeline.tokens import DocumentTokenizer
from datatrove.pipeline.writers.jsonl import JsonlWriter
from datatrove.utils.hashing import HashConfig

BANDS = 14
# Common Crawl's archives name the type of each page; wget's do not, and libmagic, which is then
# asked, takes XHTML for XML.
magic.from_buffer = lambda content, mime: "text/html"


def main(kind: str, given: str, out: str, tokenizer: str) -> None:
    """Write OUT/tokens, and OUT/kept.json: the addresses that the rules, and then all, kept."""
    shutil.rmtree(out, ignore_errors=True)
    step = 0

    def run(*blocks, tasks: int = 1) -> None:
        nonlocal step
        step += 1
        LocalPipelineExecutor(
            list(blocks), tasks=tasks, workers=1, logging_dir=f"{out}/logs/{step}"
        ).run()

    if kind == "warc":
        # Its `deduplicate` remembers lines of earlier pages, so it is off, as it is in ours.
        reader = [WarcReader(given, glob_pattern="*.warc.gz")]
        reader += [URLFilter(use_integrated_lists=False)]
        reader += [Trafilatura(favour_precision=True, deduplicate=False, timeout=10)]
    else:
        reader = [JsonlReader(given, glob_pattern="*.jsonl")]
    run(
        *reader,
        GopherRepetitionFilter(),
        # In documentation 0.8 is where most pages lie, so that it decides what a word is.
        GopherQualityFilter(max_non_alpha_words_ratio=0.5),
        C4QualityFilter(filter_no_terminal_punct=False),
        FineWebQualityFilter(),
        JsonlWriter(f"{out}/filtered"),
    )
    config = MinhashConfig(
        hash_config=HashConfig(precision=64), num_buckets=BANDS, hashes_per_bucket=8
    )
    filtered = f"{out}/filtered"
    run(JsonlReader(filtered), MinhashDedupSignature(f"{out}/signatures", config))
    run(MinhashDedupBuckets(f"{out}/signatures", f"{out}/buckets", config=config), tasks=BANDS)
    run(MinhashDedupCluster(f"{out}/buckets", f"{out}/removed", config=config))
    run(
        JsonlReader(filtered),
        MinhashDedupFilter(f"{out}/removed", exclusion_writer=JsonlWriter(f"{out}/duplicates")),
        PIIFormatter(),
        DocumentTokenizer(f"{out}/tokens", tokenizer, eos_token="</s>", shuffle_documents=False),
    )
    left, gone = (_addresses(f"{out}/{name}") for name in ("filtered", "duplicates"))
    Path(out, "kept.json").write_text(
        json.dumps({"rules": sorted(left), "all": sorted(left - gone)})
    )


def _addresses(folder: str) -> set[str]:
    if not Path(folder).is_dir():
        return set()
    return {document.metadata["url"] for document in JsonlReader(folder)()}


if __name__ == "__main__":
    main(*sys.argv[1:])
