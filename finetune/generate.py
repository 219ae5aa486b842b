"""Decode a task's texts: `python -m finetune.generate RUN --algorithm beam beam=5`."""

import argparse
import inspect
import json
import os
import sys
import time
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import torch

from finetune.data import Limits, sources
from finetune.pairs import Pair
from januslm import config, folder, learner
from januslm.config import Refused
from januslm.interop import native
from januslm.reading import Reader

SPOKEN = 3.0  # seconds between two lines of progress
ALGORITHMS = "januslm.decoding"


@dataclass(frozen=True)
class Decoded:
    """What came out, in the order of the task, and what it cost."""

    texts: list[str]
    seconds: float
    tokens: int
    passes: float


def main() -> int:
    options = _arguments()
    try:
        torch.set_num_threads(options.threads or torch.get_num_threads())
        written = generate(options)
    except Refused as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"wrote {written}")
    return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="./launch.sh generate",
        description="Decode a task's texts with a fine-tuned model. Options of the algorithm are "
        "key=value: beam=5 length_penalty=1.2 (beam), iterations=4 length_beam=3 (mask_predict); "
        "docs/decoding.md lists them.",
    )
    parser.add_argument("run", help="a fine-tuning run's folder, or its export/")
    parser.add_argument("options", nargs="*", metavar="key=value", help="options of the algorithm")
    names = ", ".join(folder.names(ALGORITHMS))
    parser.add_argument("--algorithm", default="greedy", help=names)
    parser.add_argument("--split", default="test", help="train, valid or test")
    parser.add_argument("--limit", type=int, help="only the first N texts")
    parser.add_argument("--batch", type=int, default=16, help="sentences at once; 1 for latency")
    parser.add_argument("--task", help="another task than the run was trained on")
    parser.add_argument("--data", help="where the task's files lie (default: as in training)")
    parser.add_argument("--threads", type=int, help="CPU threads (default: torch's)")
    parser.add_argument(
        "--out", type=Path, help="default: RUN/predictions/SPLIT.ALGORITHM....jsonl"
    )
    return parser.parse_intermixed_args()


def generate(options: argparse.Namespace) -> Path:
    """Decode and write predictions (JSONL) and their settings (JSON); returns the former's path."""
    saved = native.read(options.run)
    task_name = options.task or saved.about.get("task")
    if not task_name:
        raise Refused(f"{saved.folder}: was not trained on a task; name one with --task")
    task = folder.find("finetune.tasks", task_name)
    algorithm = folder.find(ALGORITHMS, options.algorithm)
    usual, given = usual_options(task, algorithm), changes(options.options)
    settings = folder.options(algorithm.decode, usual | given, options.algorithm)
    data = saved.about.get("data", {})
    root = options.data or data.get("root")
    if not root:
        raise Refused(f"{saved.folder}: does not say where the data lies; name it with --data")
    pairs = list(islice(task.read(Path(root), options.split), options.limit))
    most = saved.model.config.max_positions
    limits = Limits(data.get("max_source", most), data.get("max_target", most), "cut")
    arrays, cut = sources([p.source for p in pairs], saved.tokenizer, limits)
    told = {"name": saved.objective, **saved.options}
    special = saved.tokenizer.special
    objective = learner.settle(told, {}, learner.Loss(), "nmt", special, str(saved.folder))
    reader = Reader(_placed(saved.model), objective, packed=not torch.cuda.is_available())
    result = decode(reader, algorithm.decode, arrays, settings, options.batch, saved.tokenizer)
    out = options.out or _place(options, given)
    facts = {
        "algorithm": options.algorithm, "settings": settings, "checkpoint": str(saved.folder),
        "task": task_name, "split": options.split, "data": str(root), "sentences": len(pairs),
        "batch": options.batch, "threads": torch.get_num_threads(), "seconds": result.seconds,
        "ms_per_sentence": 1000 * result.seconds / max(len(pairs), 1), "tokens": result.tokens,
        "passes": result.passes, "truncated": cut, "limit": options.limit,
    }  # fmt: skip
    write(out, pairs, result.texts, facts)
    return out


def usual_options(task, algorithm) -> dict:
    """The task's decode settings, as far as this algorithm has such options."""
    known = inspect.signature(algorithm.decode).parameters
    return {k: v for k, v in task.DECODE.items() if k in known}


def changes(given: list[str]) -> dict:
    """key=value texts as a table."""
    tree: dict = {}
    for change in given:
        config.apply(tree, change)
    return tree


def _placed(model):
    """On the GPU in bf16 where there is one; in fp32 on the CPU, where bf16 is slower."""
    return model.cuda().bfloat16() if torch.cuda.is_available() else model


def _place(options: argparse.Namespace, given: dict) -> Path:
    run = Path(options.run)
    run = run.parent if run.name == "export" else run
    name = ".".join([options.split, options.algorithm, *(f"{k}-{v}" for k, v in given.items())])
    return run / "predictions" / f"{name}.jsonl"


def decode(
    reader: Reader, algorithm, arrays: list, settings: dict, batch: int, tokenizer
) -> Decoded:
    """Decode in batches of like length, longest first; answers come back in the order given."""
    order = np.argsort([-len(a) for a in arrays], kind="stable")
    outputs: list = [None] * len(arrays)
    began = spoken = time.monotonic()
    seconds = 0.0
    for start in range(0, len(order), batch):
        mine = order[start : start + batch]
        before = time.perf_counter()
        answers = algorithm(reader, [arrays[i] for i in mine], tokenizer.special, **settings)
        for i, output in zip(mine, answers, strict=True):
            outputs[i] = output
        seconds += time.perf_counter() - before
        now, done = time.monotonic(), start + len(mine)
        if now - spoken > SPOKEN or done == len(order):
            left = (now - began) / done * (len(order) - done)
            pace = f"{1000 * seconds / done:.1f} ms per sentence | eta {left:.0f} s"
            print(f"decoded {done:,}/{len(order):,} | {pace}", flush=True)
            spoken = now
    texts = [" ".join(tokenizer.decode(o.tokens).split()) for o in outputs]
    tokens, passes = sum(len(o.tokens) for o in outputs), sum(o.passes for o in outputs)
    return Decoded(texts, seconds, tokens, passes / max(len(outputs), 1))


def write(out: Path, pairs: list[Pair], texts: list[str], facts: dict) -> None:
    """One JSON object a line, in the order of the task; renamed into place when complete."""
    out.parent.mkdir(parents=True, exist_ok=True)
    aside = out.with_name(f".{out.name}")
    with aside.open("w", encoding="utf-8") as file:
        for pair, text in zip(pairs, texts, strict=True):
            line = {
                "id": pair.id,
                "source": pair.source,
                "prediction": text,
                "references": pair.targets,
            }
            file.write(json.dumps(line, ensure_ascii=False) + "\n")
    out.with_suffix(".json").write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
    os.replace(aside, out)


if __name__ == "__main__":
    sys.exit(main())
