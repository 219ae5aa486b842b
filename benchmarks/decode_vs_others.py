"""Speed at forced lengths: ours, HF's generate and CTranslate2 on the same random weights.

Random weights write nonsense, so every output is forced to T tokens (EOS counted) and the source is
as long: all systems do the same number of steps.  A ratio counts only if all of them give the words
the same log p and write the same words greedily, which is checked before anything is timed.
"""

import statistics
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch

from benchmarks import same_bart
from benchmarks.same_bart import SPECIAL, VOCABULARY, Programs, batch, spelt
from benchmarks.timing import Spent, measure, ratio, turns
from januslm.decoding import beam, greedy, mask_predict
from januslm.inference.incremental import IncrementalDecoder, State
from januslm.model.transformer import parameters

SETTINGS = ((1, 14), (1, 40), (32, 14))  # sentences at once, tokens
ENOUGH = 1e-4  # how far log p may be apart in fp32
# What is compared, base over system, and the least the ratio must be on the CPU, by setting.
COMPARED: dict[tuple[str, str], dict[tuple[int, int], float]] = {
    ("HF beam 5", "beam 5"): {(1, 14): 1.35, (1, 40): 1.35, (32, 14): 1.25},
    ("HF greedy", "greedy"): {},
    ("HF beam 5", "beam 5, past"): {},
    ("HF greedy", "greedy, past"): {},
    ("CTranslate2 beam 5", "beam 5"): {},
    ("CTranslate2 greedy", "greedy"): {},
    ("CTranslate2 beam 5", "beam 5, past"): {},
    ("CTranslate2 greedy", "greedy, past"): {},
    ("beam 5", "NAR 1"): {(1, 40): 15.0},
    ("beam 5", "NAR 4"): {(1, 14): 2.5, (1, 40): 5.0},
    ("beam 5", "NAR 10"): {},
    ("beam 5", "NAR 10 x 3"): {},
    ("CTranslate2 beam 5", "NAR 4"): {},
}


class Forced:
    """A decoder whose length head is sure of one length, BOS and EOS counted."""

    def __init__(self, decoder: IncrementalDecoder, length: int):
        self.decoder, self.length = decoder, length

    def __getattr__(self, name: str):
        return getattr(self.decoder, name)

    def start(self, sources: Sequence[np.ndarray]) -> State:
        state = self.decoder.start(sources)
        steps = torch.arange(state.length_scores.shape[-1], device=state.at.device)
        state.length_scores = -(steps - self.length).abs().float().expand_as(state.length_scores)
        return state


def run(
    rounds: int, warm: int, quick: bool, device: torch.device, graphs: bool
) -> tuple[dict, list[str]]:
    """Check, time and print every setting; returns what is recorded and the floors missed."""
    half = device.type == "cuda"
    results: dict = {
        "precision": "bf16" if half else "fp32",
        "threads": 1,
        "graphs": graphs,
        "rounds": rounds,
        "warm_ups": warm,
        "instructions": torch.backends.cpu.get_cpu_capability(),
    }
    print(
        f"one process, one thread, {results['precision']}; {measure(device)} time, systems in "
        f"turns, {warm} rounds to warm up and {rounds} that count; a ratio is the median of paired "
        "rounds (lowest to highest)"
    )
    missed: list[str] = []
    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder:
        torch.manual_seed(0)
        same_bart.write(Path(folder))
        exact = same_bart.load(Path(folder), device, half=False)
        used = same_bart.load(Path(folder), device, half, graphs) if half else exact
        if not used.translator:
            print(f"CTranslate2 left out: {used.lacking}")
        results["parameters"] = _sizes(exact)
        for sentences, tokens in SETTINGS[:2] if quick else SETTINGS:
            sources = [
                np.array([SPECIAL.bos, *rng.integers(5, VOCABULARY, tokens - 2), SPECIAL.eos])
                for _ in range(sentences)
            ]
            found = checked(exact, sources, tokens)
            times = turns(systems(used, sources, tokens), rounds, warm, device)
            table, low = report(sentences, tokens, times, device)
            results[f"batch {sentences}, {tokens} tokens"] = table | {"checks": found}
            missed += low
    return results, missed


def checked(programs: Programs, sources: list[np.ndarray], tokens: int) -> dict:
    """That all programs mean the same by these weights, in fp32; ends the command where not."""
    found: dict = {"log_p_apart": same_bart.apart(programs, sources[:2], tokens)}
    found["same_greedy_words"] = same_bart.same_words(programs, sources, tokens - 1)
    worst = max(found["log_p_apart"].values())
    equal = ", ".join(
        f"{n} of {len(sources)} with {p}" for p, n in found["same_greedy_words"].items()
    )
    print(f"check: log p {worst:.1e} apart at most; same greedy words: {equal}")
    if worst > ENOUGH or set(found["same_greedy_words"].values()) != {len(sources)}:
        sys.exit(f"the systems do not do the same, so nothing counts: {found}")
    return found


