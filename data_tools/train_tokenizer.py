"""Learns a tokenizer from the training documents of a corpus."""

from collections import Counter
from collections.abc import Callable
from concurrent.futures import Executor
from functools import partial

from data_tools.readable import NOTHING, Tally, poor_files, tallied
from data_tools.recipe import Bundle, Recipe, bundles
from data_tools.tokenize_parts import passed, split_of
from data_tools.workers import finished, pool
from januslm.cli.progress import Progress, waiting
from januslm.config import Refused
from januslm.data.tokenizer import Tokenizer, train_tokenizer

Report = Callable[[str], None]


def learn(recipe: Recipe, report: Report, fresh: bool = False) -> None:
    """Write the recipe's tokenizer file, unless it is there; raises Refused without any text."""
    path = recipe.tokenizer_file
    if path.exists() and not fresh:
        report(
            f"{path}: already there, {Tokenizer.load(path).size:,} tokens (--fresh learns it anew)"
        )
        return
    with pool(recipe.processes) as executor:
        learn_with(executor, recipe, bundles(recipe), report)


def learn_with(executor: Executor, recipe: Recipe, work: list[Bundle], report: Report) -> None:
    """Read the texts in the executor's processes, learn and write the tokenizer here."""
    everything = max(1, sum(bundle.bytes for bundle in work))
    share = recipe.tokenizer_megabytes * 1e6 / everything
    tasks = [
        partial(_texts, bundle, recipe=recipe, most=int(share * bundle.bytes)) for bundle in work
    ]
    progress = Progress("tokenizer", len(work), "parts read")
    found: dict[int, list[str]] = {}
    tallies = []
    for place, (texts, tally) in finished(executor, tasks, progress.show):
        found[place] = texts
        tallies.append((work[place].source, tally.read, tally.files))
    progress.end()
    poor_files(recipe, tallied(tallies), NOTHING if recipe.minimum_kept else 0)
    size = sum(len(text) for texts in found.values() for text in texts)
    if not size:
        raise Refused(f"{recipe.out}: the sources hold no text to learn a tokenizer from")
    what = f"learning {recipe.vocabulary:,} tokens from {size / 1e6:.1f} M letters"
    report(what)
    every = (text for _, texts in sorted(found.items()) for text in texts)
    with waiting(what):
        tokenizer = train_tokenizer(every, recipe.vocabulary, recipe.tokenizer_file)
    report(
        f"{recipe.tokenizer_file}: {tokenizer.size:,} tokens from {size / 1e6:.1f} M letters "
        f"in {progress.seconds:.0f} s"
    )


def _texts(bundle: Bundle, recipe: Recipe, most: int) -> tuple[list[str], Tally]:
    """The first documents of a bundle, up to `most` bytes, without the held-out ones."""
    texts, size = [], 0
    counts, tally = Counter[str](), Tally()
    for document in passed(bundle, recipe, counts, tally):
        if size >= most:
            break
        if not split_of(document, recipe):
            texts.append(document.text)
            size += len(document.raw)
    tally.read = counts["read"]  # of the file that was left in its middle, too
    return texts, tally
