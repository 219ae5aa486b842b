"""How well the share of drafts that AR would accept predicts how many passes they save.

`python -m benchmarks.acceptance RUN... [--limit 200]`
    For each trained run: accept/ar~NAME on its test texts, as validation measures it, and the
    passes of `speculative` or `draft`, where it has learnt them, against greedy's.

One thread, fp32; valid only where every text is greedy's.  Results: benchmarks/results/.
"""

import argparse
import sys
from itertools import islice

import numpy as np
import torch

from benchmarks.record import record
from januslm.cli.table import drawn
from januslm.config import Refused
from januslm.data.sampler import sample_rng
from januslm.decoding import draft, greedy, speculative
from januslm.inference import request
from januslm.inference.trained_model import TrainedModel
from januslm.model import losses
from januslm.model.packing import Packer

WAYS = {"speculative": speculative, "draft": draft}
BATCH = 16


def main() -> int:
    """0; 1 where a text differs from greedy's; 2 and one line for a mistake of the user's."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", nargs="+", metavar="RUN")
    parser.add_argument("--limit", type=int, default=200)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    try:
        found = [row for run in asked.runs for row in measured(run, asked.limit)]
    except Refused as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    head = ["run", "draft of", "accepted", "way", "passes", "greedy's", "fewer", "same texts"]
    print(drawn([head, *[[str(value) for value in row.values()] for row in found]]))
    print(record("acceptance", {"limit": asked.limit, "rows": found}))
    return int(any(row["same"] != asked.limit for row in found))


def measured(run: str, limit: int) -> list[dict]:
    """A row for each way of writing with drafts that the run has learnt."""
    trained = request.find(run)
    model = TrainedModel(trained.facts)
    objective, tokenizer = request.objective(trained.facts), trained.facts.tokenizer
    pairs = list(islice(trained.task.read(trained.root, "test"), limit))
    special = tokenizer.special
    sides = [
        [np.array([special.bos, *ids, special.eos], np.int64) for ids in tokenizer.encode(texts)]
        for texts in ([p.source for p in pairs], [p.targets[0] for p in pairs])
    ]
    shares = accepted(model, objective, *sides)
    decoder, ways = model.incremental(), request.taught(trained.facts, WAYS)
    plain = written(greedy, decoder, sides[0], special)
    rows = []
    for way in ways:
        drafted = written(WAYS[way], decoder, sides[0], special)
        same = sum(
            a.tokens.tolist() == b.tokens.tolist() for a, b in zip(drafted, plain, strict=True)
        )
        passes, before = (float(np.mean([o.passes for o in x])) for x in (drafted, plain))
        for name, share in shares.items():
            rows.append(
                {
                    "run": run,
                    "draft": name,
                    "accepted": round(share, 4),
                    "way": way,
                    "passes": round(passes, 2),
                    "greedy": round(before, 2),
                    "fewer": round(before / passes, 3),
                    "same": same,
                }
            )
    return rows


@torch.inference_mode()
def accepted(model: TrainedModel, objective, sources, targets) -> dict[str, float]:
    """Mean over the words that both predict of sum_v min(p_ar, p_NAME), by NAME."""
    terms = dict.fromkeys(objective.measured, 0.0)
    sums, counts = dict.fromkeys(terms, 0.0), dict.fromkeys(terms, 0)
    for start in range(0, len(sources), BATCH):
        made = [
            objective.example(source, target, sample_rng(0, start + i))
            for i, (source, target) in enumerate(
                zip(sources[start:][:BATCH], targets[start:][:BATCH], strict=True)
            )
        ]
        batch = Packer(terms)(made)
        hidden, _ = model(batch)
        _, found = losses.fused(hidden, model.vocabulary_weight(), batch.loss_groups, terms)
        for name, value in found.items():
            sums[name] += float(value)
            counts[name] += batch.counts[name]
    return {name.partition("~")[2]: sums[name] / counts[name] for name in terms if counts[name]}


def written(way, decoder, sources, special) -> list:
    """Outputs of all sources, in batches."""
    starts = range(0, len(sources), BATCH)
    return [o for at in starts for o in way.decode(decoder, sources[at : at + BATCH], special)]


if __name__ == "__main__":
    sys.exit(main())
