"""What drafts are worth at a given acceptance, on a model of any size: random weights, replayed.

`python -m benchmarks.draft_forms [--size small|base] [--batch N ...] [--rounds N]`

The passes are real, and so is what decoding does between them; only the words are a script, which
AR always follows and the draft follows as often as a trained one did (SHARES, by its places, of a
block of 8 on Multi30k: 7.7 M parameters, 1,500 updates).  Each form, and the one that decoding
chooses itself, against greedy in turns; a ratio counts only if all texts are greedy's.
"""

import argparse
import statistics
import sys
import zlib

import numpy as np
import torch

from benchmarks.record import record
from benchmarks.timing import measure, ratio, turns
from januslm.config import Refused
from januslm.data.tokenizer import Special
from januslm.decoding import draft, greedy
from januslm.inference.incremental import IncrementalDecoder
from januslm.model.config import PRESETS, ModelConfig
from januslm.model.transformer import Seq2Seq, parameters
from januslm.objective import LossSettings, resolve_objective

MASKS = 8
# Of a place whose words before are right: how often the first choice is right, and the second.
SHARES = (
    (0.93, 0.05),
    (0.785, 0.12),
    (0.836, 0.1),
    (0.82, 0.1),
    (0.86, 0.08),
    (0.86, 0.08),
    (0.915, 0.05),
    (0.915, 0.05),
)
SIZES = {
    "small": dict(PRESETS["iwslt"], width=256, heads=4, encoder_layers=3, decoder_layers=3)
    | dict(vocabulary=8000, max_positions=256),
    "base": PRESETS["base"] | dict(vocabulary=50272, max_positions=256),
}
SETTINGS = ((1, 14), (1, 40), (8, 14), (32, 14))  # sentences at once, words
LOUD = 1e4  # what is added to the logit of a scripted word
FORMS = {
    "one pass": {"form": "one"},
    "one pass, 4 lines": {"form": "one", "lines": 4},
    "two passes": {"form": "two"},
    "two passes, 4 lines": {"form": "two", "lines": 4},
    "chosen": {"form": "auto"},
}
CHOSEN = "chosen"
FLOORS = {"small": {(1, 14): 1.25, (1, 40): 1.25}, "base": {(1, 14): 1.8, (1, 40): 1.8}}
SLOWER = 0.97  # what is chosen is never slower than greedy, to a jitter


class Replayed(IncrementalDecoder):
    """Real passes whose logits then say a script: word n is `script[n]`, the last is EOS."""

    def __init__(self, model, objective, script: list[int]):
        super().__init__(model, objective, packed=True)
        self.size = parameters(model)  # a packed copy has some of them elsewhere
        self.script = np.array(script)
        self.draws = np.random.default_rng(0)

    def _next(self, place: np.ndarray) -> np.ndarray:
        return self.script[np.minimum(place, len(self.script) - 1)]

    def step(self, state, words=None, parents=None):
        logits = super().step(state, words, parents)
        place = state.at.numpy() - len(self.prefix)
        return self._said(logits, self._next(np.repeat(place[:, None], logits.shape[1], 1)))

    def block(self, state, words):
        before = state.at.numpy() - len(self.prefix)
        logits = super().block(state, words)
        place = before[:, None, None] + 1 + np.arange(words.shape[2])
        return self._said(logits, self._next(np.broadcast_to(place, words.shape)))

    def draft(self, state, words, size, blocks=0, parents=()):
        run = words.shape[1]
        before = state.at.numpy() - len(self.prefix)
        after, behind = super().draft(state, words, size, blocks, parents)
        depth = np.zeros(run, int)
        for word, parent in enumerate(parents or range(-1, run - 1)):
            depth[word] = depth[parent] + 1 if parent >= 0 else 0
        place = before[:, None] + 1 + depth[None, run - after.shape[1] :]
        self._said(after, self._next(place))
        if size:
            at = place[..., None] + np.arange(size)
            self._said(behind, self._drafted(at))
        return after, behind

    def _drafted(self, at: np.ndarray) -> np.ndarray:
        """int64 [..., size, 2]: two choices; the scripted word first, second, or not at all."""
        truth, uniform = self._next(at), self.draws.random(at.shape)
        first, second = np.array(SHARES[: at.shape[-1]]).T
        other = 5 + (truth + 7) % 100
        return np.where(
            (uniform < first)[..., None],
            np.stack([truth, other], -1),
            np.where(
                (uniform < first + second)[..., None],
                np.stack([other, truth], -1),
                np.stack([other, other + 1], -1),
            ),
        )

    def _said(self, logits, words: np.ndarray):
        """In place: these words are the likeliest, the first before the second."""
        ranks = words[..., None] if words.ndim < logits.ndim else words
        index = torch.from_numpy(ranks)
        loud = torch.tensor([LOUD, LOUD / 2])[: index.shape[-1]].to(logits.dtype)
        return logits.scatter_add_(-1, index, loud.expand(index.shape))


