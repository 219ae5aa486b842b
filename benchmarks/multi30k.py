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

from benchmarks.cli_runs import ROOT, Way, write
from benchmarks.record import FOLDER, record
from januslm.config import Refused, suggest
from januslm.metrics import bleu
from januslm.metrics._bootstrap import resampled


def _weights(**kl: float) -> str:
    """A change of the run file: the published cross-entropies, and these KL terms alone."""
    terms = {"ce/ar": 1.0, "ce/nar": 0.5, "ce/aux": 0.5, "ce/length": 0.1}
    terms |= {f"kl/{pair.replace('_', '~')}": weight for pair, weight in kl.items()}
    inside = ",".join(f'"{name}"={weight}' for name, weight in terms.items())
    return f"loss.weights={{{inside}}}"


PUBLISHED = _weights(ar_nar=1.0, ar_aux=3.0, nar_aux=1.0)
# As many parameters (7.6 M) in twelve narrow layers that read and two that write.
DEEP = (
    "model.encoder_layers=12",
    "model.decoder_layers=2",
    "model.width=184",
    "model.ffn=768",
)
AS_AR = "model.dropout=0.3"  # as AR alone and CMLM alone have it
# Run file of finetune/runs/ and what differs from it.  The first three are the claim, the others
# what moves it.  "detached": the stream named first teaches the other.
ROWS = {
    "ar": ("multi30k_ar", ()),
    "cmlm": ("multi30k_cmlm", ()),
    "janus": ("multi30k_janus", ()),
    "block": ("multi30k_block", ()),
    "ar_deep": ("multi30k_ar", DEEP),
    "block_deep": ("multi30k_block", DEEP),
    "janus_deep": ("multi30k_janus", DEEP),
    "ar_less_dropout": ("multi30k_ar", ("model.dropout=0.2",)),
    "janus_more_dropout": ("multi30k_janus", ("model.dropout=0.25",)),
    "janus_more_kl": ("multi30k_janus", (_weights(ar_aux=2.0, nar_aux=1.0),)),
    "janus_two_passes": ("multi30k_janus", ("packing.encoder_passes=2",)),
    "janus_late_kl": (
        "multi30k_janus",
        (AS_AR, "loss.rise=[2700,4000]", _weights(ar_aux=3.0, nar_aux=1.0)),
    ),
    "janus_no_kl": ("multi30k_janus", (AS_AR, _weights())),
    "janus_published": ("multi30k_janus", (AS_AR, PUBLISHED)),
    "janus_published_less_dropout": ("multi30k_janus", ("model.dropout=0.1", PUBLISHED)),
    "janus_published_next": ("multi30k_janus", (AS_AR, PUBLISHED, "objective.read=next")),
    "janus_published_two_passes": (
        "multi30k_janus",
        (AS_AR, PUBLISHED, "packing.encoder_passes=2"),
    ),
    "janus_published_detached": (
        "multi30k_janus",
        (AS_AR, "loss.detach=first", _weights(aux_ar=3.0, ar_nar=1.0, aux_nar=1.0)),
    ),
    "janus_uniform_masks": ("multi30k_janus", ("noise.name=uniform",)),
}
AR = (Way("AR greedy", "greedy"), Way("AR beam 5", "beam", {"beam": 5}))
NAR = tuple(
    Way(f"NAR {n} x 5", "mask_predict", {"iterations": n, "length_beam": 5}) for n in (1, 4, 10)
)
BOTH = (
    *(
        Way(f"{way.name}, AR chooses", way.algorithm, way.options | {"rescore": True})
        for way in NAR
    ),
    Way("speculative", "speculative", {"block": 8, "shifts": 3}),  # the same passes everywhere
)
DRAFTS = (
    Way("draft", "draft"),
    Way("draft, one pass", "draft", {"form": "one"}),
    Way("draft, 4 lines", "draft", {"form": "one", "lines": 4}),
    Way("draft, two passes", "draft", {"form": "two"}),
    Way("blocks of 8", "blockwise"),
)
WAYS = {"ar": AR, "cmlm": NAR, "janus": AR + NAR + BOTH, "block": AR + DRAFTS}
# What is claimed: way of one row minus way of another.
CLAIMS = (
    ("janus", "AR greedy", "ar", "AR greedy"),
    ("janus", "AR beam 5", "ar", "AR beam 5"),
    ("block", "AR greedy", "ar", "AR greedy"),
    ("block", "AR beam 5", "ar", "AR beam 5"),
    ("block_deep", "AR greedy", "ar_deep", "AR greedy"),
    ("janus_deep", "AR greedy", "ar_deep", "AR greedy"),
    ("janus", "AR greedy", "ar_less_dropout", "AR greedy"),
    ("janus", "AR beam 5", "ar_less_dropout", "AR beam 5"),
    ("janus", "NAR 10 x 5, AR chooses", "janus", "AR greedy"),
    ("janus", "NAR 10 x 5", "janus", "AR greedy"),
    ("janus", "NAR 10 x 5", "cmlm", "NAR 10 x 5"),
)
SPEEDS = "decode_trained.json"
FLAT = 5  # validations that tell whether a loss has settled


