"""Whether a source could read its files: a wrong key must not lose half a corpus in silence."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from data_tools.recipe import Recipe
from januslm.config import Refused

READ = "read"
SHOWN = 5  # files and reasons in a message
NOTHING = 1e-12  # as a share: only where nothing at all was kept


@dataclass
class Tally:
    """What a source found in files: how many documents, and what it could not read of which file.

    files: by name "read" and the number of each reason, where there was one or nothing was read.
    """

    read: int = 0
    files: dict[str, dict[str, int]] = field(default_factory=dict)

    def note(self, name: str, read: int, dropped: Counter) -> None:
        """Add a file, or another piece of it."""
        self.read += read
        if dropped or not read:
            one = Counter(self.files.get(name, {}))
            self.files[name] = dict(one + Counter({READ: read, **dropped})) or {READ: 0}

    @property
    def dropped(self) -> int:
        """How many documents could not be read."""
        return sum(_lost(one) for one in self.files.values())


def tallied(parts: Iterable[tuple[str, int, dict[str, dict[str, int]]]]) -> dict[str, Tally]:
    """What whole sources found, from (source, documents read, files) of each part."""
    sources: dict[str, Tally] = {}
    for source, read, files in parts:
        whole = sources.setdefault(source, Tally())
        whole.read += read
        for name, one in files.items():
            whole.files[name] = dict(Counter(whole.files.get(name, {})) + Counter(one)) or {READ: 0}
    return sources


def poor_files(recipe: Recipe, sources: dict[str, Tally], share: float) -> list[str]:
    """A line for each of the first files that gave less than a share of their documents.

    Refused, with the file that lost most, the key and the reasons, for a source that did so as a
    whole.  share: 0 asks for nothing.
    """
    lines = []
    for source, tally in sources.items():
        poor = {name: one for name, one in tally.files.items() if _is_poor(one, share)}
        if _below(tally.read - tally.dropped, tally.read, share):
            name = max(poor or tally.files, key=lambda one: _lost(tally.files[one]), default="")
            where = f"{name}: {_summary(tally.files[name], recipe, source)}" if name else ""
            raise Refused(
                f"sources.{source}: {tally.read - tally.dropped:,} of {tally.read:,} documents "
                f"could be read; {where or 'its files hold none'}; minimum_kept = "
                f"{recipe.minimum_kept:g} asks for more"
            )
        lines += [f"{name}: {_summary(one, recipe, source)}" for name, one in poor.items()]
    more = f"... and {len(lines) - SHOWN} more files like these"
    return lines[:SHOWN] + [more] * (len(lines) > SHOWN)


def _lost(one: dict[str, int]) -> int:
    return sum(number for reason, number in one.items() if reason != READ)


def _below(kept: int, read: int, share: float) -> bool:
    return share > 0 and (kept < share * read or not kept)


def _is_poor(one: dict[str, int], share: float) -> bool:
    return _below(one.get(READ, 0) - _lost(one), one.get(READ, 0), share)


def _summary(one: dict[str, int], recipe: Recipe, source: str) -> str:
    """How many documents could be read, why others could not, and which keys that is about."""
    read = one.get(READ, 0)
    if not read:
        return "holds no documents"
    reasons = Counter({reason: number for reason, number in one.items() if reason != READ})
    shown = [f"{number:,} {reason}" for reason, number in reasons.most_common(SHOWN)]
    keys = [
        f"sources.{source}.{key} = {value!r}"
        for key, value in recipe.sources[source].items()
        if value and any(repr(value) in reason for reason in reasons)
    ]
    about = f" ({', '.join(keys)})" if keys else ""
    return f"{read - _lost(one):,} of {read:,} documents could be read: {', '.join(shown)}{about}"
