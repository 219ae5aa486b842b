"""The demo: text -> shards -> pretraining -> fine-tuning -> five ways of decoding -> one table."""

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from januslm.cli.command import program
from januslm.launch.commands import Options, code_of, module
from januslm.launch.environment import environment, has_gpu
from januslm.launch.job import planned
from januslm.launch.train import log_line, train

RUN = Path("runs/tiny/docsum")
WAYS = (
    ("greedy",),
    ("beam", "beam=5"),
    ("mask_predict", "iterations=1"),
    ("mask_predict", "iterations=4"),
    ("mask_predict", "iterations=10"),
)


def demo(options: Options) -> int:
    """All steps where the user stands; ends with the code of the first that fails."""
    began = time.monotonic()
    if not options.gpus and not has_gpu():
        options = replace(options, gpus=2)
    steps = (
        ("Corpus: documentation of the installed packages -> tokenizer -> token shards", _corpus),
        ("Pretraining JANUS under DeepSpeed (pretrain/runs/tiny.toml)", _pretrain),
        ("Fine-tuning: documentation bodies -> summary lines (finetune/runs/docsum.toml)", _tune),
        ("Decoding 200 texts of packages that no training text came from, one at a time", _decode),
        ("Scores", _score),
    )
    for number, (title, step) in enumerate(steps, 1):
        if options.dry:
            print(f"# {title}")
        else:
            log_line(f"{number}/{len(steps)}  {title}")
        if code := step(options):
            return code
    if options.dry:
        return 0
    minutes, seconds = divmod(int(time.monotonic() - began), 60)
    log_line(f"The demo took {minutes} m {seconds} s; all of it lies in runs/tiny and corpora/.")
    log_line(f"Curves and decoded samples: {program()} tensorboard runs/tiny")
    return 0


def _run(options: Options, name: str, *words: str) -> int:
    return code_of(module(name, *words), environment(), options.dry)


def _corpus(options: Options) -> int:
    return _run(options, "data_tools", "build", "docstrings") or _run(
        options, "data_tools", "summaries", "corpora/docsum"
    )


def _pretrain(options: Options) -> int:
    return _train("pretrain", "tiny", options)


def _tune(options: Options) -> int:
    return _train("finetune", "docsum", options)


def _train(verb: str, run: str, options: Options) -> int:
    if options.dry:  # what it takes is known when the step before it is done
        planned(verb, [run], options).show()
        return 0
    return train(verb, [run], options)


def _decode(options: Options) -> int:
    return next((code for way in WAYS if (code := _decode_once(options, way))), 0)


def _decode_once(options: Options, way: Sequence[str]) -> int:
    """Decode the demo's test texts unless predictions newer than the model are there."""
    name = ".".join([way[0], "limit-200", *(word.replace("=", "-") for word in way[1:])])
    out, model = RUN / "predictions" / f"test.{name}.jsonl", RUN / "export" / "model.safetensors"
    if out.is_file() and model.is_file() and out.stat().st_mtime > model.stat().st_mtime:
        print(f"reused: {out}", flush=True)
        return 0
    if not options.dry:
        print(*way, flush=True)
    limits = ("--limit", "200", "--batch", "1", "--threads", "1")
    return _run(options, "finetune.generate", str(RUN), "--algorithm", *way, *limits)


def _score(options: Options) -> int:
    return _run(options, "finetune.evaluate", str(RUN / "predictions"))
