"""Spoils run files, DeepSpeed JSON, state files and arguments, and hands them to every command.

A command may succeed (code 0, and 1 where it says so) or end with code 2 and one line on stderr
that begins with "error: ".  Anything else is a failure: a traceback, a hang, another line.

  python -m benchmarks.fuzz --cases 20000
  python -m benchmarks.fuzz --only generate --cases 500
  python -m benchmarks.fuzz --case 1234 --keep /tmp/case     one case again, and its folder
"""

import argparse
import contextlib
import gc
import json
import multiprocessing
import os
import re
import resource
import runpy
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import tomllib
import traceback
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from random import Random

from benchmarks import fuzz_inputs, fuzz_mutations
from januslm.cli.table import drawn

ROOT = fuzz_inputs.ROOT
SECONDS, CPU_SECONDS = 300, 30  # that a case may take: by the clock of a busy machine, of its own
MEMORY = 2 << 30  # bytes of its own
PROGRESS = re.compile(r"^[^:]+: [\d,]+/[\d,]+ ")  # januslm/cli/progress.py, in a log
OK, REFUSED = "ok", "refused"


@dataclass(frozen=True)
class Command:
    """A command that works on the folder of benchmarks/fuzz_inputs.py, and what may be spoiled."""

    module: str
    words: tuple[str, ...]
    files: tuple[str, ...] = ()  # patterns of what it reads
    options: tuple[str, ...] = ()  # that may be added
    changes: str = ""  # the TOML whose keys key=value may change
    codes: tuple[int, ...] = (0,)  # of success
    share: int = 1  # how often it has its turn
    always: tuple[str, ...] = ()  # words that nothing takes away: else it would train for real


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


