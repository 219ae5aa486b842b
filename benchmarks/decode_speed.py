"""Decoding speed: ours against HF's BART of the same size, all at once against word by word.

`python -m benchmarks.decode_speed [--quick] [--rounds N] [--check]`
Width 512, ffn 1024, 4 heads, 6+6 layers, 32000 words, random weights, every output forced to T
tokens (EOS counted), source as long.  One thread, fp32, CPU time of the process, systems
interleaved, median of the paired ratios.  It counts only if cached
logits equal teacher-forced ones in the same run.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable

import numpy as np
import torch

from benchmarks.record import record
from januslm.decoding import beam, greedy, mask_predict
from januslm.learner import Loss, settle
from januslm.model import Config, Seq2Seq, parameters
from januslm.packing import Example, Packer
from januslm.reading import Reader, State
from januslm.tokenizer import Special

SIZES = dict(width=512, ffn=1024, heads=4, encoder_layers=6, decoder_layers=6)
VOCABULARY = 32000
SPECIAL = Special()
ENOUGH = 1e-4  # how far cached logits may be from teacher-forced ones
# What is compared: system over base, and the least the ratio must be; None: printed only.
GOALS = {
    ("hf beam 5", "beam 5"): 1.2, ("hf greedy", "greedy"): None,
    ("hf beam 5", "beam 5, past"): None, ("hf greedy", "greedy, past"): None,
    ("beam 5", "nar 1"): None, ("beam 5", "nar 4"): None, ("beam 5", "nar 10"): None,
    ("beam 5", "nar 10 x 3"): None,
}  # fmt: skip
FLOORS = {(1, 40, "beam 5", "nar 1"): 10.0, (1, 40, "beam 5", "nar 4"): 2.5}


class Forced(Reader):
    """A reader whose length head is sure of one length."""

    length = 0

    def start(self, sources) -> State:
        state = super().start(sources)
        steps = torch.arange(state.length_scores.shape[-1])
        state.length_scores = -(steps - self.length).abs().float().expand_as(state.length_scores)
        return state


def model() -> Seq2Seq:
    """Ours, with random weights."""
    style = dict(activation="relu", embedding_norm=True, max_positions=256)
    return Seq2Seq(Config(vocabulary=VOCABULARY, **SIZES, **style)).eval()


def hugging_face():
    """BART of the same size from transformers, with random weights."""
    from transformers import BartConfig, BartForConditionalGeneration

    config = BartConfig(
        vocab_size=VOCABULARY, d_model=512, encoder_ffn_dim=1024, decoder_ffn_dim=1024,
        encoder_layers=6, decoder_layers=6, encoder_attention_heads=4, decoder_attention_heads=4,
        activation_function="relu", max_position_embeddings=256, forced_eos_token_id=None,
        bos_token_id=0, pad_token_id=1, eos_token_id=2, decoder_start_token_id=2,
    )  # fmt: skip
    return BartForConditionalGeneration(config).eval()


def objective(read: str):
    """JANUS' objective, read from `next` (two rows a word, as published) or from `past` slots."""
    return settle({"name": "janus", "read": read}, {}, Loss(), "nmt", SPECIAL, "benchmark")


def farthest(reader: Reader, sources: list[np.ndarray], words: int) -> float:
    """The largest difference between cached and teacher-forced logits."""
    rng = np.random.default_rng(1)
    targets = [np.array([0, *rng.integers(5, VOCABULARY, words), 2]) for _ in sources]
    kind = objective("next" if reader.asks else "past")
    examples = [
        Example(s, t, kind.layout(t, np.zeros(len(t), bool)))
        for s, t in zip(sources, targets, strict=True)
    ]
    with torch.inference_mode():
        batch = Packer(kind.loss.weights)(examples)
        rows = torch.cat([s.rows[0] for s in batch.sheets])
        hidden = reader.model(batch)[0][rows.sort()[0]]
        want = (hidden @ reader.model.vocabulary_weight().T).view(len(sources), -1, VOCABULARY)
        state = reader.start(sources)
        got = [reader.step(state)]
        for at in range(1, words + 1):
            got.append(reader.step(state, torch.tensor([[t[at]] for t in targets])))
    return float((torch.cat(got, 1) - want).abs().max())


