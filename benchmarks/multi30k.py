"""AR alone, Mask-Predict alone and JANUS on Multi30k: one size, one data, one number of updates.

  python -m benchmarks.multi30k train ar janus          trains rows; goes on where it stopped
  python -m benchmarks.multi30k score ar janus          decodes and scores them, one at a time
  python -m benchmarks.multi30k table                   the table of all that is scored so far
A row may end in a seed: janus-2 (1 is left out); `train` takes changes of all its rows, key=value,
which must not touch what is compared: packing.row=0.  Scores are written as they come, to
benchmarks/results/multi30k_ROW.json, and per sentence beside it, so that differences can be tested
after the models are gone.
"""

import argparse
import json
import re
import signal
import statistics
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from benchmarks.product import ROOT, Way, write
from benchmarks.record import FOLDER, record
from januslm.config import Refused, suggest
from januslm.metrics import bleu
from januslm.significance import resampled


def _weights(**kl: float) -> str:
    """A change of the run file: the published cross-entropies, and these KL terms alone."""
    terms = {"ce/past": 1.0, "ce/mask": 0.5, "ce/query": 0.5, "ce/length": 0.1}
    terms |= {f"kl/{pair.replace('_', '~')}": weight for pair, weight in kl.items()}
    inside = ",".join(f'"{name}"={weight}' for name, weight in terms.items())
    return f"loss.weights={{{inside}}}"


PUBLISHED = _weights(past_mask=1.0, past_query=3.0, mask_query=1.0)
AS_AR = "model.dropout=0.3"  # as AR alone and CMLM alone have it
# Run file of finetune/runs/ and what differs from it.  The first three are the claim, the others
# what moves it.  "detached": the stream named first teaches the other.
ROWS = {
    "ar": ("multi30k_ar", ()),
    "cmlm": ("multi30k_cmlm", ()),
    "janus": ("multi30k_janus", ()),
    "ar_less_dropout": ("multi30k_ar", ("model.dropout=0.2",)),
    "janus_more_dropout": ("multi30k_janus", ("model.dropout=0.25",)),
    "janus_more_kl": ("multi30k_janus", (_weights(past_query=2.0, mask_query=1.0),)),
    "janus_two_passes": ("multi30k_janus", ("packing.encoder_passes=2",)),
    "janus_late_kl": (
        "multi30k_janus",
        (AS_AR, "loss.rise=[2700,4000]", _weights(past_query=3.0, mask_query=1.0)),
    ),
    "janus_no_kl": ("multi30k_janus", (AS_AR, _weights())),
    "janus_published": ("multi30k_janus", (AS_AR, PUBLISHED)),
    "janus_published_less_dropout": ("multi30k_janus", ("model.dropout=0.1", PUBLISHED)),
    "janus_published_next": ("multi30k_janus", (AS_AR, PUBLISHED, "objective.read=next")),
    "janus_published_two_passes": (
        "multi30k_janus", (AS_AR, PUBLISHED, "packing.encoder_passes=2"),
    ),
    "janus_published_detached": (
        "multi30k_janus",
        (AS_AR, "loss.detach=first", _weights(query_past=3.0, past_mask=1.0, query_mask=1.0)),
    ),
    "janus_uniform_masks": ("multi30k_janus", ("noise.name=uniform",)),
}  # fmt: skip
AR = (Way("AR greedy", "greedy"), Way("AR beam 5", "beam", {"beam": 5}))
NAR = tuple(
    Way(f"NAR {n}", "mask_predict", {"iterations": n, "length_beam": 5}) for n in (1, 4, 10)
)
BOTH = (
    *(
        Way(f"{way.name}, AR chooses", way.algorithm, way.options | {"rescore": True})
        for way in NAR
    ),
    Way("speculative", "speculative"),
)
WAYS = {"ar": AR, "cmlm": NAR, "janus": AR + NAR + BOTH}
# What is claimed: way of one row minus way of another.
CLAIMS = (
    ("janus", "AR greedy", "ar", "AR greedy"), ("janus", "AR beam 5", "ar", "AR beam 5"),
    ("janus", "AR greedy", "ar_less_dropout", "AR greedy"),
    ("janus", "AR beam 5", "ar_less_dropout", "AR beam 5"),
    ("janus", "NAR 10, AR chooses", "janus", "AR greedy"),
    ("janus", "NAR 10", "janus", "AR greedy"), ("janus", "NAR 10", "cmlm", "NAR 10"),
)  # fmt: skip
FLAT = 5  # validations that tell whether a loss has settled


def train(row: str, seed: int, folder: Path, more: Sequence[str]) -> None:
    """The run file of a row, in a process of its own; Refused where it does not come to its end.

    more: further changes, as key=value.
    """
    signal.signal(signal.SIGTERM, lambda *_: None)  # the run is told too; it saves and says so
    file, changes = ROWS[row]
    done = subprocess.run([
        ROOT / "launch.sh", "finetune", f"finetune/runs/{file}.toml", f"out={folder}",
        f"train.seed={seed}", *changes, *more,
    ])  # fmt: skip
    if done.returncode:
        raise Refused(f"{folder}: training ended with {done.returncode}; its last lines say why")


