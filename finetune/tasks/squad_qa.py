"""SQuAD 1.1 as generation: question and passage -> answer; the dev set is the test set.

A source is "question [SEP] passage"; the question stands first, so cutting never drops it.
"""

import json
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

from januslm.config import Refused, json_table
from januslm.data import atomic
from januslm.data.text_pairs import (
    MADE,
    Pair,
    checked,
    distinct,
    folder,
    known,
    lines,
    made_for,
    records,
    whole,
)

METRICS = ("squad",)
DECODE = {"beam": 4, "length_penalty": 1.0, "max_length": 40}

# The published test set is secret: dev tests, and one article in twenty leaves train to validate.
FILES = {"train": "train-v1.1.json", "valid": "train-v1.1.json", "test": "dev-v1.1.json"}
EVERY = 20


def read(root: Path, split: str, skipped: Counter | None = None) -> Iterator[Pair]:
    """Pairs of the official files; a test question has every different gold answer.

    Of a teacher's folder (`januslm distill`), what the teacher wrote.
    """
    made = f"{known(split)}.jsonl"
    place = folder(root, "squad_qa", FILES[split], made)
    if (place / MADE).is_file():
        made_for("squad_qa", place)
        rows = records(place / made, "id", texts=("source",), lists=("targets",))
        found = (Pair(row["id"], row["source"], tuple(row["targets"])) for row in rows)
        return checked(found, str(place / made), split, skipped)
    path = place / FILES[split]
    return checked(distinct(_pairs(path, split), str(path)), str(path), split, skipped)


def save(place: Path, split: str, pairs: Iterable[Pair]) -> int:
    """Write pairs as JSONL, as `read` reads them beside a teacher's note; returns how many."""
    place.mkdir(parents=True, exist_ok=True)
    count = 0
    with atomic.plain(place / f"{known(split)}.jsonl") as file:
        for count, pair in enumerate(pairs, 1):  # noqa: B007
            row = {"id": pair.id, "source": pair.source, "targets": pair.targets}
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
    return count


def _pairs(path: Path, split: str) -> Iterator[Pair]:
    next(lines(path), None)  # so that what is prepared from it knows the file
    for article in _listed(json_table(path), "data", path):
        # By article: questions on one passage stay on one side.
        held_out = zlib.crc32(str(article.get("title")).encode()) % EVERY == 0
        if split != "test" and held_out != (split == "valid"):
            continue
        for paragraph in _listed(article, "paragraphs", path):
            for question in _listed(paragraph, "qas", path):
                yield _pair(question, paragraph, split, path)


def _pair(question: dict, paragraph: dict, split: str, path: Path) -> Pair:
    name = str(question.get("id"))
    try:
        source = f"{question['question'].strip()} [SEP] {paragraph['context'].strip()}"
        answers = [one["text"].strip() for one in question["answers"]]
    except (KeyError, TypeError, AttributeError) as error:
        raise Refused(f"{path}: question {name!r}: not as SQuAD has them ({error!r})") from None
    whole(source + "".join(answers), f"{path}: question {name!r}")
    if not answers:
        raise Refused(
            f"{path}: question {name!r} has no answer; SQuAD 2.0's questions without one are not "
            "read, take the files of 1.1"
        )
    targets = dict.fromkeys(answers) if split == "test" else answers[:1]
    return Pair(name, source, tuple(targets))


def _listed(table: dict, key: str, path: Path) -> list[dict]:
    found = table.get(key)
    if not isinstance(found, list) or not all(isinstance(one, dict) for one in found):
        raise Refused(f"{path}: no list of tables {key!r}: not a file of SQuAD")
    return found