def systems(programs: Programs, sources: list[np.ndarray], tokens: int) -> dict[str, Callable]:
    """Name -> a call that decodes all sources, and fails where an output has another length."""
    # The length head counts BOS too.
    decoders = {read: Forced(programs.decoder(read), tokens + 1) for read in ("next", "past")}

    def ours(way, read: str, spread: int = 0, **options) -> Callable:
        if way is not mask_predict:
            options |= dict(min_length=tokens - 1, max_length=tokens - 1)

        def call() -> None:
            found = way.decode(decoders[read], sources, SPECIAL, **options)
            assert all(abs(len(o.tokens) + 1 - tokens) <= spread for o in found), way.__name__

        return call

    def all_at_once(iterations: int, lengths: int) -> Callable:
        return ours(
            mask_predict,
            "next",
            spread=lengths // 2,
            iterations=iterations,
            length_beam=lengths,
            early_stop=False,
            lengths="around",
        )

    calls = {}
    for name, width in (("beam 5", 5), ("greedy", 1)):
        way, options = (beam, {"beam": width}) if width > 1 else (greedy, {})
        calls[f"HF {name}"] = hugging_face(programs, sources, tokens, width)
        if programs.translator:
            calls[f"CTranslate2 {name}"] = ctranslate2(programs, sources, tokens, width)
        calls[name] = ours(way, "next", **options)
        calls[f"{name}, past"] = ours(way, "past", **options)
    return calls | {
        "NAR 1": all_at_once(1, 1),
        "NAR 4": all_at_once(4, 1),
        "NAR 10": all_at_once(10, 1),
        "NAR 10 x 3": all_at_once(10, 3),
    }


def hugging_face(programs: Programs, sources, tokens: int, beams: int) -> Callable:
    """HF's generate, with its cache."""
    given = batch(sources, programs.device)

    def call() -> None:
        found = programs.hf.generate(
            **given, num_beams=beams, do_sample=False, min_new_tokens=tokens, max_new_tokens=tokens
        )
        assert found.shape[1] - 1 == tokens

    return call


def ctranslate2(programs: Programs, sources, tokens: int, beams: int) -> Callable:
    """CTranslate2's translate_batch."""
    given = spelt(sources)

    def call() -> None:
        found = programs.translator.translate_batch(
            given, beam_size=beams, min_decoding_length=tokens, max_decoding_length=tokens
        )
        assert all(len(result.hypotheses[0]) == tokens for result in found)

    return call


def report(
    sentences: int, tokens: int, times: dict[str, list[Spent]], device: torch.device
) -> tuple[dict, list[str]]:
    """Prints one setting's table; returns what is recorded and the floors that do not hold."""
    seconds = {name: [one.counted(device) for one in each] for name, each in times.items()}
    shown = {name: 1000 * statistics.median(each) / sentences for name, each in seconds.items()}
    print(f"\nbatch {sentences}, {tokens} tokens: {measure(device)} ms per sentence")
    for name, value in shown.items():
        print(f"  {name:20}{value:9.1f}")
    ratios, missed = {}, []
    for (base, system), floors in COMPARED.items():
        if base not in seconds:
            continue
        found = ratio(seconds[base], seconds[system])
        ratios[f"{base} / {system}"] = vars(found)
        floor = floors.get((sentences, tokens)) if device.type == "cpu" else None
        verdict = "" if floor is None else f"  floor {floor:g}x "
        if floor is not None:
            verdict += "holds" if found.median >= floor else "MISSED"
        print(f"  {base + ' / ' + system:36}{found}{verdict}")
        if verdict.endswith("MISSED"):
            missed.append(
                f"{base} / {system} at batch {sentences}, {tokens} tokens: "
                f"{found.median:.2f}x, floor {floor:g}x"
            )
    return {"ms_per_sentence": shown, "ratios": ratios}, missed


def _sizes(programs: Programs) -> dict[str, int]:
    """Parameters; our length head is not needed to write word by word."""
    ours = parameters(programs.model) - parameters(programs.model.length_head)
    sizes = {"ours": ours, "BART": parameters(programs.hf)}
    shown = ", ".join(f"{name} {size / 1e6:.1f} M" for name, size in sizes.items())
    print(f"parameters: {shown} (without our length head)")
    return sizes
