"""Every objective at one size, on the same shards, for as many target words; then the same tasks.

  python -m benchmarks.objectives run [ROW ...]      pretrains, fine-tunes and scores; goes on
  python -m benchmarks.objectives table              the table of all rows that are scored

Options of `run`: --updates N of pretraining (1,500 of 32 x 48 target tokens), --tune N of each
fine-tuning (600), --limit N texts of each test set, --seed N, --data FOLDER with scitldr/ and
squad_qg/ (../shared/data).
A row is an objective as it is pretrained and what reads its weights: AR and NAR.  Where a paper
fine-tunes with streams of its own, so does its row; else AR is `ar` and NAR is `cmlm`.  `none` is
the same model without pretraining.  Results: benchmarks/results/objectives_ROW.json.
"""

import argparse
import gzip
import json
import statistics
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.cli_runs import ROOT, Way, scores, write
from benchmarks.record import FOLDER, record
from januslm.cli.table import drawn
from januslm.config import Refused, suggest

OUT = ROOT / "runs" / "objectives"
AR = Way("AR beam 5", "beam", {"beam": 5})
NAR = Way("NAR 4", "mask_predict", {"iterations": 4, "length_beam": 3})


@dataclass(frozen=True)
class Reader:
    """How weights are fine-tuned, and the ways in which the model then writes."""

    name: str
    changes: tuple[str, ...]
    ways: tuple[Way, ...]


def _reader(name: str, objective: str, *ways: Way, more: Sequence[str] = ()) -> Reader:
    return Reader(name, (f"objective.name={objective}", *more), ways)


AS_AR, AS_NAR = _reader("ar", "ar", AR), _reader("nar", "cmlm", NAR)
SPECULATIVE, DRAFT = Way("speculative", "speculative"), Way("draft", "draft")
# Row: what is pretrained ((): nothing), and what reads its weights.
ROWS: dict[str, tuple[tuple[str, ...], tuple[Reader, ...]]] = {
    "none": ((), (AS_AR, AS_NAR)),
    "mlm": (("objective.name=mlm",), (AS_AR, AS_NAR)),
    "bart": (("objective.name=ar",), (AS_AR, AS_NAR)),
    "xlnet": (("objective.name=xlnet",), (AS_AR, AS_NAR)),
    "mpnet": (("objective.name=mpnet",), (AS_AR, AS_NAR)),
    "prophetnet": (
        ("objective.name=prophetnet",),
        (_reader("ar", "prophetnet", AR), AS_NAR),
    ),
    "bang": (
        ("objective.name=bang",),
        (
            _reader("ar", "bang", AR, more=("objective.way=ar",)),
            _reader("nar", "bang", Way("NAR 1", "one_pass"), more=("objective.way=nar",)),
        ),
    ),
    "cmlm": (("objective.name=cmlm",), (AS_AR, AS_NAR)),
    "janus": (("objective.name=janus",), (_reader("both", "janus", AR, NAR, SPECULATIVE),)),
    "janus_free": (
        ("objective.name=janus", "objective.free=true"),
        (_reader("both", "janus", AR, NAR, SPECULATIVE),),
    ),
    "block": (
        ("objective.name=block",),
        (_reader("both", "block", AR, DRAFT, Way("blocks of 8", "blockwise")),),
    ),
}
TASKS = {
    "scitldr": ("finetune/runs/scitldr.toml", ()),
    "squad_qg": ("finetune/runs/pairs.toml", ('task_options.metrics=["bleu","rouge"]',)),
}
EVERY = 3  # fine-tunings are validated so many times, the best checkpoint writes


def run(row: str, asked: argparse.Namespace) -> Path:
    """Pretrain a row, fine-tune it on each task and score it; returns where the numbers lie."""
    changes, readers = ROWS[row]
    folder, results = OUT / f"{row}-{asked.seed}", {}
    start = ""
    if changes:
        start = str(folder / "pretrain")
        _launch(
            "pretrain",
            "pretrain/runs/tiny.toml",
            f"out={start}",
            f"train.steps={asked.updates}",
            f"train.seed={asked.seed}",
            f"schedule.warmup={max(1, asked.updates // 20)}",
            *changes,
        )
        results["pretraining"] = _pretraining(Path(start))
    for task in TASKS:
        for reader in readers:
            name = f"{task} {reader.name}"
            results[name] = _tuned(folder / f"{task}-{reader.name}", task, reader, start, asked)
    return record(
        f"objectives_{row}" + f"-{asked.seed}" * (asked.seed > 1),
        {key: getattr(asked, key) for key in ("seed", "updates", "tune", "limit")}
        | {"row": row}
        | results,
    )


def _pretraining(folder: Path) -> dict:
    """Validation at the end, seconds of an update in the middle of all, memory."""
    last = _lines(folder / "valid.jsonl")[-1]
    steps = _lines(folder / "train.jsonl")
    return {
        "validation": {k: v for k, v in last.items() if "/" in k},
        "update_seconds": statistics.median(s["seconds_per_step"] for s in steps[1:] or steps),
        "memory_gb": max(s["memory_gb"] for s in steps),
        "samples": steps[-1]["samples"],
    }


