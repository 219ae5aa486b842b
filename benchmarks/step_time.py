"""Training step: ours against the reference pattern, same weights, same sentences, same noise.

`python -m benchmarks.step_time [--quick] [--order length|fairseq] [--rounds N]`
One thread, CPU time of the process, interleaved rounds, median of the paired ratios.  The ratio
counts only if loss and every gradient agree in the same run (dropout 0), else the command fails.
"""

import argparse
import copy
import gzip
import os
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import reference
from benchmarks.record import record
from januslm.data import tokenizer
from januslm.data.sampler import sample_rng
from januslm.layout import Example
from januslm.model.config import ModelConfig, configure
from januslm.model.joint_loss import ModelWithLoss
from januslm.model.packing import Batch, Packer
from januslm.model.transformer import Seq2Seq, flops, parameters
from januslm.objective import LossSettings, resolve_objective

ROOT = Path(__file__).resolve().parents[1]
MAX_TOKENS = 1024  # fairseq's --max-tokens: sentences times the longest of them
SENTENCES = 46  # what --max-tokens 1024 gives at typical lengths
ENOUGH = 1e-4  # how far loss and gradients may differ, relative to the largest entry


def lengths() -> list[tuple[int, int]]:
    """(source, target) lengths of Multi30k de-en in BPE tokens, BOS and EOS included."""
    folder = Path(os.environ.get("JANUSLM_DATA", ROOT.parent / "shared" / "data")) / "multi30k"
    if not folder.is_dir():
        sys.exit(f"no {folder}: set JANUSLM_DATA to a folder with multi30k/train.de.gz and .en.gz")
    sides = [
        gzip.decompress((folder / f"train.{language}.gz").read_bytes()).decode().splitlines()
        for language in ("de", "en")
    ]
    path = ROOT / "build" / "multi30k-8000.json"
    path.parent.mkdir(exist_ok=True)
    words = tokenizer.train_tokenizer([*sides[0], *sides[1]], 8000, path)
    source, target = ([len(x) + 2 for x in words.encode(side)] for side in sides)
    return list(zip(source, target, strict=True))


