"""The whole public sets, as tasks read them: their splits have the published sizes.

    python -m benchmarks.whole_sets DATA     # SciTLDR and Multi30k in folders of their names

Tests read small excerpts (tests/fixtures); what can only be seen on the whole is counted here and
written to results/whole_sets.json.  Exit code 1 where a number is not the published one.
"""

import argparse
import sys
from collections import Counter
from pathlib import Path

from benchmarks.record import record
from januslm.config import Refused
from januslm.data.text_pairs import SPLITS
from januslm.registry import find

# Pairs of train, valid, test.  SciTLDR publishes 1,992 and 619; a tenth of train validates.
PUBLISHED = {
    "scitldr": {"train + valid": 1992, "test": 619},
    "multi30k": {"train": 29_000, "valid": 1014, "test": 1000},
}


def counted(task: str, data: Path) -> dict:
    """Pairs of each split, how many references a test source has, sources of train in valid."""
    splits = {split: list(find("finetune.tasks", task).read(data, split)) for split in SPLITS}
    sources = {split: {pair.source for pair in pairs} for split, pairs in splits.items()}
    return {
        "pairs": {split: len(pairs) for split, pairs in splits.items()},
        "references": dict(sorted(Counter(len(p.targets) for p in splits["test"]).items())),
        "in train and valid": len(sources["train"] & sources["valid"]),
    }


def differing(task: str, pairs: dict[str, int]) -> list[str]:
    """The splits whose sizes are not those that were published, in words."""
    sums = {name: sum(pairs[part] for part in name.split(" + ")) for name in PUBLISHED[task]}
    return [
        f"{task}: {name} has {sums[name]:,} pairs, published are {wanted:,}"
        for name, wanted in PUBLISHED[task].items()
        if sums[name] != wanted
    ]


def main() -> int:
    """Exit code: 0, 1 where a size is another, 2 where there is no data."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path, help="the folder of the sets")
    data, results, wrong = parser.parse_args().data, {}, []
    try:
        for task in PUBLISHED:
            results[task] = counted(task, data)
            print(f"{task}: {results[task]}")
            wrong += differing(task, results[task]["pairs"])
    except Refused as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    for line in wrong:
        print(line, file=sys.stderr)
    if not wrong:
        print(f"written: {record('whole_sets', results)}")
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main())