def _lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def _tuned(folder: Path, task: str, reader: Reader, start: str, asked) -> dict:
    """Scores of each way, with half of their 95 % intervals."""
    file, more = TASKS[task]
    data = _data(task, Path(asked.data))
    _launch(
        "finetune",
        file,
        f"out={folder}",
        f"start={start}",
        f"train.steps={asked.tune}",
        f"train.validate_every={max(1, asked.tune // EVERY)}",
        f"train.seed={asked.seed}",
        f"schedule.warmup={max(1, asked.tune // 10)}",
        *([] if start else ["model.preset=tiny", "tokenizer=corpora/docstrings/tokenizer.json"]),
        *data,
        *more,
        *reader.changes,
    )
    where = ["--threads", "1", *(["--limit", str(asked.limit)] if asked.limit else [])]
    predictions = folder / "predictions"
    passes = {}
    for way in reader.ways:
        made = write(str(folder), way, predictions, where, gpu=False)
        passes[made.facts["file"]] = way.name, made.facts["passes"]
    found = scores(predictions, [])
    return {
        name: {"passes": count, "scores": found[name_of]}
        for name_of, (name, count) in passes.items()
    }


def _data(task: str, root: Path) -> list[str]:
    """Changes that name a task's data; SQuAD's two files become one, split by its sources."""
    if task == "scitldr":
        return [f"data.root={root}"]
    made = OUT / "squad_qg.jsonl"
    if not made.exists():
        made.parent.mkdir(parents=True, exist_ok=True)
        sides = [_texts(root / task / f"dev.{side}.gz") for side in ("src", "tgt")]
        rows = [{"source": a, "target": b} for a, b in zip(*sides, strict=True)]
        made.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return [
        f"task_options.train={made}",
        "task_options.source=source",
        "task_options.target=target",
        'task_options.id=""',
        "task_options.baseline=lead",
    ]


def _texts(path: Path) -> list[str]:
    with gzip.open(path, "rt", encoding="utf-8") as file:
        return [line.strip() for line in file]


def _launch(verb: str, *words: str) -> None:
    """A command of launch.sh; Refused where it does not come to its end."""
    done = subprocess.run([ROOT / "launch.sh", verb, *words])
    if done.returncode:
        raise Refused(f"{verb} {words[1]} ended with {done.returncode}; its last lines say why")


def table() -> str:
    """A line for each row and way: pretraining's loss and cost, and the scores of each task."""
    paths = sorted(FOLDER.glob("objectives_*.json"))
    found = [json.loads(path.read_text(encoding="utf-8"))["results"] for path in paths]
    if not found:
        raise Refused(f"{FOLDER}: nothing is scored yet; `run` does it")
    order = list(ROWS)
    lines = [("row", "validation", "s/update", "GB", "task", "way", "passes", "scores")]
    for one in sorted(found, key=lambda one: (order.index(one["row"]), one["seed"])):
        facts = one.get("pretraining", {})
        losses = ", ".join(
            f"{k} {v:.3f}"
            for k, v in facts.get("validation", {}).items()
            if k[:3] in ("ce/", "acc")
        )
        head = (
            f"{one['row']}, seed {one['seed']}",
            losses or "-",
            f"{facts['update_seconds']:.2f}" if facts else "-",
            f"{facts['memory_gb']:.1f}" if facts else "-",
        )
        for task, way, made in _ways(one):
            values = ", ".join(_score(name, *pair) for name, pair in made["scores"].items())
            lines.append((*head, task, way, f"{made['passes']:.1f}", values))
            head = ("", "", "", "")
    return drawn(lines)


def _ways(one: dict):
    for name, ways in one.items():
        if name.partition(" ")[0] in TASKS:
            yield from ((name.partition(" ")[0], way, made) for way, made in ways.items())


def _score(name: str, value: float, half: float | None) -> str:
    return f"{name} {value:.2f}" + (f" \u00b1{half:.2f}" if half else "")


def main(given: Sequence[str] | None = None) -> int:
    """Exit code 0, or 2 and one line on stderr."""
    parser = argparse.ArgumentParser(
        "python -m benchmarks.objectives",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("verb", choices=("run", "table"))
    parser.add_argument("rows", nargs="*", metavar="ROW", help=", ".join(ROWS))
    parser.add_argument("--updates", type=int, default=1500)
    parser.add_argument("--tune", type=int, default=600)
    parser.add_argument("--limit", type=int, default=0, help="texts of each test set; 0: all")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--data", default="../shared/data")
    asked = parser.parse_args(given)
    try:
        if wrong := [row for row in asked.rows if row not in ROWS]:
            raise Refused(f"no row {wrong[0]!r}{suggest(wrong[0], ROWS)}")
        if asked.verb == "run":
            for row in asked.rows or ROWS:
                print(f"written to {run(row, asked)}", flush=True)
        print(table())
    except Refused as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