BUILT = ("corpus/*.jsonl", "corpus/*/*")
MODEL = ("model/export/*", "data/*")
WAYS = ("greedy", "beam", "sample", "mask_predict", "semi", "speculative")
DECODE = _words(
    "beam=100000 beam=3 n_best=2 n_best=9 max_length=9 min_length=99 length_penalty=nan top_k=0 "
    "iterations=0 iterations=5 length_beam=3 length_beam=99999 rescore=true lengths=around top_p=2 "
    "temperature=0 seed=1099511627776 samples=3 samples=1000000 block=3 no_repeat_ngram=2 "
    "max_ratio=0.5 early_stop=false mode=x a=1"
)
GENERATE = (
    *(f"--algorithm={way}" for way in WAYS),
    *DECODE,
    *_words("--limit --batch --threads --precision=bf16 --precision --verify --graphs --split"),
    *_words("--longer=refuse --task --data --task=xsum --out --limit=3 --split=train --batch=1"),
)
EVALUATE = _words(
    "--intervals --compare --metric=bleu --metric --metric=rouge:level=word --task --data=data "
    "--data --examples --metric=bleu:mode=sacre --metric=distinct"
)
START = _words("--check --ds --ds=zero1_bf16 --data train.batch=1 --local_rank")
MADE = _words("--fresh processes=2 --mpi")
COMMANDS = {
    "pretrain": Command(
        "pretrain",
        ("pre.toml", "--check", "2", "--ds", "ds.json"),
        ("pre.toml", "pre.toml", "pre.toml", "ds.json", "ds.json", *BUILT, "tokenizer.json"),
        START,
        "pre.toml",
        share=16,
    ),
    "finetune": Command(
        "finetune",
        ("tune.toml", "--check", "2"),
        ("tune.toml", "tune.toml", "tune.toml", *MODEL),
        START,
        "tune.toml",
        share=12,
    ),
    "generate": Command(
        "finetune.generate", ("model", "--threads", "1"), MODEL, GENERATE, codes=(0, 1), share=5
    ),
    "evaluate": Command(
        "finetune.evaluate", ("model",), ("model/predictions/*", "data/*"), tuple(EVALUATE), share=6
    ),
    "evaluate glge": Command(
        "finetune.evaluate",
        ("glge", "glge"),
        ("glge/*",),
        ("--algorithm", "--data", "--version", "--intervals"),
        share=4,
    ),
    "distill": Command(
        "finetune.distill",
        ("model", "out", "--threads", "1", "--portion", "3", "max_length=8"),
        MODEL,
        ("--batch", "--portion", "--limit", "--task", "--data", "--threads", *DECODE[:8]),
        share=1,
    ),
    "average": Command(
        "finetune.average",
        ("model", "out", "--best", "2"),
        ("model/exports/*/*", "model/valid.jsonl"),
        ("--last", "--best", "--by", "--by=ce/ar", "--last=2"),
        share=4,
    ),
    "interop bart": Command("januslm.interop", ("bart", "bart", "out"), ("bart/*",), share=2),
    "export": Command("januslm.hub", ("export", "ar", "out"), ("ar/export/*",), share=2),
    "data build": Command(
        "data_tools",
        ("build", "corpus.toml", "out=new"),
        ("corpus.toml", "corpus.toml", "text/*", "tokenizer.json"),
        MADE,
        "corpus.toml",
        share=3,
    ),
    "data build, gone on": Command(
        "data_tools",
        ("build", "corpus.toml", "out=half"),
        ("half/*.jsonl", "half/parts/*"),
        share=2,
    ),
    "data build, done": Command(
        "data_tools", ("build", "corpus.toml"), BUILT, MADE, "corpus.toml", share=2
    ),
    "data tokenizer": Command(
        "data_tools",
        ("tokenizer", "corpus.toml", "tokenizer=new.json"),
        ("corpus.toml", "text/*"),
        ("--fresh",),
        "corpus.toml",
        share=1,
    ),
    "data verify": Command(
        "data_tools", ("verify", "corpus"), BUILT, ("--tokenizer", "--tokenizer=x.json"), share=5
    ),
    "data inspect": Command(
        "data_tools",
        ("inspect", "corpus", "2", "--tokenizer", "tokenizer.json"),
        (*BUILT, "tokenizer.json"),
        share=3,
    ),
    "data summaries": Command(
        "data_tools",
        _words("summaries out --train tqdm --valid markdown --test packaging --processes 1"),
        (),
        ("--most", "--processes", "--train", "--test=packaging,tqdm"),
        share=1,
    ),
    "data damaged": Command(
        "data_tools",
        _words("damaged out --train tqdm --valid markdown --test packaging --processes 1"),
        (),
        ("--most", "--processes", "--train", "--test=packaging,tqdm"),
        share=1,
    ),
    "data glge": Command(
        "finetune.glge.prepare",
        ("prepare", "--archive", "glge.zip", "--out", "out"),
        ("glge.zip",),
        ("--partial", "--archive", "--out", "--archive=text"),
        share=4,
    ),
    "launch": Command(
        "januslm.launch",
        ("pretrain", "pre.toml"),
        ("pre.toml", "hosts"),
        ("--gpus", "--gpus=100000", "--hostfile", "--hostfile=hosts", "--ds", "--dry-run", "help"),
        "pre.toml",
        always=("--dry-run",),
        share=6,
    ),
    # Seconds a case: only where it is asked for, by --only train.
    "train": Command(
        "pretrain",
        ("pre.toml", "--ds", "ds.json"),
        ("pre.toml", "pre.toml", "ds.json", "ds.json", *BUILT),
        ("--ds", "--ds=zero1_bf16"),
        "pre.toml",
        share=0,
        always=("train.steps=2", "packing.samples=0"),
    ),
    "objectives": Command(
        "januslm.objectives",
        ("janus", "read=past"),
        (),
        ("query_position=target", "ends=true"),
        share=2,
    ),
}


@dataclass(frozen=True)
class Case:
    """One case: what was run, what was spoiled, and how it ended."""

    number: int
    command: str
    words: list[str]
    spoiled: list[str]
    code: int = 0
    failure: str = ""  # exception and place, or what else is wrong; "" where nothing is
    said: str = ""
    seconds: float = 0.0


