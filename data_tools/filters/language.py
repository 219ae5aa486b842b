"""Documents in other languages, found by py3langid (140 of them, no download)."""

from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import Annotated

from data_tools.documents import Document, Dropped
from data_tools.filtering import Prepared
from januslm.config import Allowed, Refused, suggest


def prepared(root: Path, folder: Path, **options) -> Prepared:
    """The rule as it is; Refused for a language that is not known."""
    known = _identifier().labels
    for name in options["languages"]:
        if name not in known:
            raise Refused(f"languages: no {name!r}{suggest(name, known)}")
    return Prepared(partial(of_text, **options))


def of_text(
    document: Document,
    *,
    languages: tuple[str, ...] = ("en",),
    least: Annotated[float, Allowed(low=0, high=1)] = 0.65,
    characters: Annotated[int, Allowed(low=0)] = 0,
) -> Document | Dropped:
    """Drop what is in another language or in none for sure; keep the finding as `facts`.

    languages: ISO 639-1 codes; none keeps all, with their `facts`.
    least: the least probability of the most probable language; FineWeb's.
    characters: so many from the beginning are looked at, which is faster; 0: all.
    """
    found, score = _identifier().classify(document.text[: characters or None])
    if score < least:
        return Dropped(f"language: none above {least:g}", score, found)
    if languages and found not in languages:
        return Dropped(f"language: {found}", score)
    facts = {**document.facts, "language": found, "language_score": round(score, 4)}
    return replace(document, facts=facts)


@cache
def _identifier():
    try:
        from py3langid.langid import MODEL_FILE, LanguageIdentifier
    except ImportError:
        raise Refused("needs py3langid: pip install 'januslm[web]'") from None
    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
