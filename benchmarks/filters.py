"""Filters on real text: documents a CPU second, and where their verdicts differ from datatrove's.

  python -m benchmarks.filters                    rates, on ../shared/data and package documents
  python -m benchmarks.filters --rival PYTHON     and verdicts beside datatrove's

PYTHON: an interpreter that has datatrove and spacy (pip install datatrove spacy; no torch).
Prints how many verdicts (kept or dropped) are the same, how many name the same rule, and each kind
of difference.  The rival is given the same limits, and C4's of the paper.
"""

import argparse
import gzip
import json
import re
import subprocess
import sys
import sysconfig
import tempfile
import time
import zipfile
from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from zlib import crc32

COMPARED = ("gopher_quality", "gopher_repetition", "fineweb", "c4")
TIMED = (*COMPARED, "ftfy", "language", "personal_data")
# How datatrove calls its rules, and how ours begin.
RULES = {
    "gopher_short_doc": "words below",
    "gopher_below_avg_threshold": "letters in a word below",
    "gopher_above_avg_threshold": "letters in a word above",
    "gopher_too_many_hashes": "# to words",
    "gopher_too_many_ellipsis": "ellipses to words",
    "gopher_too_many_bullets": "lines with a bullet",
    "gopher_too_many_end_ellipsis": "lines with an ellipsis",
    "gopher_below_alpha_threshold": "words with a letter",
    "gopher_enough_stop_words": "stop words",
    "dup_para_frac": "paragraphs again",
    "dup_para_char_frac": "characters in paragraphs again",
    "dup_line_frac": "lines again",
    "dup_line_char_frac": "characters in lines again",
    "line_punct_ratio": "lines that end",
    "short_line_ratio": "lines of",
    "char_dup_ratio": "characters in lines again",
    "list_ratio": "line feeds to words",
    "too_few_sentences": "fewer than",
    "lorem_ipsum": "lorem ipsum",
    "curly_bracket": "curly bracket",
    **{f"top_{n}_gram": f"characters in the top {n}-gram" for n in (2, 3, 4)},
    **{f"duplicated_{n}_n_grams": f"characters in {n}-grams again" for n in range(5, 11)},
}