def batch_lengths(pairs: list[tuple[int, int]], order: str, wanted: int) -> list[tuple[int, int]]:
    """One batch of fairseq's: sorted by source length, ties shuffled ("length") or by target.

    The first batch of `wanted` sentences, or the middle one where there is none.
    """
    pairs = np.array(pairs)[np.random.default_rng(0).permutation(len(pairs))]
    if order == "fairseq":
        pairs = pairs[np.argsort(pairs[:, 1], kind="stable")]
    pairs = pairs[np.argsort(pairs[:, 0], kind="stable")]
    batches, longest = [[]], 0
    for pair in pairs:
        longest = max(longest, *pair)
        if longest * (len(batches[-1]) + 1) > MAX_TOKENS:
            batches, longest = [*batches, []], max(pair)
        batches[-1].append(tuple(int(x) for x in pair))
    exact = [b for b in batches if len(b) == wanted]
    return exact[0] if exact else batches[len(batches) // 2]


def examples(sizes: list[tuple[int, int]], objective, vocabulary: int) -> list[Example]:
    """Random words at real lengths; the noise of each is its own."""
    rng = np.random.default_rng(1)

    def sentence(size: int) -> np.ndarray:
        return np.concatenate([[0], rng.integers(5, vocabulary, size - 2), [2]])

    return [
        objective.example(sentence(n), sentence(t), sample_rng(0, i))
        for i, (n, t) in enumerate(sizes)
    ]


def ours(trained: ModelWithLoss, batch: Batch) -> Tensor:
    """Loss of one step in our way."""
    weights = trained.loss.weights
    return trained(batch, {k: w / max(batch.counts[k], 1) for k, w in weights.items()})[0]


def gradients(model: Seq2Seq, loss: Callable[[], Tensor]) -> tuple[float, dict[str, Tensor]]:
    """Loss and gradient by parameter name."""
    model.zero_grad()
    value = loss()
    value.backward()
    return value.item(), {n: p.grad.clone() for n, p in model.named_parameters()}


def difference(model: Seq2Seq, wanted: Callable[[], Tensor], found: Callable[[], Tensor]) -> dict:
    """Largest differences of loss and gradients, relative to the largest entry of each.

    To be taken in float64: in float32 a ReLU input near zero may fall on either side, and then two
    correct programs differ in one slot's whole gradient.
    """
    (b, grad_b), (a, grad_a) = gradients(model, wanted), gradients(model, found)
    worst = {n: ((grad_a[n] - g).abs().max() / g.abs().max()).item() for n, g in grad_b.items()}
    name = max(worst, key=worst.get)
    return {"loss": abs(a - b) / abs(b), "gradient": worst[name], "worst": name, "value": b}


def counted(loss: Callable[[], Tensor]) -> float:
    """FLOPs of forward and backward by torch's own counter, which does not see addmm_ in place."""
    with FlopCounterMode(display=False) as counter:
        loss().backward()
    return float(counter.get_total_flops())


def missed(batch: Batch, config: ModelConfig) -> float:
    """The products that go through addmm_: the vocabulary's gradient in the fused loss."""
    return 2.0 * sum(s.rows.numel() for s in batch.loss_groups) * config.width * config.vocabulary


def peak(model: Seq2Seq, loss: Callable[[], Tensor]) -> float:
    """Bytes the allocator holds at most during a step, over what it held before.

    Gradients exist before, so this is activations, temporaries and nothing that stays.
    """
    model.zero_grad(set_to_none=False)
    activities = [torch.profiler.ProfilerActivity.CPU]
    with torch.profiler.profile(activities=activities, profile_memory=True) as profile:
        loss().backward()
    events = [e for e in profile.profiler.kineto_results.events() if e.name() == "[memory]"]
    events.sort(key=lambda e: e.start_ns())
    return float(np.cumsum([e.nbytes() for e in events]).max())


def saved(model: Seq2Seq, loss: Callable[[], Tensor]) -> float:
    """Bytes that the graph keeps from forward to backward, parameters apart, each storage once."""
    own = {p.untyped_storage().data_ptr() for p in model.parameters()}
    kept = {}

    def pack(x: Tensor) -> Tensor:
        storage = x.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        return x

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
        value = loss()
    value.backward()
    return float(sum(kept.values()))


def paired(model: Seq2Seq, steps: dict[str, Callable[[], Tensor]], rounds: int) -> dict:
    """CPU seconds of each step, round after round, the first round left out."""
    seconds = {name: [] for name in steps}
    for turn in range(rounds + 1):
        for name, loss in steps.items():
            model.zero_grad()
            start = time.process_time()
            loss().backward()
            if turn:
                seconds[name].append(time.process_time() - start)
        print(f"round {turn} of {rounds}" + (" (warm-up)" if not turn else ""), flush=True)
    return seconds


def setting(quick: bool, order: str) -> tuple[ModelWithLoss, list[Example], Batch]:
    """The model of the fairseq IWSLT scripts (or a small one), and one batch."""
    table = {"preset": "iwslt", "dropout": 0.0}
    vocabulary, wanted = 32000, SENTENCES
    if quick:
        table |= {"width": 128, "ffn": 256, "encoder_layers": 2, "decoder_layers": 2}
        vocabulary = 8000
    config = configure(table, vocabulary, "step_time")
    objective = resolve_objective(
        {"name": "janus"}, {}, LossSettings(), "nmt", tokenizer.Special(), "step_time"
    )
    torch.manual_seed(0)
    trained = ModelWithLoss(Seq2Seq(config), objective.loss)
    made = examples(batch_lengths(lengths(), order, wanted), objective, vocabulary)
    return trained, made, Packer(objective.loss.weights)(made)


def both(trained: ModelWithLoss, padded: reference.Padded, batch: Batch) -> dict:
    """The two steps to compare, by name: each gives the loss of its way."""
    return {
        "reference": lambda: reference.loss(trained.model, padded),
        "ours": lambda: ours(trained, batch),
    }


def measure(quick: bool, order: str, rounds: int) -> dict:
    """Equality, FLOPs, memory and time of both, on one batch."""
    trained, made, batch = setting(quick, order)
    model, padded = trained.model, reference.padded(made)
    steps = both(trained, padded, batch)
    exact = copy.deepcopy(trained).double()
    result = {
        "order": order,
        "sentences": len(made),
        "target_tokens": batch.tokens,
        "slots": batch.sizes["slots"],
        "vocabulary_rows": batch.sizes["goals"],
        "padded_slots": sum(
            s.token.numel() for s in (padded.past, padded.next, padded.content, padded.query)
        ),
        "parameters": parameters(model),
        "difference": difference(exact.model, *both(exact, padded, batch).values()),
        "difference_float32": difference(model, *steps.values()),
    }
    del exact
    found = result["difference"]
    if max(found["loss"], found["gradient"]) > ENOUGH:
        sys.exit(f"not the same step, so no ratio: {found}")
    result["gflop"] = {name: counted(loss) / 1e9 for name, loss in steps.items()}
    result["gflop"]["ours"] += missed(batch, model.config) / 1e9
    result["gflop"]["ours, analytic"] = flops(model.config, batch.sizes) / 1e9
    result["peak_mib"] = {name: peak(model, loss) / 2**20 for name, loss in steps.items()}
    result["saved_mib"] = {name: saved(model, loss) / 2**20 for name, loss in steps.items()}
    with_dropout(model, 0.1)
    result["seconds"] = paired(model, steps, rounds)
    ratios = [a / b for a, b in zip(*result["seconds"].values(), strict=True)]
    return result | {"ratios": ratios, "ratio": statistics.median(ratios)}


def with_dropout(model: Seq2Seq, rate: float) -> None:
    """Timing is done as in training, with dropout; equality cannot be."""
    model.config = type(model.config)(**(vars(model.config) | {"dropout": rate}))
    for stack in (model.encoder, model.decoder):
        stack.config = model.config
        for layer in stack.layers:
            layer.drop = rate


def show(result: dict) -> None:
    """The table of both."""
    found, rough, seconds = (result[k] for k in ("difference", "difference_float32", "seconds"))
    print(
        f"\nMulti30k lengths, order {result['order']}: {result['sentences']} sentences, "
        f"{result['target_tokens']} target tokens, {result['slots']} slots "
        f"({result['padded_slots']} when padded), {result['vocabulary_rows']} vocabulary rows\n"
        f"same step in float64: loss {found['loss']:.1e}, gradients {found['gradient']:.1e}; in "
        f"float32: {rough['loss']:.1e}, {rough['gradient']:.1e} (relative; {found['worst']})\n"
    )
    print(f"{'':24}{'reference':>12}{'ours':>12}{'ratio':>8}")
    rows = {
        "GFLOP, counted": result["gflop"],
        "peak memory MiB": result["peak_mib"],
        "kept for backward MiB": result["saved_mib"],
        "CPU s, median": {k: statistics.median(v) for k, v in seconds.items()},
    }
    for name, row in rows.items():
        one, other = row["reference"], row["ours"]
        print(f"{name:24}{one:12.2f}{other:12.2f}{one / other:8.2f}")
    print(f"GFLOP of ours by the formula: {result['gflop']['ours, analytic']:.1f}")
    print(f"median paired ratio: {result['ratio']:.2f}x  {[round(r, 2) for r in result['ratios']]}")


def main() -> None:
    """Measure, print, write benchmarks/results/step_time.json."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a small model, 3 rounds")
    parser.add_argument("--order", choices=("length", "fairseq"), default="length")
    parser.add_argument("--rounds", type=int)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    rounds = asked.rounds or (3 if asked.quick else 7)
    result = measure(asked.quick, asked.order, rounds)
    show(result)
    name = (
        "step_time"
        + ("_quick" if asked.quick else "")
        + ("_fairseq_order" if asked.order == "fairseq" else "")
    )
    print(record(name, result))


if __name__ == "__main__":
    main()
