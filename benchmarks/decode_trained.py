"""Speed of a trained model at the lengths it chooses itself, with its quality beside it.

Quality and passes are those of `generate` and `evaluate` on the whole split.  Time is taken here,
with the same settings, on some sentences spread evenly over the split; it counts only if these
write the same texts.
"""

import statistics
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from benchmarks import cli_runs
from benchmarks.cli_runs import Way, Written
from benchmarks.timing import Ratio, Spent, ratio, turns
from januslm import registry
from januslm.config import Refused
from januslm.data.tokenizer import Tokenizer
from januslm.inference.cuda_graphs import GraphedDecoder
from januslm.inference.incremental import IncrementalDecoder
from januslm.interop import native
from januslm.objective import LossSettings, resolve_objective

GREEDY, BEAM = "AR greedy", "AR beam 5"
SPECULATIVE = ("speculative", "speculative, three readings", "speculative, one reading")
WAYS = (
    Way(GREEDY, "greedy"),
    Way(BEAM, "beam", {"beam": 5}),
    Way("AR sampling, top 10", "sample", {"top_k": 10}),
    Way(SPECULATIVE[0], "speculative"),
    Way(SPECULATIVE[1], "speculative", {"block": 8, "shifts": 3}),
    Way(SPECULATIVE[2], "speculative", {"block": 8, "shifts": 1}),
    Way("draft", "draft"),
    Way("semi-NAR, blocks of 4", "semi", {"block": 4, "length_beam": 1}),
    *(
        Way(f"NAR {n}{words}", "mask_predict", {"iterations": n, "length_beam": lengths} | more)
        for n, lengths, words, more in (
            (1, 1, "", {}),
            (4, 1, "", {}),
            (4, 1, ", early stop", {"early_stop": True}),
            (10, 1, "", {}),
            (10, 1, ", early stop", {"early_stop": True}),
            (1, 5, " x 5", {}),
            (4, 5, " x 5", {}),
            (10, 5, " x 5", {}),
            (10, 5, " x 5, early stop", {"early_stop": True}),
            (1, 5, " x 5, AR chooses", {"rescore": True}),
            (4, 5, " x 5, AR chooses", {"rescore": True}),
            (10, 5, " x 5, AR chooses", {"rescore": True}),
        )
    ),
)  # NAR 10 x 5: ten iterations over five lengths; without "x": over the likeliest length
BATCHES = (1, 16, 64)  # and all at once
SAME = 0.98  # texts that must not depend on the batch in fp32: a near tie may fall either way
# Floors on the CPU: base over system at batch 1; greedy's passes over speculative's.
TIMES = {(BEAM, "NAR 4"): 2.5, (GREEDY, SPECULATIVE[0]): 0.98}  # never slower, to a jitter
FEWER_PASSES = 1.8


@dataclass(frozen=True)
class Trained:
    """A run's model, ready to write, as `generate` prepares it."""

    decoder: IncrementalDecoder
    tokenizer: Tokenizer
    longest: int  # source tokens

    @classmethod
    def load(cls, run: str, device: torch.device, graphs: bool) -> "Trained":
        """From a run's folder or its export/; in bf16 on a GPU, with captured passes if asked."""
        saved = native.read(run)
        table = {"name": saved.objective, **saved.options}
        special = saved.tokenizer.special
        objective = resolve_objective(table, {}, LossSettings(), "nmt", special, str(saved.folder))
        gpu = device.type == "cuda"
        model = saved.model.to(device).bfloat16() if gpu else saved.model
        most = saved.about.get("data", {}).get("max_source", model.config.max_positions)
        decoder = (
            GraphedDecoder(model, objective)
            if graphs
            else IncrementalDecoder(model, objective, packed=not gpu)
        )
        return cls(decoder, saved.tokenizer, most)

    def arrays(self, sources: list[str]) -> list[np.ndarray]:
        """int64 [N] each, BOS .. EOS, cut as in training."""
        special, room = self.tokenizer.special, self.longest - 2
        encoded = self.tokenizer.encode(sources)
        return [np.concatenate([[special.bos], e[:room], [special.eos]]) for e in encoded]

    def decode(self, way: Way, arrays: Sequence[np.ndarray], settings: Mapping) -> list:
        """Outputs of one batch."""
        algorithm = registry.find("januslm.decoding", way.algorithm)
        return algorithm.decode(self.decoder, arrays, self.tokenizer.special, **settings)

    def text(self, output) -> str:
        return " ".join(self.tokenizer.decode(output.tokens).split())


def possible(trained: Trained, ways: Sequence[Way]) -> list[Way]:
    """The ways that this checkpoint learnt; says which it did not."""
    able = []
    for way in ways:
        try:
            trained.decode(way, trained.arrays(["a"]), way.options)
            able.append(way)
        except Refused as error:
            print(f"left out: {way.name}: {error}")
    if not able:
        raise Refused("this checkpoint knows none of the ways to write")
    return able


