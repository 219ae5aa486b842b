"""The loop that has many texts written, one or several ways side by side, and what it took."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from januslm.decoding import Output


@dataclass(frozen=True)
class Generated:
    """What one way wrote, in the order of the texts, and what it took."""

    outputs: list[Output]
    seconds: float  # by the clock
    cpu_seconds: float  # of this process: what a busy machine does not stretch

    @property
    def tokens(self) -> int:
        return sum(len(o.tokens) for o in self.outputs)

    @property
    def passes(self) -> float:
        """Decoder passes a sentence."""
        return sum(o.passes for o in self.outputs) / len(self.outputs)


def write(
    decoder,
    ways: Mapping[str, Callable],
    arrays: Sequence[np.ndarray],
    special,
    batch: int,
    tick: Callable[[int], None] = lambda done: None,
) -> dict[str, Generated]:
    """Have each way write the texts of int64 [N] sources, in batches of like length, longest first.

    ways: name -> way(decoder, sources, special); all of them write a batch before the next one, so
    that a busy machine slows all alike.  tick: gets how many texts are done.
    """
    order = np.argsort([-len(a) for a in arrays], kind="stable")
    outputs: dict[str, list] = {name: [None] * len(arrays) for name in ways}
    seconds, cpu_seconds = dict.fromkeys(ways, 0.0), dict.fromkeys(ways, 0.0)
    for start in range(0, len(order), batch):
        mine = order[start : start + batch]
        for name, way in ways.items():
            before, cpu_before = time.perf_counter(), time.process_time()
            answers = way(decoder, [arrays[i] for i in mine], special)
            seconds[name] += time.perf_counter() - before
            cpu_seconds[name] += time.process_time() - cpu_before
            for i, output in zip(mine, answers, strict=True):
                outputs[name][i] = output
        tick(start + len(mine))
    return {name: Generated(outputs[name], seconds[name], cpu_seconds[name]) for name in ways}


def text(tokenizer, output: Output) -> str:
    """The words of an output on one line."""
    return " ".join(tokenizer.decode(output.tokens).split())
