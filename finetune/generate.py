"""Decode a task's texts, or texts of your own, with a trained model.

  PROGRAM generate runs/demo/restore                                      greedy
  PROGRAM generate runs/demo/restore --algorithm beam beam=5 length_penalty=1.2
  PROGRAM generate runs/demo/restore --algorithm mask_predict iterations=4 length_beam=3
  PROGRAM generate runs/demo/restore --input mine.txt --output out.txt    a line, a text
  PROGRAM generate runs/demo/restore --input mine.csv --column body       CSV to stdout
  ... | PROGRAM generate runs/demo/restore --input - | ...                predictions alone

Options of the algorithm are key=value; docs/decoding.md lists them.  All that can be refused is
refused before the weights are read.  Predictions of a task lie in RUN/predictions/, named by split
and algorithm and by all that was given: task, data other than the run's own, limit, options.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from collections import Counter
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from finetune import decode, own_texts, text_files
from finetune.evaluation.facts import Facts
from finetune.evaluation.facts import write as write_facts
from januslm import registry
from januslm.cli.command import answered, parser, warn, whole
from januslm.cli.progress import Progress
from januslm.config import Refused
from januslm.data import atomic
from januslm.data.text_pairs import Pair
from januslm.data.token_pairs import sources
from januslm.inference import request
from januslm.inference.request import ALGORITHMS, TrainedRun

EXACT = ("speculative", "draft")  # algorithms that write what greedy writes

if TYPE_CHECKING:  # they import torch
    from januslm.inference.generator import Generated
    from januslm.inference.trained_model import TrainedModel


def main() -> int:
    options = _arguments()

    def command() -> int:
        if options.input is not None:
            return own_texts.generate(options)
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
    known.add_argument("--split", help="train, valid or test (default: test)")
    known.add_argument("--limit", type=whole, help="only the first N texts")
    known.add_argument("--batch", type=whole, default=16, help="sentences at once; 1 for latency")
    known.add_argument("--task", help="another task than the run was trained on")
    known.add_argument("--plugins", default="", metavar="DIR", help="algorithms, tasks of your own")
    known.add_argument("--data", help="where the task's files lie (default: as in training)")
    known.add_argument(
        "--longer", default="cut", help="sources over the model's limit: cut (and count) or refuse"
    )
    known.add_argument(
        "--verify",
        action="store_true",
        help="speculative, draft: compare each sentence with greedy; exit 1 on a difference",
    )
    known.add_argument("--graphs", action="store_true", help="CUDA: capture passes and replay them")
    known.add_argument(
        "--precision",
        help="fp32 or bf16 (default: bf16 on a GPU, where --verify may then find "
        "near ties that fall otherwise; else fp32)",
    )
    known.add_argument("--threads", type=whole, help="CPU threads (default: torch's)")
    known.add_argument(
        "--output",
        "--out",
        help="default: RUN/predictions/SPLIT.ALGORITHM....jsonl; of --input: - (stdout)",
    )
    own_texts.arguments(known)
    return known.parse_intermixed_args()


def generate(options: argparse.Namespace) -> tuple[Path, bool]:
    """Decode and write predictions (JSONL) and their settings (JSON).

    Returns the path of the predictions, and whether --verify found nothing (True without it).
    """
    _check(options)
    registry.extend(options.plugins)
    given = decode.given(options)
    found = request.find(options.run, options.task, options.data)
    settings = request.settings(found.facts, options.algorithm, given, found.task.DECODE)
    unused = request.useless(options.algorithm, given)
    given = {key: value for key, value in given.items() if key not in unused}
    out = Path(options.output) if options.output else _place(options, given, found)
    if out.suffix == ".json":
        raise Refused(f"{out}: settings and times go to the .json; give a file of lines, .jsonl")
    decode.check_writable(out)
    pairs, arrays, counts = _read(found, options)
    warn(request.notes(found.facts, options.algorithm, unused))
    ways = {options.algorithm: settings}
    if options.verify:
        shared = registry.declared(ALGORITHMS, "greedy", "decode").parameters
        ways["greedy"] = {key: value for key, value in settings.items() if key in shared}
    model, made = _decoded(found, ways, arrays, options)
    mine = made[options.algorithm]
    verified = compared(mine, made["greedy"], pairs) if options.verify else {}
    facts = _facts(options, found, settings, model, mine, pairs, counts, verified)
    write(out, pairs, mine, model.tokenizer, facts)
    for line in summary(facts):
        print(line)
    return out, "different" not in facts.verified


def _decoded(
    found: TrainedRun, ways: dict[str, dict], arrays: list, options: argparse.Namespace
) -> tuple[TrainedModel, dict[str, Generated]]:
    """What each way, an algorithm by its name and with its settings, writes: torch from here on."""
    from januslm.inference import generator

    model, decoder = decode.opened(found.facts, options)
    special, progress = model.tokenizer.special, Progress("decoded", len(arrays), "texts")
    calls = decode.calls(ways)
    made = generator.write(decoder, calls, arrays, special, options.batch, progress.show)
    progress.end()
    return model, made


def _facts(
    options: argparse.Namespace,
    found: TrainedRun,
    settings: dict,
    model: TrainedModel,
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
        split=options.split or "test",
        algorithm=options.algorithm,
        settings=settings,
        checkpoint=str(found.facts.folder),
        learnt=found.facts.about.get("task") or "",
        data=str(found.root),
        limit=options.limit,
        sentences=len(pairs),
        batch=options.batch,
        threads=torch.get_num_threads(),
        precision=str(model.embedding.weight.dtype).partition(".")[2],
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
    decode.check(options)
    own_texts.refuse_options(options)
    if options.output == text_files.STREAM:
        raise Refused("--output -: predictions of a task are a file with its .json beside it")
    if options.verify and options.algorithm not in EXACT:
        raise Refused(
            f"--verify compares --algorithm {' or '.join(EXACT)} with greedy; "
            f"the algorithm here is {options.algorithm!r}"
        )


def _place(options: argparse.Namespace, given: dict, found: TrainedRun) -> Path:
    """A name that says all that was given, so that no two commands write one file."""
    run = Path(options.run)
    run = run.parent if run.name == "export" else run
    given = {"task": options.task, "data": _other_data(found), "limit": options.limit} | given
    given_options = [f"{key}-{_short(v)}" for key, v in given.items() if v is not None]
    name = ".".join([options.split or "test", options.algorithm, *given_options])
    return run / "predictions" / f"{name}.jsonl"


def _short(value) -> str:
    """1e1 and 10 are one number, and one name."""
    return f"{value:.0f}" if isinstance(value, float) and value.is_integer() else str(value)


def _other_data(found: TrainedRun) -> str | None:
    """Data other than the run was trained on: its folder's name and a mark of where it lies."""
    here, own = found.root.resolve(), found.facts.about.get("data", {}).get("root")
    if own and Path(own).resolve() == here:
        return None
    return f"{here.name}-{hashlib.sha256(str(here).encode()).hexdigest()[:6]}"


def _read(found: TrainedRun, options: argparse.Namespace) -> tuple[list[Pair], list, Counter]:
    """The texts, their tokens, and the counts of what is empty or was cut."""
    counts: Counter = Counter()
    split = options.split or "test"
    texts = found.task.read(found.root, split, skipped=counts)
    pairs = list(islice(texts, options.limit))
    if not pairs:
        raise Refused(f"{found.root}: split {split!r} has no texts")
    words, most = found.facts.tokenizer, found.limits.source
    arrays, cut = sources([p.source for p in pairs], words, most)
    if cut and options.longer == "refuse":
        raise Refused(
            f"{split}: {len(cut)} of {len(pairs)} sources, {pairs[cut[0]].id} the first, "
            f"are longer than the {most} tokens the model was trained for; shorten them, or cut "
            "them with --longer cut"
        )
    return pairs, arrays, counts + Counter({"sources cut": len(cut)})


def compared(fast: Generated, slow: Generated, pairs: list[Pair]) -> dict:
    """What drafts saved against greedy, and which sentences differ (there must be none)."""
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
