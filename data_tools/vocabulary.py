"""Learns a tokenizer from the training documents of a corpus."""

from collections import Counter
from collections.abc import Callable

from data_tools.parts import passed, split_of
from data_tools.pool import finished, pool
from data_tools.progress import Progress
from data_tools.recipe import Bundle, Recipe, bundles
from januslm.config import Refused
from januslm.tokenizer import Tokenizer, train


def learn(recipe: Recipe, say: Callable[[str], None], fresh: bool = False) -> None:
    """Write the recipe's tokenizer file, unless it is there; raises Refused without any text."""
    path = recipe.tokenizer_file
    if path.exists() and not fresh:
        say(f"{path}: already there, {Tokenizer.load(path).size:,} tokens (--fresh learns it anew)")
        return
    work = bundles(recipe)
    everything = max(1, sum(bundle.bytes for bundle in work))
    tasks = [
        (bundle, recipe, int(recipe.tokenizer_megabytes * 1e6 * bundle.bytes / everything))
        for bundle in sorted(work, key=lambda bundle: -bundle.bytes)
    ]
    progress = Progress("tokenizer")
    found: dict[int, list[str]] = {}
    with pool(recipe.processes) as executor:
        for place, texts in finished(
            executor, _texts, tasks, lambda done: progress.show(f"read {done} of {len(work)} parts")
        ):
            found[place] = texts
    size = sum(len(text) for texts in found.values() for text in texts)
    if not size:
        raise Refused(f"{recipe.out}: the sources hold no text to learn a tokenizer from")
    progress.show(f"learning from {size / 1e6:.1f} M letters")
    tokenizer = train(
        (text for _, texts in sorted(found.items()) for text in texts), recipe.vocabulary, path
    )
    progress.end()
    say(
        f"{path}: {tokenizer.size:,} tokens from {size / 1e6:.1f} M letters "
        f"in {progress.seconds:.0f} s"
    )


def _texts(bundle: Bundle, recipe: Recipe, most: int) -> list[str]:
    """The first documents of a bundle, up to `most` bytes, without the held-out ones."""
    texts, size = [], 0
    for document, raw in passed(bundle, recipe, Counter()):
        if size >= most:
            break
        if not split_of(document, raw, recipe):
            texts.append(document.text)
            size += len(raw)
    return texts