def run(
    place: str,
    work: Path,
    where: list[str],
    data: list[str],
    count: int,
    rounds: int,
    warm: int,
    device: torch.device,
    graphs: bool,
) -> tuple[dict, list[str]]:
    """Write, score and time; returns what is recorded and the floors missed.

    where, data: arguments of `generate` and `evaluate`.  count: sentences that are timed.
    """
    gpu = device.type == "cuda"
    trained = Trained.load(place, device, graphs)
    ways = possible(trained, WAYS)
    written = {}
    for number, way in enumerate(ways, 1):
        print(f"\r  writing {number} of {len(ways)}: {way.name:30}", end="", file=sys.stderr)
        written[way.name] = cli_runs.write(place, way, work, where, gpu)
    print(file=sys.stderr)
    quality = cli_runs.scores(work, data)
    total = len(next(iter(written.values())).sources)
    chosen = np.unique(np.linspace(0, total - 1, min(count, total)).round().astype(int)).tolist()
    same = agreed(trained, ways, written, chosen)
    if not gpu and min(same.values()) < SAME * len(chosen):
        sys.exit(
            f"texts differ from what generate wrote, so nothing counts: {same} of {len(chosen)}"
        )
    times = timed(trained, ways, written, chosen, rounds, warm, device)
    rows = {
        way.name: row(way, written[way.name], quality, times, device)
        | {"same_texts": same[way.name]}
        for way in ways
    }
    ratios = {
        f"{base} / {system}": paired(times, base, system, device)
        for base in (BEAM, GREEDY)
        if base in rows
        for system in rows
        if system != base
    }
    results = {
        "precision": "bf16" if gpu else "fp32",
        "threads": 1,
        "graphs": graphs,
        "rounds": rounds,
        "warm_ups": warm,
        "sentences": total,
        "timed_sentences": len(chosen),
        "ways": rows,
        "ratios_at_batch_1": {name: vars(found) for name, found in ratios.items()},
    }
    return results, judged(rows, ratios, total, device)


def agreed(
    trained: Trained, ways: Sequence[Way], written: Mapping[str, Written], chosen: Sequence[int]
) -> dict[str, int]:
    """How many of the chosen sentences a way writes alone as `generate` did in batches."""
    same = {}
    for way in ways:
        made = written[way.name]
        texts = [
            trained.text(trained.decode(way, [array], made.facts["settings"])[0])
            for array in trained.arrays([made.sources[i] for i in chosen])
        ]
        same[way.name] = sum(t == made.predictions[i] for t, i in zip(texts, chosen, strict=True))
    return same


def timed(
    trained: Trained,
    ways: Sequence[Way],
    written: Mapping[str, Written],
    chosen: Sequence[int],
    rounds: int,
    warm: int,
    device: torch.device,
) -> dict[str, dict[int, list[list[Spent]]]]:
    """Way -> batch -> a list for each batch of the chosen sentences: its time in each round.

    All ways write a batch before the next batch, so that neighbours in time are compared.
    """
    sources = written[ways[0].name].sources
    arrays = sorted(trained.arrays([sources[i] for i in chosen]), key=len, reverse=True)
    sizes = [b for b in BATCHES if b < len(arrays)] + [len(arrays)]
    found: dict = {way.name: {size: [] for size in sizes} for way in ways}
    for size in sizes:
        parts = [arrays[at : at + size] for at in range(0, len(arrays), size)]
        runs = {
            (at, way.name): lambda way=way, part=part: trained.decode(
                way, part, written[way.name].facts["settings"]
            )
            for at, part in enumerate(parts)
            for way in ways
        }
        print(f"batch {size}", file=sys.stderr)
        for (_, name), times in turns(runs, rounds, warm, device).items():
            found[name][size].append(times)
    return found


def row(way: Way, made: Written, quality: Mapping, times: Mapping, device: torch.device) -> dict:
    """All that the table says of one way."""
    facts, batches = made.facts, times[way.name]
    alone = {
        kind: 1000 * np.array([statistics.median(getattr(t, kind) for t in s) for s in batches[1]])
        for kind in ("cpu", "wall")
    }
    speed = {
        size: len(batches[1]) / statistics.median(totals(parts, device))
        for size, parts in batches.items()
    }
    passes = facts["passes"]
    return {
        "algorithm": way.algorithm,
        "settings": facts["settings"],
        "scores": {name: list(pair) for name, pair in quality[facts["file"]].items()},
        "ms_at_batch_1": {
            f"{kind} p{q}": float(np.percentile(each, q))
            for kind, each in alone.items()
            for q in (50, 95)
        },
        "sentences_per_second": {str(size): value for size, value in speed.items()},
        "best_batch": max(speed, key=speed.__getitem__),
        "passes": passes,
        "tokens_per_pass": facts["tokens"] / facts["sentences"] / passes,
    } | ({"verified": facts["verified"]} if "verified" in facts else {})


def totals(parts: Sequence[list[Spent]], device: torch.device) -> list[float]:
    """Seconds of each round, all batches together."""
    return [sum(t.counted(device) for t in turn) for turn in zip(*parts, strict=True)]


def paired(times: Mapping, base: str, system: str, device: torch.device) -> Ratio:
    """Base over system at batch 1."""
    return ratio(totals(times[base][1], device), totals(times[system][1], device))


def judged(
    rows: Mapping[str, dict], ratios: Mapping[str, Ratio], total: int, device: torch.device
) -> list[str]:
    """The floors that do not hold, one sentence each."""
    missed = []
    for (base, system), floor in TIMES.items():
        found = ratios.get(f"{base} / {system}")
        if device.type == "cpu" and found and found.median < floor:
            missed.append(f"{base} / {system} at batch 1: {found.median:.2f}x, floor {floor:g}x")
    for name in SPECULATIVE:
        checked = rows.get(name, {}).get("verified")
        if checked and device.type == "cpu" and checked["identical"] < total:
            missed.append(f"{name}: {checked['identical']} of {total} texts are greedy's")
        if checked and name == SPECULATIVE[1] and checked["fewer_passes"] < FEWER_PASSES:
            missed.append(
                f"{name}: {checked['fewer_passes']:.2f}x fewer passes, floor {FEWER_PASSES:g}x"
            )
    return missed
