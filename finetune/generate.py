"""Decode a task's texts with a fine-tuned model.

  PROGRAM generate runs/tiny/docsum                                      greedy
  PROGRAM generate runs/tiny/docsum --algorithm beam beam=5 length_penalty=1.2
  PROGRAM generate runs/tiny/docsum --algorithm mask_predict iterations=4 length_beam=3

Options of the algorithm are key=value; docs/decoding.md lists them.  All that can be refused is
refused before the weights are read.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections import Counter
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from finetune.evaluation.facts import Facts
from finetune.evaluation.facts import write as write_facts
from januslm import registry
from januslm.cli.command import answered, check_counts, parser
from januslm.cli.progress import Progress
from januslm.config import Refused, assignments
from januslm.data import atomic
from januslm.data.text_pairs import Pair
from januslm.data.token_pairs import sources
from januslm.inference import request
from januslm.inference.request import ALGORITHMS, PRECISIONS, TrainedRun
from januslm.launch.environment import has_gpu

if TYPE_CHECKING:  # they import torch
    from januslm.inference.generator import Generated, LoadedModel

LONGER = ("cut", "refuse")


def main() -> int:
    options = _arguments()

    def command() -> int:
        written, same = generate(options)
        print(f"wrote {written}")
        return 0 if same else 1

    return answered(command)


def _arguments() -> argparse.Namespace:
    known = parser("generate", __doc__)
    known.add_argument("run", metavar="RUN", help="a fine-tuning run's folder, or its export/")
    known.add_argument("options", nargs="*", metavar="key=value", help="options of the algorithm")
    names = ", ".join(registry.names(ALGORITHMS))
    known.add_argument("--algorithm", default="greedy", help=f"{names} (default: greedy)")
    known.add_argument("--split", default="test", help="train, valid or test")
    known.add_argument("--limit", type=int, help="only the first N texts")
    known.add_argument("--batch", type=int, default=16, help="sentences at once; 1 for latency")
    known.add_argument("--task", help="another task than the run was trained on")
    known.add_argument("--plugins", default="", metavar="DIR", help="algorithms, tasks of your own")
    known.add_argument("--data", help="where the task's files lie (default: as in training)")
    known.add_argument(
        "--longer", default="cut", help="sources over the model's limit: cut (and count) or refuse"
    )
    known.add_argument(
        "--verify",
        action="store_true",
        help="speculative: decode greedily too and compare each sentence; exit 1 on a difference",
    )
    known.add_argument("--graphs", action="store_true", help="CUDA: capture passes and replay them")
    known.add_argument(
        "--precision",
        help="fp32 or bf16 (default: bf16 on a GPU, where --verify may then find "
        "near ties that fall otherwise; else fp32)",
    )
    known.add_argument("--threads", type=int, help="CPU threads (default: torch's)")
    known.add_argument("--out", type=Path, help="default: RUN/predictions/SPLIT.ALGORITHM....jsonl")
    return known.parse_intermixed_args()


def generate(options: argparse.Namespace) -> tuple[Path, bool]:
    """Decode and write predictions (JSONL) and their settings (JSON).

    Returns the path of the predictions, and whether --verify found nothing (True without it).
    """
    _check(options)
    registry.extend(options.plugins)
    names = ", ".join(registry.names(ALGORITHMS))
    given = assignments(options.options, f"max_length=60; one of {names} goes after --algorithm")
    found = request.find(options.run, options.task, options.data)
    settings = request.settings(found, options.algorithm, given)
    out = options.out or _place(options, given)
    _writable(out)
    pairs, arrays, counts = _read(found, options)
    ways = {options.algorithm: settings}
    if options.verify:
        shared = registry.declared(ALGORITHMS, "greedy", "decode").parameters
        ways["greedy"] = {key: value for key, value in settings.items() if key in shared}
    trained, made = _decoded(found, ways, arrays, options)
    mine = made[options.algorithm]
    verified = compared(mine, made["greedy"], pairs) if options.verify else {}
    facts = _facts(options, found, settings, trained, mine, pairs, counts, verified)
    write(out, pairs, mine, trained.saved.tokenizer, facts)
    for line in summary(facts):
        print(line)
    return out, "different" not in facts.verified


def _decoded(
    found: TrainedRun, ways: dict[str, dict], arrays: list, options: argparse.Namespace
) -> tuple[LoadedModel, dict[str, Generated]]:
    """What each way, an algorithm by its name and with its settings, writes: torch from here on."""
    from januslm.inference import generator

    trained = generator.load(found, options.threads, options.graphs, options.precision)
    calls = {
        name: partial(registry.find(ALGORITHMS, name).decode, **settings)
        for name, settings in ways.items()
    }
    special, progress = trained.saved.tokenizer.special, Progress("decoded", len(arrays), "texts")
    made = generator.write(trained.decoder, calls, arrays, special, options.batch, progress.show)
    progress.end()
    return trained, made


def _facts(
    options: argparse.Namespace,
    found: TrainedRun,
    settings: dict,
    trained: LoadedModel,
    mine: Generated,
    pairs: list[Pair],
    counts: Counter,
    verified: dict,
) -> Facts:
    """What lies beside the predictions: how they were made, and what it took."""
    import torch

    return Facts(
        task=found.task_name,
        task_options=found.task_options,
        plugins=list(registry.extended()),
        split=options.split,
        algorithm=options.algorithm,
        settings=settings,
        checkpoint=str(trained.saved.folder),
        learnt=trained.saved.about.get("task") or "",
        data=str(trained.root),
        limit=options.limit,
        sentences=len(pairs),
        batch=options.batch,
        threads=torch.get_num_threads(),
        precision=str(trained.decoder.model.embedding.weight.dtype).partition(".")[2],
        graphs=options.graphs,
        seconds=mine.seconds,
        cpu_seconds=mine.cpu_seconds,
        ms_per_sentence=1000 * mine.seconds / len(pairs),
        tokens=mine.tokens,
        passes=mine.passes,
        truncated=counts["sources cut"],
        empty={k: n for k, n in counts.items() if k.startswith("empty")},
        unanswered=sum(not pair.targets for pair in pairs),
        verified=verified,
    )


def _check(options: argparse.Namespace) -> None:
    check_counts(options, "limit", "batch", "threads")
    if options.precision not in (None, *PRECISIONS):
        kinds = " or ".join(PRECISIONS)
        raise Refused(f"--precision must be {kinds}, got {options.precision!r}")
    if options.longer not in LONGER:
        raise Refused(f"--longer must be one of {', '.join(LONGER)}, got {options.longer!r}")
    if options.verify and options.algorithm != "speculative":
        raise Refused(
            "--verify compares --algorithm speculative with greedy; "
            f"the algorithm here is {options.algorithm!r}"
        )
    if options.graphs and not has_gpu():
        raise Refused("--graphs: there is no CUDA device to capture graphs on")


def _place(options: argparse.Namespace, given: dict) -> Path:
    run = Path(options.run)
    run = run.parent if run.name == "export" else run
    given = {"task": options.task, "limit": options.limit} | given
    given_options = [f"{k}-{v}" for k, v in given.items() if v is not None]
    name = ".".join([options.split, options.algorithm, *given_options])
    return run / "predictions" / f"{name}.jsonl"


def _writable(out: Path) -> None:
    """Refused where `out` cannot be written, before hours of decoding."""
    if out.suffix == ".json":
        raise Refused(f"{out}: settings and times go to the .json; give a file of lines, .jsonl")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        if out.is_dir():
            raise IsADirectoryError(None, "it is a folder")
        tempfile.TemporaryFile(dir=out.parent).close()
    except OSError as error:
        raise Refused(f"{out}: cannot be written ({error.strerror})") from None


def _read(found: TrainedRun, options: argparse.Namespace) -> tuple[list[Pair], list, Counter]:
    """The texts, their tokens, and the counts of what is empty or was cut."""
    counts: Counter = Counter()
    texts = found.task.read(found.root, options.split, skipped=counts)
    pairs = list(islice(texts, options.limit))
    if not pairs:
        raise Refused(f"{found.root}: split {options.split!r} has no texts")
    words, most = found.facts.tokenizer, found.limits.source
    arrays, cut = sources([p.source for p in pairs], words, most)
    if cut and options.longer == "refuse":
        raise Refused(
            f"{options.split}: {len(cut)} of {len(pairs)} sources, {pairs[cut[0]].id} the first, "
            f"are longer than the {most} tokens the model was trained for; shorten them, or cut "
            "them with --longer cut"
        )
    return pairs, arrays, counts + Counter({"sources cut": len(cut)})


def compared(fast: Generated, slow: Generated, pairs: list[Pair]) -> dict:
    """What speculative saved against greedy, and which sentences differ (there must be none)."""
    different = [
        pair.id
        for pair, a, b in zip(pairs, fast.outputs, slow.outputs, strict=True)
        if not np.array_equal(a.tokens, b.tokens)
    ]
    facts = {
        "identical": len(pairs) - len(different),
        "passes_greedy": slow.passes,
        "fewer_passes": slow.passes / fast.passes,
        "seconds_greedy": slow.seconds,
        "faster": slow.seconds / fast.seconds,
        "faster_cpu": slow.cpu_seconds / fast.cpu_seconds,
    }
    return facts | ({"different": different} if different else {})


def summary(facts: Facts) -> list[str]:
    """What was done and what it cost, for people."""
    count, passes, tokens = facts.sentences or 0, facts.passes or 0.0, facts.tokens or 0
    notes = [f"{n:,} {what} kept" for what, n in facts.empty.items()]
    notes += [f"{facts.truncated:,} sources cut"] if facts.truncated else []
    if facts.learnt not in ("", facts.task):
        notes.append(f"by a model of task {facts.learnt!r}")
    if facts.unanswered:
        notes.append(f"{facts.unanswered:,} without references: not to be scored here")
    lines = [
        f"{facts.algorithm}: {count:,} sentences, {tokens:,} tokens, {passes:.1f} "
        f"passes a sentence, {tokens / max(count * passes, 1):.2f} tokens a pass, "
        f"{facts.ms_per_sentence:.1f} ms a sentence" + "".join(f" | {note}" for note in notes)
    ]
    if found := facts.verified:
        lines.append(
            f"against greedy: identical {found['identical']:,} of {count:,} | passes {passes:.1f} "
            f"against {found['passes_greedy']:.1f} a sentence: {found['fewer_passes']:.2f}x fewer "
            f"| time {found['faster']:.2f}x, CPU time {found['faster_cpu']:.2f}x"
        )
        if others := found.get("different"):
            lines.append(f"different: {', '.join(others[:5])}" + ", ..." * (len(others) > 5))
    return lines


def write(out: Path, pairs: list[Pair], made: Generated, tokenizer, facts: Facts) -> None:
    """One JSON object a line, in the order of the task; `facts` in the .json beside it.

    `others`: the further texts of n-best, of several samples or lengths, where there are any.
    """
    from januslm.inference import generator

    with atomic.plain(out) as file:
        for pair, output in zip(pairs, made.outputs, strict=True):
            line = {
                "id": pair.id,
                "source": pair.source,
                "prediction": generator.text(tokenizer, output),
                "references": pair.targets,
                "score": output.score,
                "passes": output.passes,
            }
            if output.others:
                line["others"] = [
                    {"prediction": generator.text(tokenizer, o), "score": o.score}
                    for o in output.others
                ]
            file.write(json.dumps(line, ensure_ascii=False) + "\n")
        write_facts(out.with_suffix(".json"), facts)


if __name__ == "__main__":
    sys.exit(main())