def score(row: str, seed: int, folder: Path) -> Path:
    """Decode the test set in all ways that the row knows, one sentence at a time on one thread."""
    counted, lines, validation = {}, {}, _validations(folder)
    for way in WAYS[row.partition("_")[0]]:
        texts = write(
            str(folder), way, folder / "predictions", ["--batch", "1", "--threads", "1"], gpu=False
        )
        each = bleu.each(texts.predictions, texts.references)["bleu"]
        lines[way.name] = each.astype(np.int16)
        counted[way.name] = {
            "bleu": float(bleu.total(each.sum(0, keepdims=True))[0]),
            **{k: texts.facts[k] for k in ("ms_per_sentence", "tokens", "passes", "settings")},
        } | ({"verified": texts.facts["verified"]} if "verified" in texts.facts else {})
        print(f"{folder.name}, {way.name}: {counted[way.name]['bleu']:.2f} BLEU", flush=True)
    name = f"multi30k_{row}" + (f"-{seed}" if seed > 1 else "")
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    config["data"].pop("root")  # a place on this machine
    config["out"] = str(folder.relative_to(ROOT))
    np.savez_compressed(FOLDER / f"{name}.npz", **lines)
    facts = {"row": row, "seed": seed, "changes": ROWS[row][1], "ways": counted}
    return record(name, facts | {"validation": validation, "config": config})


def _validations(folder: Path) -> list[dict]:
    path = folder / "valid.jsonl"
    if not (folder / "done").is_file() or not path.is_file():
        raise Refused(f"{folder}: is not trained to its end; `train` goes on with it")
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def table() -> str:
    """All that is scored: a line per row and way, seeds side by side; then the claims."""
    found = {}
    for path in sorted(FOLDER.glob("multi30k_*.json")):
        facts = json.loads(path.read_text(encoding="utf-8"))["results"]
        found[facts["row"], facts["seed"]] = facts | {"lines": np.load(path.with_suffix(".npz"))}
    if not found:
        raise Refused(f"{FOLDER}: nothing is scored yet; `score` does it")
    lines = [f"{'':42}{'BLEU':>14}{'ms/sentence':>13}{'passes':>8}"]
    for (row, seed), facts in sorted(found.items(), key=lambda item: list(ROWS).index(item[0][0])):
        for way, told in facts["ways"].items():
            name = f"{row}{f'-{seed}' * (seed > 1)}, {way}"
            value = f"{told['bleu']:.2f} \u00b1{_half(facts['lines'][way]):.2f}"
            lines.append(
                f"{name:42}{value:>14}{told['ms_per_sentence']:13.1f}{told['passes']:8.1f}"
            )
    lines.append("ms: by the clock, each alone; ratios are taken by benchmarks.decode_speed --run")
    lines += ["", *_settled(found), "", *_claims(found)]
    return "\n".join(lines)


def _half(each: np.ndarray) -> float:
    low, high = np.percentile(resampled(bleu, each.astype(float), {}, 2000, 0)[1:], [2.5, 97.5])
    return float(high - low) / 2


def _settled(found: dict) -> list[str]:
    """The last validation losses of each run's first term, which say whether it has converged."""
    lines = []
    for (row, seed), facts in found.items():
        term = next(k for k in facts["validation"][-1] if k.startswith("ce/"))
        last = facts["validation"][-FLAT:]
        values = ", ".join(f"{v[term]:.3f}" for v in last)
        lines.append(f"{row}, seed {seed}: {term} at {last[0]['step']:,}.. updates: {values}")
    return lines


def _claims(found: dict) -> list[str]:
    """Differences with the interval that the choice of test sentences leaves, per seed and mean."""
    lines = []
    for row, way, base, other in CLAIMS:
        gaps = []
        for seed in sorted({s for r, s in found if r == row} & {s for r, s in found if r == base}):
            pair = found[row, seed]["lines"][way], found[base, seed]["lines"][other]
            one, two = (resampled(bleu, x.astype(float), {}, 2000, 0) for x in pair)
            low, high = np.percentile((one - two)[1:], [2.5, 97.5])
            gaps.append(float(one[0] - two[0]))
            lines.append(
                f"{row} {way} - {base} {other}, seed {seed}: {gaps[-1]:+.2f} BLEU, 95 % of paired "
                f"resampled test sets {low:+.2f} to {high:+.2f}"
            )
        if len(gaps) > 1:
            lines.append(
                f"  mean of {len(gaps)} seeds {statistics.fmean(gaps):+.2f}, "
                f"standard deviation {statistics.stdev(gaps):.2f}"
            )
    return lines


def _named(text: str) -> tuple[str, int, Path]:
    row, seed = re.fullmatch(r"(.*?)(?:-(\d+))?", text).groups()
    if seed and int(seed) < 2:
        raise Refused(f"{text!r}: seed 1 is the row without a number, others are 2 and up")
    if row not in ROWS:
        raise Refused(f"no row {row!r}{suggest(row, ROWS)}")
    return row, int(seed or 1), ROOT / "runs" / "multi30k" / text


def main(given: Sequence[str] | None = None) -> int:
    """Exit code 0, or 2 and one line on stderr."""
    parser = argparse.ArgumentParser(
        "python -m benchmarks.multi30k", description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("verb", choices=("train", "score", "table"))
    parser.add_argument("rows", nargs="*", metavar="ROW", help=", ".join(ROWS))
    options = parser.parse_args(given)
    try:
        changes = [text for text in options.rows if "=" in text]
        for row, seed, folder in [_named(text) for text in options.rows if "=" not in text]:
            if options.verb == "train":
                train(row, seed, folder, changes)
            elif options.verb == "score":
                print(f"written to {score(row, seed, folder)}")
        if options.verb != "train":
            print(table())
    except Refused as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