def main() -> int:
    """Print it."""
    style = argparse.RawTextHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=style)
    parser.add_argument("--data", default="../shared/data", help="wikitext2/, scitldr/, text/")
    parser.add_argument("--each", type=int, default=60, help="documents of each kind")
    parser.add_argument("--rival", default="", metavar="PYTHON")
    parser.add_argument("--verdicts", default="", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.verdicts:
        json.dump(_theirs(json.loads(Path(given.verdicts).read_text())), sys.stdout)
        return 0
    texts = [text for several in _texts(Path(given.data)) for text in _sample(several, given.each)]
    print(f"{len(texts)} documents, {sum(map(len, texts)) / 1e6:.2f} M characters")
    for name in TIMED:
        for kind in _kinds(name):
            _time(name, kind, texts)
    if given.rival:
        with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
            json.dump(texts, file)
            file.flush()
            command = [given.rival, __file__, "--verdicts", file.name]
            done = subprocess.run(command, check=True, stdout=subprocess.PIPE)
        theirs, rates = json.loads(done.stdout)
        for name in COMPARED:
            print(f"datatrove's {name}: {rates[name]:,.0f} documents a CPU second")
            for kind in _kinds(name):
                _compare(name, kind, texts, theirs[name])
    return 0


def _texts(data: Path) -> Iterator[list[str]]:
    """Paragraphs and articles of WikiText-2, abstracts, speeches, documents of packages.

    As a page is after extraction: no space at the end of a line, which datatrove would take for a
    line without an end, and no @-@, which WikiText has for hyphens.
    """
    whole = re.sub(r" @(.)@ ", r"\1", _unpacked(data / "wikitext2/wiki.valid.raw.gz"))
    yield [line.strip() for line in whole.split("\n") if len(line.split()) >= 8]
    yield [_stripped(article) for article in whole.split("\n = ") if len(article) > 2000]
    rows = _unpacked(data / "scitldr/dev.jsonl.gz").splitlines()
    yield [" ".join(json.loads(row)["source"]) for row in rows]
    with zipfile.ZipFile(data / "text/state_union.zip") as archive:
        names = [name for name in archive.namelist() if name.endswith(".txt")]
        yield [_stripped(archive.read(name).decode("latin-1")[:10_000]) for name in names]
    place, ends = Path(sysconfig.get_path("purelib")), ("*.md", "*.rst", "METADATA", "LICENSE*")
    files = sorted(p for end in ends for p in place.rglob(end) if p.is_file())
    yield [
        _stripped(p.read_text("utf-8", "replace")) for p in files if 200 < p.stat().st_size < 60_000
    ]


def _unpacked(path: Path) -> str:
    return gzip.decompress(path.read_bytes()).decode()


def _stripped(text: str) -> str:
    return "\n".join(line.rstrip() for line in text.split("\n")).strip()


def _sample(texts: list[str], count: int) -> list[str]:
    return sorted(texts, key=lambda text: crc32(text.encode()))[:count]


def _kinds(name: str) -> tuple[dict, ...]:
    """Options: both definitions of a word, where a filter counts words so."""
    return ({"word": "spaces"}, {"word": "marks"}) if name in COMPARED[:3] else ({},)


def _time(name: str, kind: dict, texts: list[str]) -> None:
    from januslm.registry import find

    filter = find("data_tools.filters", name)
    ask, documents = partial(filter.of_text, **kind), [filter.Document(t, "") for t in texts]
    ask(documents[0])
    start = time.process_time()
    for document in documents:
        ask(document)
    rate = len(documents) / (time.process_time() - start)
    print(f"{name:18} {kind.get('word', ''):7} {rate:10,.0f} documents a CPU second")


def _compare(name: str, kind: dict, texts: list[str], theirs: list[str]) -> None:
    from januslm.registry import find  # not at the top: the rival has no januslm

    filter = find("data_tools.filters", name)
    verdicts = rules = 0
    different: Counter = Counter()
    for text, reason in zip(texts, theirs, strict=True):
        found = filter.of_text(filter.Document(text, ""), **kind)
        own = found.reason.partition(": ")[2] if isinstance(found, filter.Dropped) else ""
        verdicts += bool(own) == bool(reason)
        same = bool(own) == bool(reason) and own.startswith(RULES.get(reason, reason))
        rules += same
        different[reason or "kept", own or "kept"] += not same
    print(f"{name} {kind.get('word', '')}: of {len(texts)}", end=", ")
    print(f"the same verdict {verdicts}, and the same rule {rules}")
    for (reason, own), count in different.most_common():
        if count:
            print(f"  {count:4}  datatrove: {reason}; here: {own}")


def _theirs(texts: list[str]) -> tuple[dict[str, list[str]], dict[str, float]]:
    """Why datatrove drops each text, "" where it keeps it, and its rates; run by the rival."""
    from datatrove.data import Document
    from datatrove.pipeline import filters as there

    ways = {
        "gopher_quality": there.GopherQualityFilter(),
        "gopher_repetition": there.GopherRepetitionFilter(),
        "fineweb": there.FineWebQualityFilter(),
        "c4": there.C4QualityFilter(min_num_sentences=3, min_words_per_line=5),
    }
    found, rates = {}, {}
    for name, way in ways.items():
        way.filter(Document(text=texts[0], id="0"))
        start = time.process_time()
        verdicts = [way.filter(Document(text=text, id="0")) for text in texts]
        rates[name] = len(texts) / (time.process_time() - start)
        found[name] = ["" if one is True else one[1] for one in verdicts]
    return found, rates


if __name__ == "__main__":
    sys.exit(main())