def main() -> int:
    given = _arguments()
    chosen = [name for name in COMMANDS if name.startswith(given.only)]
    if chosen == ["train"]:
        COMMANDS["train"] = replace(COMMANDS["train"], share=1)
    if not chosen:
        print(f"no command {given.only!r}; there are {', '.join(COMMANDS)}", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory(prefix="januslm-fuzz-", dir=given.folder) as place:
        base = Path(place, "base")
        fuzz_inputs.make(base)
        one = partial(run_case, base=base, seed=given.seed, commands=chosen, real=given.real)
        if given.case is not None:
            case = one(given.case, keep=given.keep)
            print(json.dumps(vars(case), indent=1))
            return int(bool(case.failure))
        return _report(_all(one, range(given.cases), given.processes), given.log)


def _arguments() -> argparse.Namespace:
    known = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    known.add_argument("--cases", type=int, default=1000, metavar="N")
    known.add_argument("--seed", type=int, default=0, help="the same seed, the same cases")
    known.add_argument("--only", default="", metavar="COMMAND", help="those that begin with it")
    known.add_argument("--processes", type=int, default=1, metavar="N")
    known.add_argument(
        "--real", type=int, default=100, metavar="N", help="every Nth case as a process of its own"
    )
    known.add_argument("--log", type=Path, help="a JSONL file for the failures, as they come")
    known.add_argument("--case", type=int, help="only this one, and all about it")
    known.add_argument("--keep", type=Path, help="with --case: a folder to run it in")
    known.add_argument("--folder", help="where to work (default: the system's for such)")
    return known.parse_args()


def _all(one, numbers: range, processes: int) -> Iterator[Case]:
    """The cases as they end, in processes that have imported what commands need once."""
    warm_up()
    with ProcessPoolExecutor(processes, multiprocessing.get_context("fork")) as executor:
        yield from executor.map(one, numbers, chunksize=4)


def warm_up() -> None:
    """Import what takes long; children that are forked have it."""
    import pyarrow.parquet  # noqa: F401
    import resiliparse.extract.html2text  # noqa: F401
    import sacrebleu  # noqa: F401
    import torch

    import januslm.decoding.speculative
    import januslm.hub.export
    import januslm.inference.generator
    import januslm.interop.weights  # noqa: F401

    torch.set_num_threads(1)
    gc.freeze()  # else a child's collector touches, and so copies, all that is imported
    os.environ |= {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "JANUSLM_DATA": "data"}
    os.environ |= {"TOKENIZERS_PARALLELISM": "false", "DS_ACCELERATOR": "cpu"}
    sys.path[:] = [str(ROOT), *(one for one in sys.path if one not in ("", str(ROOT)))]


def run_case(
    number: int, base: Path, seed: int, commands: list[str], real: int = 0, keep: Path | None = None
) -> Case:
    """Spoil a copy of the base folder, run a command in it, and judge how it ended."""
    rng = Random(f"{seed}/{number}")
    shares = [COMMANDS[name].share for name in commands]
    name = rng.choices(commands, shares)[0]
    folder = keep or base.with_name(f"case-{os.getpid()}")
    shutil.copytree(base, folder)
    try:
        words, spoiled = prepared(COMMANDS[name], folder, rng)
        began = time.monotonic()
        alone = bool(real) and number % real == 0
        code, said = ended(COMMANDS[name].module, words, folder, alone)
        case = Case(number, name, words, spoiled, code, "", said, time.monotonic() - began)
        return replace(case, failure=failure(code, said, COMMANDS[name].codes))
    finally:
        if not keep:
            shutil.rmtree(folder)


def prepared(command: Command, folder: Path, rng: Random) -> tuple[list[str], list[str]]:
    """The words to run it with, and what was spoiled for it in the folder."""
    words, spoiled = list(command.words), []
    kinds = ["file"] * 5 * bool(command.files) + ["change"] * 4 * bool(command.changes) + ["words"]
    kinds += ["words"] * (len(command.options) > 3)
    for kind in rng.choices(kinds, k=rng.choice([1, 1, 1, 2])):
        if kind == "file":
            found = sorted(p for p in folder.glob(rng.choice(command.files)) if p.is_file())
            if found:
                others = [p for p in sorted(folder.rglob("*")) if p.is_file()]
                spoiled.append(fuzz_mutations.spoil_file(rng.choice(found), others, rng))
        elif kind == "change":
            table = tomllib.loads(fuzz_inputs.TABLES[command.changes])
            words.append(fuzz_mutations.change(table, rng))
        else:
            words = fuzz_mutations.words(words, list(command.options), rng)
    return [*words, *command.always], spoiled


def ended(module: str, words: list[str], folder: Path, alone: bool) -> tuple[int, str]:
    """Exit code and stderr of a command: in a fork of this process, or in one of its own."""
    with tempfile.TemporaryFile("w+b") as out, tempfile.TemporaryFile("w+b") as err:
        if alone:
            process = subprocess.Popen(
                [sys.executable, "-P", "-m", module, *words],
                cwd=folder,
                stdout=out,
                stderr=err,
                start_new_session=True,
                stdin=subprocess.DEVNULL,
                preexec_fn=_limited,
            )
            pid = process.pid
        elif not (pid := os.fork()):
            _as_command(module, words, folder, out.fileno(), err.fileno())
        code = _waited(pid)
        err.seek(0)
        return code, err.read().decode(errors="replace")


def _as_command(module: str, words: list[str], folder: Path, out: int, err: int) -> None:
    """What `python -m MODULE WORDS` would do; this process ends here."""
    code = 1
    try:
        os.setsid()
        _limited()
        os.chdir(folder)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(out, 1)
        os.dup2(err, 2)
        for kind in (signal.SIGINT, signal.SIGTERM):
            signal.signal(kind, signal.default_int_handler if kind == signal.SIGINT else 0)
        sys.argv = [module, *words]
        sys.modules.pop(module, None)  # else runpy warns
        runpy.run_module(module, run_name="__main__", alter_sys=True)
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 0 if end.code is None else 1
    except BaseException:
        traceback.print_exc()
    finally:
        with contextlib.suppress(Exception):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def _limited() -> None:
    resource.setrlimit(resource.RLIMIT_CPU, (CPU_SECONDS, CPU_SECONDS + 5))
    resource.setrlimit(resource.RLIMIT_DATA, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 30, 1 << 30))