def built(size: str, words: int) -> Replayed:
    """A model with random weights and a text of so many words, EOS among them."""
    config = ModelConfig(**SIZES[size])
    special = Special(vocabulary=config.vocabulary)
    table = {"name": "block", "size": MASKS}
    objective = resolve_objective(table, {}, LossSettings(), "nmt", special, "benchmark")
    torch.manual_seed(0)
    model = Seq2Seq(config).eval()
    rng = np.random.default_rng(zlib.crc32(size.encode()))
    return Replayed(model, objective, [*rng.integers(200, 5000, words - 1), special.eos])


def measured(size: str, batch: int, words: int, rounds: int) -> dict:
    """Ratios of greedy's time to each form's; Refused where a text is not greedy's."""
    decoder, device = built(size, words), torch.device("cpu")
    rng, special = np.random.default_rng(1), decoder.special
    sources = [np.array([0, *rng.integers(200, 5000, words), 2]) for _ in range(batch)]
    plain = greedy.decode(decoder, sources, special)
    passes = {}
    for name, given in FORMS.items():
        made = draft.decode(decoder, sources, special, **given)
        if any(a.tokens.tolist() != b.tokens.tolist() for a, b in zip(made, plain, strict=True)):
            raise Refused(f"{name}, batch {batch}: not greedy's words, so nothing counts")
        many = [draft.decode(decoder, sources, special, **given) for _ in range(4)]
        passes[name] = statistics.mean(o.passes for outputs in many for o in outputs)
    runs = {"greedy": lambda: greedy.decode(decoder, sources, special)} | {
        name: (lambda given=given: draft.decode(decoder, sources, special, **given))
        for name, given in FORMS.items()
    }
    times = {
        name: [spent.cpu for spent in each] for name, each in turns(runs, rounds, 2, device).items()
    }
    return {
        "parameters": decoder.size,
        "greedy_ms": 1000 * statistics.median(times["greedy"]),
        "forms": {
            name: vars(ratio(times["greedy"], times[name]))
            | {"fewer_passes": plain[0].passes / passes[name]}
            for name in FORMS
        },
    }


def main() -> int:
    """0; 1 with --check where a floor is missed; 2 and one line for a mistake."""
    parser = argparse.ArgumentParser("python -m benchmarks.draft_forms", description=__doc__)
    parser.add_argument("--size", choices=SIZES, default="small")
    parser.add_argument(
        "--batch", type=int, nargs="+", default=[1, 8, 32], help="sentences at once"
    )
    parser.add_argument("--rounds", type=int, default=9, help="that count (9)")
    parser.add_argument("--check", action="store_true", help="exit with 1 if a floor is missed")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    results, missed = {}, []
    print(f"{asked.size}: {measure(torch.device('cpu'))} time of greedy over each form's\n")
    for batch, words in (one for one in SETTINGS if one[0] in asked.batch):
        try:
            found = measured(asked.size, batch, words, asked.rounds)
        except Refused as error:
            print(f"error: {error}", file=sys.stderr)
            return 2
        results[f"batch {batch}, {words} words"] = found
        print(f"batch {batch}, {words} words: greedy {found['greedy_ms']:.1f} ms")
        for name, row in found["forms"].items():
            span = f"{row['median']:.2f}x ({row['low']:.2f} to {row['high']:.2f})"
            print(f"  {name:20} {span:24} {row['fewer_passes']:.2f}x fewer passes")
        best = found["forms"][CHOSEN]["median"]
        floor = FLOORS[asked.size].get((batch, words), SLOWER)
        if best < floor:
            missed.append(f"batch {batch}, {words} words: {best:.2f}x, floor {floor:g}x")
    print(f"written to {record(f'draft_forms_{asked.size}', {'settings': results})}")
    for line in missed:
        print(f"below the floor: {line}")
    return int(bool(missed) and asked.check)


if __name__ == "__main__":
    sys.exit(main())
