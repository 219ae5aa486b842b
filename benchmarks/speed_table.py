"""The table of a trained model's speed and quality, for people."""

from collections.abc import Mapping, Sequence

from benchmarks.decode_trained import BEAM, GREEDY
from januslm.cli.table import drawn

LATENCY = ("cpu p50", "cpu p95", "wall p50", "wall p95")


def show(results: Mapping) -> None:
    """Prints what benchmarks.decode_trained.run found."""
    rows = results["ways"]
    columns = list(next(iter(rows.values()))["scores"])
    kind = "wall" if results["precision"] == "bf16" else "CPU"
    count = results["timed_sentences"]
    print(
        f"\nQuality and passes: all {results['sentences']} sentences, as `generate` and `evaluate` "
        "give them; \u00b1 is half of the 95 % interval.\n"
        f"Time: {count} of them, one process, one thread, {results['precision']}, tokenizing "
        f"left out; systems in turns,\n{results['warm_ups']} rounds to warm up and "
        f"{results['rounds']} that count, medians; p50 and p95 ms are CPU time of a sentence "
        "alone,\nwall is by the clock; "
        f'"vs" is the median of paired ratios of {kind} time at batch 1.\n'
        "NAR n: n iterations over the likeliest length; x 5: over five lengths; AR chooses: the AR "
        "streams choose among them.\n"
    )
    head = ["", *columns, "p50 ms", "p95 ms", "p50 wall", "p95 wall", f"vs {BEAM}", f"vs {GREEDY}"]
    head += ["passes", "tokens/pass", "same texts"]
    body = [
        [
            name,
            *(_scored(row["scores"][c]) for c in columns),
            *(f"{row['ms_at_batch_1'][k]:.1f}" for k in LATENCY),
            *(_ratio(results, base, name) for base in (BEAM, GREEDY)),
            f"{row['passes']:.1f}",
            f"{row['tokens_per_pass']:.2f}",
            f"{row['same_texts']}/{count}",
        ]
        for name, row in rows.items()
    ]
    print(drawn([head, *body]))
    sizes = list(next(iter(rows.values()))["sentences_per_second"])
    print(f"\nSentences a second ({kind} time) by batch:\n")
    head = ["", *(f"batch {size}" for size in sizes), "best batch"]
    body = [
        [name, *(f"{row['sentences_per_second'][s]:.1f}" for s in sizes), str(row["best_batch"])]
        for name, row in rows.items()
    ]
    print(drawn([head, *body]) + "\n")
    for name, row in rows.items():
        if found := row.get("verified"):
            print(
                f"{name}: identical to {GREEDY} {found['identical']} of {results['sentences']}, "
                f"{found['fewer_passes']:.2f}x fewer passes"
            )


def _scored(pair: Sequence[float | None]) -> str:
    value, half = pair
    return f"{value:.2f}" + ("" if half is None else f" \u00b1{half:.2f}")


def _ratio(results: Mapping, base: str, name: str) -> str:
    found = results["ratios_at_batch_1"].get(f"{base} / {name}")
    return f"{found['median']:.2f}x" if found else "-"
