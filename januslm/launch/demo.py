"""The demo: text -> shards -> pretraining -> fine-tuning -> five ways to write -> one table."""

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from januslm.cli.command import Parser, program
from januslm.config import Refused
from januslm.launch.commands import Options, code_of, module
from januslm.launch.environment import environment, has_gpu
from januslm.launch.job import planned
from januslm.launch.train import log_line, train

CORPUS = "docstrings"
PAIRS = "corpora/restore"
RUN = Path("runs/demo/restore")
REPORT = "runs/demo/report.html"
TEXTS = 200  # of the test set
WAYS = (
    ("greedy",),
    ("mask_predict", "iterations=1", "length_beam=1"),
    ("mask_predict", "iterations=4", "length_beam=1"),
    ("mask_predict", "iterations=10"),
    ("speculative", "--verify"),
)
SAID = (  # sentences of nobody's documentation, damaged by hand
    "the file is open ed for reading andclosed when the last line has been read",
    "if the list is empty a value error israised",
    "returns the num ber of words in thetext which must not be none",
)


def demo(words: Sequence[str], options: Options) -> int:
    """All steps where the user stands; ends with the code of the first that fails."""
    texts = _said(words) or SAID
    began = time.monotonic()
    if not options.gpus and not has_gpu():
        options = replace(options, gpus=2)
    steps = (
        ("Corpus: documentation of the installed packages -> tokenizer -> token shards", _corpus),
        ("Pretraining JANUS under DeepSpeed (pretrain/runs/demo.toml)", _pretrain),
        ("Fine-tuning: damaged sentences -> the same restored (finetune/runs/restore.toml)", _tune),
        (f"Decoding {TEXTS} sentences of a package that nothing was trained on", _decode),
        ("Scores, beside the source as it is and a rule", _score),
        ("Damaged sentences, restored three ways", lambda options: _write(options, texts)),
        (f"A report of all of it, for a browser: {REPORT}", _report),
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
    log_line(f"The demo took {minutes} m {seconds} s; all of it lies in {RUN.parent} and corpora/.")
    log_line(f'A sentence of yours: {program()} demo --say "..." or {program()} write {RUN}')
    log_line(f"Curves and decoded samples: {program()} tensorboard {RUN.parent}")
    return 0


def _said(words: Sequence[str]) -> tuple[str, ...]:
    """The sentences of --say TEXT; Refused for whatever else there is."""
    known = Parser(f"{program()} demo", add_help=False, allow_abbrev=False)
    known.add_argument("--say", action="append", default=[])
    given, rest = known.parse_known_args(words)
    if rest:
        raise Refused(f"demo takes no {rest[0]!r}; {program()} demo --help tells more")
    texts = tuple(" ".join(text.split()) for text in given.say)
    if "" in texts:
        raise Refused("--say must be a sentence, got nothing")
    if not "".join(texts).isprintable():  # half of a letter's bytes, too
        raise Refused(f"--say must be text of printable letters, got {given.say}")
    return texts


def _run(options: Options, name: str, *words: str, stdin: str = "") -> int:
    return code_of(module(name, *words), environment(), options.dry, stdin)


def _corpus(options: Options) -> int:
    return _run(options, "data_tools", "build", CORPUS) or _run(
        options, "data_tools", "damaged", PAIRS
    )


def _pretrain(options: Options) -> int:
    return _train("pretrain", "demo", options)


def _tune(options: Options) -> int:
    return _train("finetune", "restore", options)


def _train(verb: str, run: str, options: Options) -> int:
    if options.dry:  # what it takes is known when the step before it is done
        planned(verb, [run], options).show()
        return 0
    return train(verb, [run], options)


def _decode(options: Options) -> int:
    return next((code for way in WAYS if (code := _decode_once(options, way))), 0)


def _decode_once(options: Options, way: Sequence[str]) -> int:
    """Decode the demo's test texts unless predictions newer than the model are there."""
    given = [word.replace("=", "-") for word in way[1:] if "=" in word]
    name = ".".join([way[0], f"limit-{TEXTS}", *given])
    out, model = RUN / "predictions" / f"test.{name}.jsonl", RUN / "export" / "model.safetensors"
    if out.is_file() and model.is_file() and out.stat().st_mtime > model.stat().st_mtime:
        print(f"reused: {out}", flush=True)
        return 0
    if not options.dry:
        print(*way, flush=True)
    # One at a time, as a reader waits for them.
    limits = ("--limit", str(TEXTS), "--batch", "1", "--threads", "1")
    return _run(options, "finetune.generate", str(RUN), "--algorithm", *way, *limits)


def _score(options: Options) -> int:
    return _run(options, "finetune.evaluate", str(RUN / "predictions"))


def _write(options: Options, texts: Sequence[str]) -> int:
    lines = "".join(f"{text}\n" for text in texts)
    return _run(options, "finetune.write", str(RUN), "--threads", "1", stdin=lines)


def _report(options: Options) -> int:
    return _run(options, "finetune.report", "runs/demo/pretrain", str(RUN), "-o", REPORT)
