"""Corpora: a real crawl, planted near-duplicates, memory, rate and scaling of `data build`.

    python -m benchmarks.corpus crawl                     # wget of Debian's documentation, as WARC
    python -m benchmarks.corpus duplicates                # recall, false removals
    python -m benchmarks.corpus memory --gigabytes 0.1 1  # peak memory of a build; 10 takes an hour
    python -m benchmarks.corpus rate                      # CPU time against datasets.map
    python -m benchmarks.corpus scaling                   # two ranks against one
    python -m benchmarks.corpus chain --rival PYTHON      # FineWeb's rules, against datatrove
    python -m benchmarks.corpus all --pages 0 --gigabytes 0.1 1 10

Packages come from Debian's archive (apt-get download, dpkg-deb, wget); nothing is installed.  The
text of the pages is taken out with resiliparse, of the [web] extra.  PYTHON is an interpreter with
datatrove (pip install "datatrove[processing]" spacy, no torch) and our version of trafilatura.
Each section compares what was built with what it was built from, and writes
results/corpus_SECTION.json only where that is equal.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import xxhash

from benchmarks import corpus_chain, corpus_pages
from benchmarks import corpus_duplicates as near
from benchmarks.record import record
from januslm.config import Refused
from januslm.data.shards import Corpus, open_corpus
from januslm.data.tokenizer import Tokenizer, train_tokenizer

ROOT = Path(__file__).resolve().parents[1]
VOCABULARY = 8192
SETTINGS = {  # of the search for near-duplicates: ours, and FineWeb's
    "default": {},
    "fineweb": {"bands": 14, "rows": 8, "threshold": 0.0},
}
RECALL, FALSE = 0.95, 0.001  # what is wanted of the defaults
NEAR = 0.1  # share of near-duplicates in the texts of `memory`


@dataclass(frozen=True)
class Ran:
    """What a command took, with the processes it started."""

    cpu: float  # seconds
    wall: float  # seconds
    megabytes: float  # the most that one of the processes held in memory at a time
    output: str


# The most memory of a process counts what its parent held at its start, so a small one starts it.
# Its words: a file descriptor for its answer, the command.
WATCHER = """
import json, os, subprocess, sys
child = subprocess.Popen(sys.argv[2:])
_, status, used = os.wait4(child.pid, 0)
found = [os.waitstatus_to_exitcode(status), used.ru_utime + used.ru_stime, used.ru_maxrss]
os.write(int(sys.argv[1]), json.dumps(found).encode())
"""


def run(*command: object) -> Ran:
    """Run a command to its end; ValueError, with what it said, where it fails."""
    began = time.monotonic()
    words = [str(word) for word in command]
    into, out = os.pipe()
    with os.fdopen(into) as answer:
        try:
            watcher = [sys.executable, "-c", WATCHER, str(out), *words]
            done = subprocess.run(
                watcher, cwd=ROOT, stdout=subprocess.PIPE, text=True, pass_fds=(out,)
            )
        finally:
            os.close(out)
        code, spent, kilobytes = json.loads(answer.read())
    if code:
        raise ValueError(f"{' '.join(words)}: exit code {code}\n{done.stdout}")
    return Ran(spent, time.monotonic() - began, kilobytes / 1024, done.stdout)


def build(
    folder: Path, out: str, tokenizer: Path, *more: str, ranks: int = 0
) -> tuple[Ran, Corpus]:
    """Build folder/*.jsonl anew into folder/out; the corpus, every byte of it verified."""
    path = folder / "corpus.toml"
    path.write_text(
        f'out = "{folder / out}"\nroot = "{folder}"\ntokenizer = "{tokenizer}"\n'
        '[sources.jsonl]\nfiles = ["*.jsonl"]\n'
    )
    words = ["-m", "data_tools", "build", path, "--fresh", *more]
    if ranks:
        words += ["--mpi", ranks]
    ran = run(sys.executable, *words)
    return ran, open_corpus(folder / out / "train", verify="full")


def tokenizer_of(folder: Path, texts: list[str]) -> Path:
    """A tokenizer learnt from some of the texts, once."""
    path = folder / f"tokenizer-{VOCABULARY}.json"
    if not path.exists():
        train_tokenizer(texts[:: max(1, len(texts) // 2000)], VOCABULARY, path)
    return path


def documentation(given: argparse.Namespace) -> list[str]:
    """The texts of the pages."""
    site = corpus_pages.unpacked(given.folder, given.packages)
    names = corpus_pages.pages(site, given.packages, given.pages)
    return corpus_pages.texts(given.folder, site, names)


# --- sections: what was measured; ValueError where two things are not equal that must be


def crawl(given: argparse.Namespace) -> dict:
    """Pages as a crawler leaves them."""
    site = corpus_pages.unpacked(given.folder, given.packages)
    names = corpus_pages.pages(site, given.packages, given.pages)
    return corpus_pages.crawl(given.folder, site, names)


def duplicates(given: argparse.Namespace) -> dict:
    """Recall of planted near-duplicates, and what is removed beside them."""
    rng = np.random.default_rng(0)
    base = documentation(given)
    planted = near.plant(base, max(1, len(base) // 5), rng)
    texts = list(dict.fromkeys([*base, *(one.copy for one in planted)]))
    texts = [texts[place] for place in rng.permutation(len(texts))]
    folder = given.folder / "duplicates"
    near.write(folder, texts, 7)
    path = tokenizer_of(given.folder, base)
    tokenizer, results = Tokenizer.load(path), {}
    for name, options in SETTINGS.items():
        changes = [f"deduplicate.minhash.{key}={value}" for key, value in options.items()]
        changes = changes or ['deduplicate="minhash"']
        ran, corpus = build(folder, name, path, *changes, f"processes={given.processes}")
        kept = [tokenizer.decode(corpus.document(i)) for i in range(corpus.documents)]
        counted = corpus.manifest["duplicates"]["minhash"]["dropped"]
        if not set(kept) <= set(texts) or len(set(kept)) != len(texts) - counted:
            raise ValueError(f"{name}: what is kept and dropped is not what was written")
        results[name] = near.judged(texts, set(kept), planted) | {"build_cpu_seconds": ran.cpu}
    found = results["default"]
    wrong = found["false_removals"]["below 0.8"]["share"]
    results["reached"] = {"recall": found["recall"] >= RECALL, "false": wrong <= FALSE}
    return results


def perturbed(base: list[str], size: float, rng: np.random.Generator) -> Iterator[str]:
    """Texts of so many bytes in all: runs of words of the base in new order, and near copies."""
    last = base[0].split()
    while size > 0:
        if rng.random() < NEAR:
            words = [*last, str(rng.integers(10**9))]
        else:
            words = base[rng.integers(len(base))].split()
            runs = [words[start : start + 4] for start in range(0, len(words), 4)]
            words = [word for place in rng.permutation(len(runs)) for word in runs[place]]
            words[:0] = [str(rng.integers(10**9))]
            last = words
        text = " ".join(words)
        yield text
        size -= len(text.encode())


def memory(given: argparse.Namespace) -> dict:
    """The most memory that one process of a build holds, by the size of the text."""
    base = documentation(given)
    path, rows = tokenizer_of(given.folder, base), {}
    for gigabytes in given.gigabytes:
        folder = given.folder / f"memory-{gigabytes:g}"
        folder.mkdir(parents=True, exist_ok=True)
        count, file, room = 0, None, 0
        for text in perturbed(base, gigabytes * 1e9, np.random.default_rng(1)):
            if room <= 0:
                file = (folder / f"{count:09d}.jsonl").open("w")
                room = 10e6
            line = json.dumps({"text": text}) + "\n"
            file.write(line)
            count, room = count + 1, room - len(line)
        file.close()
        changes = ['deduplicate=["exact","minhash"]', f"processes={given.processes}"]
        ran, corpus = build(folder, "out", path, *changes, *given.changes)
        report = corpus.manifest["counters"]["jsonl"]
        dropped = report["dropped"].get("duplicate (minhash)", 0)
        if report["read"] != count or not 0.9 * NEAR < dropped / count < 1.2 * NEAR:
            raise ValueError(f"{report} of {count:,} documents, {NEAR:.0%} of them near copies")
        rows[f"{gigabytes:g}"] = {
            "documents": count,
            "near_duplicates": dropped,
            "peak_megabytes_of_a_process": round(ran.megabytes),
            "cpu_seconds": round(ran.cpu, 1),
        }
        print(f"{gigabytes:g} GB: {rows[f'{gigabytes:g}']}", flush=True)
        for old in folder.rglob("*"):
            if old.is_file():
                old.unlink()
    return rows


MAP = """
import datasets, json, numpy, resource, sys, tokenizers, xxhash
files, path, processes, cache, eos = sys.argv[1:]
datasets.disable_progress_bars()
tokenizer = tokenizers.Tokenizer.from_file(path)
def ids(batch):
    tokenizer.encode_special_tokens = True  # a text with </s> in it is no end; lost by pickling
    found = tokenizer.encode_batch_fast(batch["text"], add_special_tokens=False)
    return {"ids": [one.ids for one in found]}
rows = datasets.load_dataset("json", data_files=files, split="train", cache_dir=cache)
features = datasets.Features({"ids": datasets.Sequence(datasets.Value("uint16"))})
rows = rows.map(ids, batched=True, batch_size=1000, num_proc=int(processes),
                remove_columns=rows.column_names, features=features)
used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
whole = xxhash.xxh3_128()
for row in rows.with_format("numpy"):
    whole.update(numpy.append(row["ids"], int(eos)).astype("<u2").tobytes())
print(json.dumps({"cpu": sum(u.ru_utime + u.ru_stime for u in used), "tokens": whole.hexdigest()}))
"""


def rate(given: argparse.Namespace) -> dict:
    """CPU seconds of a build and of datasets.map, which does not filter, deduplicate or hash."""
    base = list(dict.fromkeys(documentation(given)))  # the build drops what it has had
    folder = given.folder / "rate"
    near.write(folder, base, 8)
    path = tokenizer_of(given.folder, base)
    tokenizer, rounds = Tokenizer.load(path), []
    for number in range(given.rounds):
        cache = folder / f"cache-{os.getpid()}-{number}"
        ran, corpus = build(folder, "out", path, f"processes={given.processes}")
        command = [sys.executable, "-c", MAP, folder / "*.jsonl", path, given.processes, cache]
        theirs = json.loads(run(*command, tokenizer.special.eos).output.splitlines()[-1])
        ours = xxhash.xxh3_128()
        for i in range(corpus.documents):
            ids = np.append(corpus.document(i), tokenizer.special.eos)
            ours.update(ids.astype("<u2").tobytes())
        if ours.hexdigest() != theirs["tokens"]:
            raise ValueError("the tokens of datasets.map are not ours")
        rounds.append({"build": ran.cpu, "datasets.map": theirs["cpu"]})
    ratios = [one["datasets.map"] / one["build"] for one in rounds]
    return {
        "megabytes": sum(len(text.encode()) for text in base) / 1e6,
        "processes": given.processes,
        "cpu_seconds": rounds,
        "median_paired_ratio": float(np.median(ratios)),
    }


def scaling(given: argparse.Namespace) -> dict:
    """Wall time of one rank and of two, in turns, and whether they write the same bytes."""
    base = documentation(given)
    folder = given.folder / "scaling"
    near.write(folder, base, 16)
    path, rounds = tokenizer_of(given.folder, base), []
    for _ in range(given.rounds):
        walls, hashes = {}, {}
        for ranks in (1, 2):
            changes = ['deduplicate=["exact","minhash"]', "part_megabytes=2"]
            ran, corpus = build(folder, f"out-{ranks}", path, *changes, ranks=ranks)
            walls[ranks] = ran.wall
            hashes[ranks] = [shard["bin"] for shard in corpus.manifest["shards"]]
        if hashes[1] != hashes[2]:
            raise ValueError("two ranks write other bytes than one")
        rounds.append(walls)
    ratio = float(np.median([one[1] / one[2] for one in rounds]))
    return {"wall_seconds": rounds, "times_as_fast": ratio, "load": os.getloadavg()[0]}


def chain(given: argparse.Namespace) -> dict:
    """CPU seconds of FineWeb's chain here and in datatrove, from pages and from their texts."""
    if not shutil.which(given.rival):
        raise Refused(f"chain: --rival names datatrove's interpreter, got {given.rival!r}")
    warc = given.folder / "warc"
    if not list(warc.glob("crawl-0*.warc.gz")):
        raise Refused(f"{warc}: no crawl; `python -m benchmarks.corpus crawl` writes it")
    texts = corpus_chain.texts_of(warc, given.folder)
    path = tokenizer_of(given.folder, documentation(given))
    return {
        kind: corpus_chain.measured(run, kind, where, given.folder, path, given.rival, given.rounds)
        for kind, where in (("jsonl", texts), ("warc", warc))
    }


SECTIONS = {one.__name__: one for one in (crawl, duplicates, memory, rate, scaling, chain)}


def main() -> int:
    """Exit code 1 where a comparison fails, 2 where something is missing."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("section", choices=[*SECTIONS, "all"])
    parser.add_argument("changes", nargs="*", metavar="key=value", help="for the builds of memory")
    parser.add_argument("--folder", type=Path, default=ROOT / "corpora" / "benchmark")
    parser.add_argument("--packages", nargs="+", default=corpus_pages.PACKAGES)
    parser.add_argument("--pages", type=int, default=5000, help="at most; 0: all there are")
    parser.add_argument("--gigabytes", type=float, nargs="+", default=[0.03, 0.1, 0.3])
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--rival", default="", metavar="PYTHON")
    given = parser.parse_intermixed_args()
    given.folder, given.packages = given.folder.resolve(), tuple(given.packages)
    given.folder.mkdir(parents=True, exist_ok=True)
    every = [name for name in SECTIONS if name != "chain" or given.rival]
    if given.section == "all" and not given.rival:
        print("chain is left out: no --rival")
    for name in every if given.section == "all" else [given.section]:
        try:
            results = SECTIONS[name](given)
        except (Refused, OSError, subprocess.CalledProcessError, ImportError) as error:
            print(f"error: {error}", file=sys.stderr)
            return 2
        except ValueError as error:
            print(f"error: {name}: {error}", file=sys.stderr)
            return 1
        print(json.dumps(results, indent=1))
        about = {"pages": given.pages, "packages": given.packages}
        print(f"written to {record(f'corpus_{name}', about | results).name}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