def _waited(pid: int) -> int:
    """The exit code of a process, negative for a signal; its whole session is ended."""
    end = time.monotonic() + SECONDS
    while not (found := os.waitpid(pid, os.WNOHANG))[0]:
        if time.monotonic() > end:
            os.killpg(pid, signal.SIGKILL)
            found = os.waitpid(pid, 0)
            break
        time.sleep(0.005)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)
    return os.waitstatus_to_exitcode(found[1])


def failure(code: int, said: str, codes: tuple[int, ...]) -> str:
    """What is wrong with how a case ended: "" or exception and place, to group failures by."""
    lines = [line for line in said.splitlines() if not PROGRESS.match(line)]
    if "Traceback (most recent call last)" in said:
        places = re.findall(r'File "([^"]+)", line (\d+), in (\S+)', said)
        ours = [one for one in places if str(ROOT) in one[0] and "benchmarks/" not in one[0]]
        file, line, function = (ours or places or [("?", "0", "?")])[-1]
        error = next((x for x in reversed(lines) if re.match(r"[\w.]+(:|$)", x)), "?")
        where = file.removeprefix(f"{ROOT}/")
        return f"{error.partition(':')[0]} at {where}:{line} {function}"
    if code == -signal.SIGKILL or code == -signal.SIGXCPU:
        return "hang: it ran past its time"
    if code == 2:
        good = len(lines) == 1 and lines[0].startswith("error: ")
        return "" if good else f"code 2 and not one line: {' | '.join(lines)[:100]}"
    if code not in codes:
        return f"code {code}: {' | '.join(lines)[:100]}"
    more = [line for line in lines if not line.startswith("warning: ")]
    return f"code {code} and said: {' | '.join(more)[:100]}" if more else ""


def _report(cases: Iterator[Case], log: Path | None) -> int:
    """Print failures as groups, and a table by command; 1 if there are any."""
    groups: dict[str, list[Case]] = {}
    counts: dict[str, Counter] = {}
    began, shown = time.monotonic(), 0.0
    for done, case in enumerate(cases, 1):
        key = "failed" if case.failure else str(case.code)
        counts.setdefault(case.command, Counter())[key] += 1
        if case.failure:
            groups.setdefault(case.failure, []).append(case)
            if log:
                with log.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(vars(case)) + "\n")
        if (now := time.monotonic()) - shown > 10:
            shown = now
            pace = done / (now - began)
            print(f"fuzz: {done:,} cases, {len(groups)} kinds of failure, {pace:.1f} a second")
            sys.stdout.flush()
    for what, several in sorted(groups.items(), key=lambda one: -len(one[1])):
        first = several[0]
        last = (first.said.strip().splitlines() or [""])[-1]
        print(f"\n{len(several)}x {what}\n   case {first.number}: {first.command} {first.words}")
        print(f"   {'; '.join(first.spoiled)}\n   {last[:200]}")
    columns = ["0", "1", "2", "failed"]
    rows = [
        [name, f"{found.total():,}", *(f"{found[column]:,}" for column in columns)]
        for name, found in sorted(counts.items())
    ]
    whole = sum(counts.values(), Counter())
    rows.append(["all", f"{whole.total():,}", *(f"{whole[column]:,}" for column in columns)])
    heading = ["command", "cases", "code 0", "code 1", "code 2", "failed"]
    print("\n" + drawn([heading, *rows]))
    return int(bool(groups))


if __name__ == "__main__":
    sys.exit(main())
