"""How much a run trains on each of several corpora: weights for its run file, and what they mean.

A run's mix is `[[data.train]]` with whole weights in samples (januslm/data/sampler.py): nothing is
copied, a corpus that is used up begins its next epoch in another order.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import gcd, isfinite
from pathlib import Path
from typing import Literal

from januslm.cli.table import drawn
from januslm.config import Refused
from januslm.data import atomic
from januslm.data.sampler import LONGEST_PERIOD
from januslm.data.shards import MANIFEST, Corpus, open_corpus

By = Literal["weights", "epochs", "temperature"]
FINEST = 4096  # what weights sum to at most, or nearly
PRECISION = 1e-3  # of a share, where that is possible


@dataclass(frozen=True)
class Source:
    """One corpus of a mix.  share: of the tokens that are trained on; samples: in an epoch."""

    corpus: Corpus
    share: float
    samples: int

    @property
    def tokens_per_sample(self) -> float:
        """On average."""
        return self.corpus.tokens / self.samples


def mix(
    given: Sequence[str],
    by: By,
    report: Callable[[str], None],
    *,
    temperature: float = 1.0,
    tokens: float = 0.0,
    unit: str = "pieces",
    length: int = 512,
    out: str = "",
) -> None:
    """Print the run file's lines for a mix, and what each corpus then is of it.

    given: CORPUS=NUMBER, the weights in tokens or the epochs; CORPUS alone for a temperature T, by
    which shares are as size^(1/T): 1 as the corpora are, more for the small ones.  tokens: to train
    on; 0: the epochs' sum, or until the first corpus is used up.
    """
    named = [_named(one, by) for one in given]
    corpora = [open_corpus(_folder(name, "train")) for name, _ in named]
    sha = corpora[0].manifest["tokenizer"]
    for corpus in corpora:
        open_corpus(corpus.folder, sha)  # says it, if the tokenizers differ
    sizes = [corpus.tokens for corpus in corpora]
    if by == "temperature":
        raw = [size ** (1 / temperature) for size in sizes]
    else:
        numbers = [number for _, number in named]
        raw = [n * size if by == "epochs" else n for n, size in zip(numbers, sizes, strict=True)]
    sources = [
        Source(corpus, value / sum(raw), _samples(corpus, unit, length))
        for corpus, value in zip(corpora, raw, strict=True)
    ]
    weights = whole_weights([s.share / s.tokens_per_sample for s in sources])
    total = tokens or (sum(raw) if by == "epochs" else _first_used_up(sources, weights))
    report(_table(sources, weights, total))
    text = _lines([name for name, _ in named], weights)
    report(text.rstrip())
    if out:
        with atomic.plain(out) as file:
            file.write(text)


def _named(one: str, by: By) -> tuple[str, float]:
    if by == "temperature":
        return one, 1.0
    name, equals, text = one.rpartition("=")
    try:
        number = float(text)
    except ValueError:
        number = 0.0
    if not (equals and number > 0 and isfinite(number)):
        raise Refused(f"{one!r}: write CORPUS=NUMBER, its {by} above 0, e.g. corpora/web/train=3")
    return name, number


def _folder(given: str, split: str) -> Path:
    """The corpus itself, or the split that lies in it."""
    inside = Path(given) / split
    return inside if (inside / MANIFEST).exists() else Path(given)


def _samples(corpus: Corpus, unit: str, length: int) -> int:
    """In an epoch, as januslm/data/token_samples.py counts them."""
    room = length - 2  # BOS and EOS
    found = corpus.windows(room) if unit == "windows" else corpus.pieces(room)
    if not found:
        raise Refused(f"{corpus.folder}: no {unit} of {room} tokens in its documents")
    return found


def whole_weights(shares: Sequence[float]) -> list[int]:
    """Whole numbers, from 1 up and as small as can be, in about these proportions.

    The smallest sum up to FINEST whose proportions have PRECISION, else FINEST.
    """
    exact = [share / sum(shares) for share in shares]
    most = min(max(FINEST, 8 * len(shares)), LONGEST_PERIOD)
    for period in range(len(shares), most + 1):
        weights = [max(1, round(share * period)) for share in exact]
        found = [weight / sum(weights) for weight in weights]
        if all(abs(f - e) <= e * PRECISION for f, e in zip(found, exact, strict=True)):
            break
    common = gcd(*weights)
    return [weight // common for weight in weights]


def _tokens(sources: Sequence[Source], weights: Sequence[int]) -> list[float]:
    """Of each corpus, in a round of the mix."""
    return [w * source.tokens_per_sample for w, source in zip(weights, sources, strict=True)]


def _first_used_up(sources: Sequence[Source], weights: Sequence[int]) -> float:
    """Tokens of the whole mix until one corpus has been read once."""
    each = _tokens(sources, weights)
    return min(s.corpus.tokens / own for s, own in zip(sources, each, strict=True)) * sum(each)


def _table(sources: Sequence[Source], weights: Sequence[int], total: float) -> str:
    each = _tokens(sources, weights)
    rows = [("corpus", "tokens", "weight", "share", "trained on", "epochs")]
    for source, weight, own in zip(sources, weights, each, strict=True):
        part = total * own / sum(each)
        rows.append(
            (
                str(source.corpus.folder),
                f"{source.corpus.tokens:,}",
                f"{weight:,}",
                f"{own / sum(each):.2%}",
                f"{part:,.0f}",
                f"{part / source.corpus.tokens:.2f}",
            )
        )
    whole = sum(source.corpus.tokens for source in sources)
    rows.append(("together", f"{whole:,}", "", "100.00%", f"{total:,.0f}", f"{total / whole:.2f}"))
    return drawn(rows)


def _lines(names: Sequence[str], weights: Sequence[int]) -> str:
    """The tables of a run file; validation on each corpus that has some, as much of each."""
    lines = ["# januslm data mix: weights are samples per round"]
    for name, weight in zip(names, weights, strict=True):
        lines += ["[[data.train]]", f'corpus = "{_folder(name, "train")}"', f"weight = {weight}"]
    for name in names:
        folder = _folder(name, "valid")
        if (folder / MANIFEST).exists() and folder != Path(name):
            lines += ["[[data.valid]]", f'corpus = "{folder}"']
    return "\n".join(lines) + "\n"
