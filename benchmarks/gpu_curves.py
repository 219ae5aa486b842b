"""Do FlexAttention and bf16 learn as dense attention and fp32 do?  JANUS in each, side by side.

`python -m benchmarks.gpu_curves [--updates 200] [--check]`
Multi30k, the same seed, order and noise; dropout differs, as its draws depend on the attention.
Validation losses of the same batches; result: benchmarks/results/gpu_curves.json.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.cli_runs import ROOT
from benchmarks.record import record

# What differs: a file of ds_configs/, and slots per row (0: dense plans).
RUNS = {
    "bf16 flex": ("zero1_bf16", 8192),
    "bf16 dense": ("zero1_bf16", 0),
    "fp32 dense": ("cpu_fp32", 0),
}
TRUTH = "fp32 dense"
APART = 0.02  # of a cross-entropy, at the last validation


def lines(path: Path) -> list[dict]:
    """A run's records, a table each."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def trained(updates: int, folder: Path, changes: list[str]) -> bool:
    """All runs at the same time; whether they came to their end."""
    shape = {"steps": updates, "validate_every": max(1, updates // 5), "exports": 0}
    command = [
        ROOT / "launch.sh",
        "finetune",
        "finetune/runs/multi30k_janus.toml",
        "--gpus",
        "1",
        *(f"train.{key}={value}" for key, value in shape.items()),
        f"schedule.warmup={updates // 2}",
        "packing.samples=0",
        *changes,
    ]
    started = [
        subprocess.Popen(
            [
                *command,
                f"out={folder / name.replace(' ', '_')}",
                "--ds",
                f"ds_configs/{ds}.json",
                f"packing.row={row}",
            ]
        )
        for name, (ds, row) in RUNS.items()
    ]
    return not any([process.wait() for process in started])


def main() -> int:
    """0; 1 where a run does not end, or with --check where the curves come apart."""
    parser = argparse.ArgumentParser(
        "python -m benchmarks.gpu_curves",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--updates", type=int, default=200)
    parser.add_argument("--check", action="store_true", help=f"exit with 1 over {APART:.0%}% apart")
    parser.add_argument("changes", nargs="*", metavar="key=value", help="of the run file")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        if not trained(asked.updates, Path(folder), asked.changes):
            return 1
        where = {name: Path(folder) / name.replace(" ", "_") for name in RUNS}
        curves = {name: lines(run / "valid.jsonl") for name, run in where.items()}
        pace = {
            name: statistics.median(r["seconds_per_step"] for r in lines(run / "train.jsonl"))
            for name, run in where.items()
        }
    terms = [name for name in curves[TRUTH][-1] if name.startswith("ce/")]
    apart = {
        name: {term: curve[-1][term] / curves[TRUTH][-1][term] - 1 for term in terms}
        for name, curve in curves.items()
    }
    print(f"after {asked.updates:,} updates" + "".join(f"{term:>18}" for term in terms))
    for name, curve in curves.items():
        cells = "".join(f"{curve[-1][t]:10.4f} {apart[name][t]:+7.2%}" for t in terms)
        print(f"{name:16}{1000 * pace[name]:6.0f} ms{cells}")
    facts = {"updates": asked.updates, "changes": asked.changes, "curves": curves, "apart": apart}
    print(f"written to {record('gpu_curves', facts | {'seconds_per_update': pace})}")
    return int(asked.check and any(abs(v) > APART for row in apart.values() for v in row.values()))


if __name__ == "__main__":
    sys.exit(main())
