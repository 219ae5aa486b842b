"""Decoding speed, at forced lengths against other programs, or of a trained model with its quality.

`python -m benchmarks.decode_speed [--quick] [--check]`
    Ours, Hugging Face's generate and CTranslate2 (`pip install -e '.[bench]'`) run one BART of
    48 M parameters with random weights, every output forced to the same length.

`python -m benchmarks.decode_speed --run RUN [--split S] [--limit N] [--check]`
    Every way of writing that a trained run knows, at natural lengths: scores with intervals,
    latency (p50, p95) at batch 1, throughput by batch, passes, and whether speculative writes
    greedy's texts.

One process, one thread, fp32, CPU time, systems in turns, medians of paired ratios; on a CUDA
device bf16 and synchronised wall time (floors are for the CPU).  Results: benchmarks/results/.
"""

import argparse
import sys
import tempfile
from pathlib import Path

import torch

from benchmarks import decode_trained, decode_vs_others, speed_table
from benchmarks.record import record
from januslm.config import Refused


def main() -> int:
    """0; 1 with --check where a floor is missed; 2 and one line for a mistake of the user's."""
    asked = _arguments()
    torch.set_num_threads(1)
    try:
        device = _checked(asked)
        results, missed = _natural(asked, device) if asked.run else _forced(asked, device)
    except Refused as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    if device.type == "cuda":
        results["gpu"] = torch.cuda.get_device_name(device)
    name = "decode_trained" if asked.run else "decode_speed"
    few = asked.limit or (asked.rounds or 5) < 5 or (asked.timed or 48) < 48
    name += "_tried" * bool(few and device.type == "cpu")  # not to be taken for the record
    name += "_quick" * asked.quick + "_cuda" * (device.type == "cuda") + "_graphs" * asked.graphs
    print(f"\nwritten to {record(name, results | {'below_the_floor': missed})}")
    for line in missed:
        print(f"below the floor: {line}")
    return int(bool(missed) and asked.check)


def _forced(asked: argparse.Namespace, device: torch.device) -> tuple[dict, list[str]]:
    rounds, warm = (3, 1) if asked.quick else (7, 3)
    return decode_vs_others.run(asked.rounds or rounds, warm, asked.quick, device, asked.graphs)


def _natural(asked: argparse.Namespace, device: torch.device) -> tuple[dict, list[str]]:
    """A folder for what the commands write, which goes when all is counted."""
    given = {"--task": asked.task, "--data": asked.data}
    where = [word for key, value in given.items() if value for word in (key, value)]
    limit = asked.limit or (50 if asked.quick else None)
    where += ["--split", asked.split, "--threads", "1", *["--graphs"] * asked.graphs]
    where += ["--limit", str(limit)] if limit else []
    data = ["--data", asked.data] if asked.data else []
    rounds, warm = (3, 1) if asked.quick else (5, 3)
    count = asked.timed or (10 if asked.quick else 128)
    with tempfile.TemporaryDirectory() as folder:
        results, missed = decode_trained.run(
            asked.run,
            Path(folder),
            where,
            data,
            count,
            asked.rounds or rounds,
            warm,
            device,
            asked.graphs,
        )
    results = {"task": asked.task, "split": asked.split, "limit": limit} | results
    speed_table.show(results)
    return results, missed


def _checked(asked: argparse.Namespace) -> torch.device:
    """The device; Refused for what cannot be measured."""
    if asked.device == "cuda" and not torch.cuda.is_available():
        raise Refused("--device cuda: there is no CUDA device")
    if asked.graphs and asked.device != "cuda":
        raise Refused("--graphs: only a CUDA device captures graphs")
    for name in ("limit", "timed", "rounds"):
        if (value := getattr(asked, name)) is not None and value < 1:
            raise Refused(f"--{name} must be at least 1, got {value}")
    if not asked.run and (asked.limit or asked.timed or asked.task or asked.data):
        raise Refused("--limit, --timed, --task and --data go with --run")
    return torch.device(asked.device)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        "python -m benchmarks.decode_speed",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--run", help="a fine-tuning run's folder, or an export of it")
    parser.add_argument("--split", default="test", help="train, valid or test")
    parser.add_argument("--limit", type=int, help="only the first N texts of the split")
    parser.add_argument("--timed", type=int, help="how many of them are timed (128)")
    parser.add_argument("--task", help="another task than the run was trained on")
    parser.add_argument("--data", help="where the task's files lie (default: as in training)")
    parser.add_argument("--rounds", type=int, help="rounds that count (7; 5 with --run)")
    parser.add_argument("--quick", action="store_true", help="fewer rounds and sentences")
    parser.add_argument("--check", action="store_true", help="exit with 1 if a floor is missed")
    parser.add_argument("--graphs", action="store_true", help="CUDA: capture our passes as graphs")
    cuda = "cuda" if torch.cuda.is_available() else "cpu"
    parser.add_argument("--device", choices=("cpu", "cuda"), default=cuda, help=f"({cuda})")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