def systems(readers: dict[str, Reader], hf, sources, tokens: int) -> dict[str, Callable]:
    """Name -> a call that decodes all sources and returns how many tokens each output has."""
    words = tokens - 1
    together = torch.from_numpy(np.stack(sources))

    def ours(way, reader: str, **options) -> Callable:
        if way is not mask_predict:
            options |= dict(min_length=words, max_length=words)
        readers[reader].length = words + 2

        def run():
            found = way.decode(readers[reader], sources, SPECIAL, **options)
            return {len(output.tokens) + 1 for output in found}

        return run

    def theirs(beams: int) -> Callable:
        def run():
            found = hf.generate(
                together, attention_mask=torch.ones_like(together), num_beams=beams,
                min_new_tokens=tokens, max_new_tokens=tokens, do_sample=False,
            )  # fmt: skip
            return {found.shape[1] - 1}

        return run

    nar = dict(early_stop=False, lengths="around")
    return {
        "hf beam 5": theirs(5), "beam 5": ours(beam, "next", beam=5),
        "beam 5, past": ours(beam, "past", beam=5),
        "hf greedy": theirs(1), "greedy": ours(greedy, "next"),
        "greedy, past": ours(greedy, "past"),
        "nar 1": ours(mask_predict, "next", iterations=1, length_beam=1, **nar),
        "nar 4": ours(mask_predict, "next", iterations=4, length_beam=1, **nar),
        "nar 10": ours(mask_predict, "next", iterations=10, length_beam=1, **nar),
        "nar 10 x 3": ours(mask_predict, "next", iterations=10, length_beam=3, **nar),
    }  # fmt: skip


def measured(runs: dict[str, Callable], tokens: int, rounds: int) -> dict[str, list[float]]:
    """CPU seconds per round of each system, interleaved, after one round that does not count."""
    seconds = {name: [] for name in runs}
    for turn in range(rounds + 1):
        for name, run in runs.items():
            start = time.process_time()
            produced = run()
            spent = time.process_time() - start
            wanted = {tokens - 1, tokens, tokens + 1} if name == "nar 10 x 3" else {tokens}
            assert produced <= wanted, f"{name} wrote {produced} tokens, not {tokens}"
            if turn:
                seconds[name].append(spent)
        print(f"\r  round {turn} of {rounds}", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    return seconds


def report(batch: int, tokens: int, seconds: dict[str, list[float]]) -> tuple[dict, list[str]]:
    """Prints one setting's table; returns what is recorded and the floors that do not hold."""
    print(
        f"\nbatch {batch}, {tokens} tokens: CPU ms per sentence (median of {len(seconds['nar 1'])})"
    )
    times = {name: 1000 * statistics.median(s) / batch for name, s in seconds.items()}
    for name, value in times.items():
        print(f"  {name:14} {value:9.1f}")
    ratios, missed = {}, []
    for (base, system), floor in GOALS.items():
        pairs = [a / b for a, b in zip(seconds[base], seconds[system], strict=True)]
        ratio = statistics.median(pairs)
        floor = FLOORS.get((batch, tokens, base, system), floor)
        ratios[f"{base} / {system}"] = round(ratio, 3)
        says = (
            "" if floor is None else f"  floor {floor:g}x {'holds' if ratio >= floor else 'MISSED'}"
        )
        print(f"  {base + ' / ' + system:28} {ratio:6.2f}x{says}")
        if floor is not None and ratio < floor:
            missed.append(f"{base} / {system} at batch {batch}, {tokens} tokens: {ratio:.2f}x")
    return {"ms_per_sentence": times, "ratios": ratios}, missed


def main() -> None:
    """Measure, print, record."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="three rounds, batch 1 only")
    parser.add_argument("--rounds", type=int, help="rounds that count (7; 3 with --quick)")
    parser.add_argument("--check", action="store_true", help="exit with 1 if a floor does not hold")
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    mine, hf = model(), hugging_face()
    sizes = parameters(mine) - parameters(mine.length), parameters(hf)
    print(f"parameters: ours {sizes[0] / 1e6:.1f} M, BART {sizes[1] / 1e6:.1f} M")
    readers = {read: Forced(mine, objective(read), packed=True) for read in ("next", "past")}
    results, missed = {"parameters": sizes}, []
    for batch, tokens in ((1, 14), (1, 40)) if chosen.quick else ((1, 14), (1, 40), (32, 14)):
        sources = [np.array([0, *rng.integers(5, VOCABULARY, tokens - 2), 2]) for _ in range(batch)]
        off = max(farthest(reader, sources[:2], tokens) for reader in readers.values())
        print(f"cached against teacher-forced logits: {off:.1e} apart at most")
        if off > ENOUGH:
            sys.exit(f"cached logits are {off:.1e} from teacher-forced ones: nothing counts")
        rounds = chosen.rounds or (3 if chosen.quick else 7)
        seconds = measured(systems(readers, hf, sources, tokens), tokens, rounds)
        table, low = report(batch, tokens, seconds)
        results[f"batch {batch}, {tokens} tokens"] = table | {"logits_apart": off}
        missed += low
    print(f"\nwritten to {record('decode_speed' + '_quick' * chosen.quick, results)}")
    for line in missed:
        print(f"below the floor: {line}")
    if missed and chosen.check:
        sys.exit(1)


if __name__ == "__main__":
    main()