def train(row: str, seed: int, folder: Path, more: Sequence[str]) -> None:
    """The run file of a row, in a process of its own; Refused where it does not come to its end.

    more: further changes, as key=value.
    """
    signal.signal(signal.SIGTERM, lambda *_: None)  # the run gets it too, saves, and reports it
    file, changes = ROWS[row]
    done = subprocess.run(
        [
            ROOT / "launch.sh",
            "finetune",
            f"finetune/runs/{file}.toml",
            f"out={folder}",
            f"train.seed={seed}",
            *changes,
            *more,
        ]
    )
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
    speeds = _speeds()
    lines = [f"{'':42}{'BLEU':>8} {'':6}{'of seeds':>28}{'passes':>8}{'speed':>8}"]
    for row in [row for row in ROWS if any(row == other for other, _ in found)]:
        seeds = {seed: facts for (other, seed), facts in sorted(found.items()) if other == row}
        for way in next(iter(seeds.values()))["ways"]:
            speed = f"{speeds[way]:.2f}x" if way in speeds else "-"
            lines.append(f"{f'{row}, {way}':42}{_line(seeds, way)}{speed:>8}")
    lines += [
        "NAR n x 5: n iterations over five lengths. BLEU: mean over seeds, \u00b1 half the "
        "95 % interval of resampled test sets.",
        "passes: of the decoder, a sentence. speed: CPU time of AR beam 5 over that of this way, "
        "one sentence at a time,",
        f"by JANUS ({SPEEDS}); models of the other rows are as large and do the same.",
    ]
    lines += ["", *_settled(found), "", *_claims(found)]
    return "\n".join(lines)


def _line(seeds: dict[int, dict], way: str) -> str:
    """The numbers of one way of a row; all seeds are of the same resampled test sets."""
    each = [facts["lines"][way].astype(float) for facts in seeds.values()]
    mean = np.mean([resampled(bleu, one, {}, 2000, 0) for one in each], axis=0)
    low, high = np.percentile(mean[1:], [2.5, 97.5])
    rows = [facts["ways"][way] for facts in seeds.values()]
    several = "  ".join(f"{s}: {t['bleu']:.2f}" for s, t in zip(seeds, rows, strict=True))
    passes = statistics.fmean(t["passes"] for t in rows)
    half = f"\u00b1{(high - low) / 2:.2f}"
    return f"{mean[0]:8.2f} {half:6}{several:>28}{passes:8.1f}"


def _speeds() -> dict[str, float]:
    """Way -> how much faster than AR beam 5, measured in turns by benchmarks.decode_speed --run."""
    ratios = json.loads((FOLDER / SPEEDS).read_text(encoding="utf-8"))["results"]
    pairs = ((name.split(" / "), ratio) for name, ratio in ratios["ratios_at_batch_1"].items())
    return {way: ratio["median"] for (base, way), ratio in pairs if base == "AR beam 5"}


def _settled(found: dict) -> list[str]:
    """The last validation losses of each run's first term, which say whether it has converged."""
    lines = []
    for (row, seed), facts in sorted(found.items()):
        term = next(k for k in facts["validation"][-1] if k.startswith("ce/"))
        last = facts["validation"][-FLAT:]
        values = ", ".join(f"{v[term]:.3f}" for v in last)
        lines.append(f"{row}, seed {seed}: {term} at {last[0]['step']:,}.. updates: {values}")
    return lines


def _claims(found: dict) -> list[str]:
    """Differences with the interval that the choice of test sentences leaves, per seed and mean.

    All are of the same resampled test sets, so that the mean's interval is that of the mean.
    """
    lines = []
    for row, way, base, other in CLAIMS:
        gaps = []
        for seed in sorted({s for r, s in found if r == row} & {s for r, s in found if r == base}):
            pair = found[row, seed]["lines"][way], found[base, seed]["lines"][other]
            one, two = (resampled(bleu, x.astype(float), {}, 2000, 0) for x in pair)
            gaps.append(one - two)
            lines.append(f"{row} {way} - {base} {other}, seed {seed}: {_summary(gaps[-1])}")
        if len(gaps) > 1:
            spread = statistics.stdev(float(gap[0]) for gap in gaps)
            mean = _summary(np.mean(gaps, axis=0))
            lines.append(f"  mean of {len(gaps)} seeds {mean}; standard deviation {spread:.2f}")
    return lines


def _summary(gap: np.ndarray) -> str:
    """A difference, float64 [1 + draws]: of the test set, and of the resampled ones."""
    low, high = np.percentile(gap[1:], [2.5, 97.5])
    return f"{gap[0]:+.2f} BLEU, 95 % of paired resampled test sets {low:+.2f} to {high:+.2f}"


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
        "python -m benchmarks.multi30k",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
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
