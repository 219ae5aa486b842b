"""Does bf16 learn as fp32 does?  One JANUS run in both, side by side, and how far they come apart.

`python -m benchmarks.bf16_curve [--updates 300] [--check]`
Multi30k, the same seed, data order and noise; validation losses every tenth of the way, by the same
batches.  Result: benchmarks/results/bf16_curve.json.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.product import ROOT
from benchmarks.record import record

FILES = {"bf16": "zero1_bf16", "fp32": "cpu_fp32"}
APART = 0.02  # of the loss, at the last validation


def curve(run: Path) -> list[dict]:
    """The validations of a run, a table of losses each."""
    return [json.loads(line) for line in (run / "valid.jsonl").read_text().splitlines()]


def main() -> int:
    """0; 1 with --check where the curves come apart, or where a run does not end."""
    parser = argparse.ArgumentParser(
        "python -m benchmarks.bf16_curve", description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("--updates", type=int, default=300)
    parser.add_argument("--check", action="store_true", help=f"exit with 1 over {APART:.0%} apart")
    parser.add_argument("changes", nargs="*", metavar="key=value", help="of the run file")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        command = [
            ROOT / "launch.sh", "finetune", "finetune/runs/multi30k_janus.toml", "--gpus", "1",
            f"train.steps={asked.updates}", f"train.validate_every={max(1, asked.updates // 10)}",
            "schedule.warmup=100", "train.exports=0", "packing.samples=0", *asked.changes,
        ]  # fmt: skip
        started = {
            name: subprocess.Popen(
                [*command, f"out={folder}/{name}", "--ds", f"ds_configs/{file}.json"]
            )
            for name, file in FILES.items()
        }
        if any([process.wait() for process in started.values()]):
            return 1
        curves = {name: curve(Path(folder) / name) for name in FILES}
    terms = [name for name in curves["fp32"][0] if name not in ("step", "time")]
    print(f"{'update':>8}" + "".join(f"{f'{term} {kind}':>20}" for term in terms for kind in FILES))
    for half, full in zip(curves["bf16"], curves["fp32"], strict=True):
        cells = "".join(f"{row[term]:20.4f}" for term in terms for row in (half, full))
        print(f"{full['step']:8,}{cells}")
    last = {term: curves["bf16"][-1][term] / curves["fp32"][-1][term] - 1 for term in terms}
    print("bf16 over fp32 at the end: " + ", ".join(f"{t} {v:+.2%}" for t, v in last.items()))
    facts = {"updates": asked.updates, "changes": asked.changes, "curves": curves, "apart": last}
    print(f"written to {record('bf16_curve', facts)}")
    return int(asked.check and any(abs(last[t]) > APART for t in terms if t.startswith("ce/")))


if __name__ == "__main__":
    sys.exit(main())
