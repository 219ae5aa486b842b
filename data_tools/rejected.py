"""Documents that filters dropped, kept as JSONL with the reason: OUT/rejected/part-N.jsonl.zst."""

import json
from collections.abc import Iterator
from pathlib import Path

import zstandard

from data_tools.files import local, opened
from data_tools.filtering import Rejected
from januslm.config import Refused
from januslm.data import atomic

FOLDER, ENDING = "rejected", ".jsonl.zst"
KEYS = {"text", "url", "source", "input", "rule", "reason", "number", "words", "facts"}


def file_of(out: Path, part: int) -> Path:
    """Where the rejected documents of a part lie."""
    return out / FOLDER / f"part-{part:05d}{ENDING}"


class RejectedFile:
    """The rejected documents of one part; the file is there when the `with` block has ended."""

    def __init__(self, out: Path, part: int, source: str):
        self._source = source
        self._path = file_of(out, part)
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._replacement = atomic.durable(self._path, "wb")
        self._compressor = zstandard.ZstdCompressor(write_checksum=True).compressobj()

    def __enter__(self) -> "RejectedFile":
        self._file = self._replacement.__enter__()
        return self

    def __exit__(self, error, value, trace) -> None:
        if error is None:
            self._file.write(self._compressor.flush())
        self._replacement.__exit__(error, value, trace)

    def write(self, rejected: Rejected) -> None:
        """Append one document."""
        document, dropped = rejected.document, rejected.dropped
        row = {
            "text": document.text,
            "url": document.url,
            "source": self._source,
            "input": document.group,
            "rule": rejected.rule,
            "reason": dropped.reason,
            "number": dropped.number,
            "words": dropped.words,
            "facts": dict(document.facts),
        }
        line = json.dumps(row, ensure_ascii=False) + "\n"
        self._file.write(self._compressor.compress(line.encode()))


def rows(out: Path) -> Iterator[dict]:
    """All rejected documents of a corpus, in its order; Refused for a file that is damaged."""
    for path in sorted((out / FOLDER).glob(f"part-*{ENDING}")):
        with opened(local(out / FOLDER, path.name)) as file:
            for number, line in enumerate(file, 1):
                row = json.loads(line)
                if not isinstance(row, dict) or row.keys() != KEYS:
                    raise Refused(f"{path}:{number}: must have the keys {', '.join(sorted(KEYS))}")
                yield row
