"""Translation files as they are usually prepared: raw or tokenized, with BPE or not, .gz or not."""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from januslm.config import Refused
from januslm.data import atomic
from januslm.data.text_pairs import SPLITS, Pair, aligned, checked, known, lines, made_for

BEAM_5 = {"beam": 5, "length_penalty": 1.0, "max_length": 200}
MOSES = {"bleu": {"mode": "fairseq"}}  # of Moses tokens; raw files need mode "sacre"

LOOKED_AT, SEGMENTED = 1000, 0.1  # lines, and the share of them with "@@ " that only BPE reaches


@dataclass(frozen=True)
class BitextFiles:
    """Where a task's files may lie: FOLDER/STEM.LANGUAGE, for each split the stem of one form."""

    folders: tuple[str, ...]  # below the root; the root itself is looked at last
    forms: tuple[tuple[str, str, str], ...]  # stems of train, valid, test


@dataclass(frozen=True)
class Direction:
    """A translation task: its name, its files, from which language to which.

    `read` and `save` are the functions of a file of finetune/tasks/.
    """

    task: str
    corpus: BitextFiles
    sides: tuple[str, str]

    def reversed(self, task: str) -> "Direction":
        """The same files the other way round."""
        return Direction(task, self.corpus, self.sides[::-1])

    def read(self, root: Path, split: str, skipped: Counter | None = None) -> Iterator[Pair]:
        """Pairs of one split, BPE undone.

        Our tokenizer cuts words itself, and scores are of words.  Refused for a distillation of
        another task: its files may have the same names and the languages swapped.
        """
        at = SPLITS.index(known(split))
        place, form = _place(Path(root), self)
        made_for(self.task, place)
        source, target = (_file(place / f"{form[at]}.{language}") for language in self.sides)
        found = (
            Pair(f"{split}-{number}", one, (other,))
            for number, (one, other) in enumerate(_joined(source, target), 1)
        )
        return checked(found, str(source), split, skipped)

    def save(self, folder: Path, split: str, pairs: Iterable[Pair]) -> int:
        """Write pairs as `read` reads them, in the first form; how many."""
        stem = self.corpus.forms[0][SPLITS.index(known(split))]
        return save(folder, stem, self.sides, pairs)


def save(folder: Path, stem: str, sides: Sequence[str], pairs: Iterable[Pair]) -> int:
    """Write pairs as FOLDER/STEM.LANGUAGE, a line each, so that `read` finds them; how many.

    Pairs without targets leave no file of targets, since empty lines would be scored.
    """
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{stem}.{language}" for language in sides]
    count = answered = 0
    with atomic.plain(paths[0]) as source, atomic.plain(paths[1]) as target:
        for count, pair in enumerate(pairs, 1):  # noqa: B007
            source.write(_line(pair.source, pair.id))
            target.writelines(_line(text, pair.id) for text in pair.targets[:1])
            answered += bool(pair.targets)
        assert answered in (0, count), f"{paths[0]}: {answered} of {count} pairs have targets"
    if answered < count:
        paths[1].unlink()
    return count


def whole_words(text: str) -> str:
    """BPE undone: Haus@@ tür -> Haustür."""
    return re.sub(r"@@( |$)", "", text)


def segmented(path: Path) -> bool:
    """Whether a file is cut by BPE; "@@ " in a line or two of raw text is no sign of it."""
    first = list(islice(lines(path), LOOKED_AT))
    return sum("@@ " in line for line in first) > SEGMENTED * len(first)


def _place(root: Path, wanted: Direction) -> tuple[Path, tuple[str, str, str]]:
    """The folder and the form of which most files are there."""
    corpus, sides = wanted.corpus, wanted.sides

    def there(choice: tuple[Path, tuple[str, str, str]]) -> int:
        place, form = choice
        paths = [place / f"{stem}.{language}" for stem in form for language in sides]
        return sum(_file(path).is_file() for path in paths)

    places = [*(root / name for name in corpus.folders), root]
    choices = [(place, form) for place in places for form in corpus.forms]
    best = max(choices, key=there)  # the first of equals
    if there(best):
        return best
    ends = "{" + ",".join(sides) + "}(.gz)"
    looked = ", ".join(f"{form[2]}.{ends}" for form in corpus.forms)
    raise Refused(
        f"{root}: no data of task {wanted.task!r} there; looked for {looked} in it and in "
        f"{', '.join(corpus.folders)}"
    )


def _file(path: Path) -> Path:
    packed = path.with_name(f"{path.name}.gz")
    return packed if packed.is_file() and not path.is_file() else path


def _joined(source: Path, target: Path) -> Iterator[tuple[str, str]]:
    mend = [whole_words if segmented(path) else str for path in (source, target)]
    for one, other in aligned(source, target):
        yield mend[0](one), mend[1](other)


def _line(text: str, name: str) -> str:
    if "\n" in text:
        raise Refused(f"{name}: a line feed inside its text; a line is one sentence")
    return f"{text}\n"
